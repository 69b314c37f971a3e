"""The designs: how the two arms of a trial are set against each other, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class DesignSpec:
    """One design.

    Args:
        blocks_of_a_pair: of one host.
        at_once: the blocks of a pair run at the same time, on shadow instances; else one after the other on the live
            instance, which is switched between them.
        between_hosts: a pair is one host's before and after in a period; hosts are compared with hosts.
        seconds: of a block and of its burn-in, where nothing is said or calibrated; a soak's follow from its length.
        lengths: of a block, in seconds, among which a calibration chooses; none: it is not calibrated.
        not_live: why it cannot take live traffic; empty: it can.
    """

    blocks_of_a_pair: int
    at_once: bool
    between_hosts: bool
    seconds: tuple[float, float]
    lengths: tuple[float, ...]
    not_live: str

    @property
    def rounds(self) -> int:
        """How many blocks of a pair follow each other."""
        return 1 if self.at_once else self.blocks_of_a_pair


DUET = DesignSpec(
    blocks_of_a_pair=2,
    at_once=True,
    between_hosts=False,
    seconds=(1.0, 0.1),
    lengths=(0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0),
    not_live="no user meets a shadow instance",
)
SWITCHBACK = DesignSpec(
    blocks_of_a_pair=2,
    at_once=False,
    between_hosts=False,
    seconds=(2.0, 0.3),
    lengths=(1.0, 1.5, 2.0, 3.0, 4.0, 6.0),
    not_live="",
)
FLEET = DesignSpec(
    blocks_of_a_pair=2,
    at_once=False,
    between_hosts=True,
    seconds=(5.0, 1.0),
    lengths=(),
    not_live="the hosts' users differ",
)
# The variant alone, before its commit.
SOAK = DesignSpec(
    blocks_of_a_pair=1,
    at_once=False,
    between_hosts=False,
    seconds=(0.0, 0.0),
    lengths=(),
    not_live="nothing runs beside it",
)
# By `Design`, and by `ProbeDesign`, which has the soak too.
DESIGNS: dict[str, DesignSpec] = {"duet": DUET, "switchback": SWITCHBACK, "fleet": FLEET, "soak": SOAK}
