"""Where things are: the operator's project folder, and what ships with Ratchet.

A project is a folder with `ansible.cfg` and `inventory/` (a checkout is one; `controller init` writes one).
State lives in its `.ratchet/` and `runs/`. Playbooks and roles come from the project when it has them, else from
the installed package, so that `pip install` works without a checkout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.model.errors import BadInput

PACKAGE = Path(__file__).resolve().parent.parent


def bundle() -> Path:
    """The folder that holds the shipped `playbooks`, `roles`, `experiments`: the wheel's, else the checkout's."""
    packed = PACKAGE / "_bundle"
    return packed if packed.is_dir() else PACKAGE.parent


@dataclass(frozen=True)
class Project:
    """One operator's folder."""

    root: Path

    @classmethod
    def find(cls, start: Path) -> Project:
        """The nearest folder at or above `start` with `ansible.cfg` and `inventory/`. Raises BadInput."""
        for folder in [start.resolve(), *start.resolve().parents]:
            if (folder / "ansible.cfg").is_file() and (folder / "inventory").is_dir():
                return cls(folder)
        raise BadInput(
            "no project here: neither this folder nor one above it has ansible.cfg and inventory/",
            where=str(start),
            next_step="controller init DIR, then run the command in DIR (or name it: controller --project DIR ...)",
        )

    def _own_or_shipped(self, name: str) -> Path:
        own = self.root / name
        return own if own.is_dir() else bundle() / name

    @property
    def playbooks(self) -> Path:
        return self._own_or_shipped("playbooks")

    @property
    def roles(self) -> Path:
        return self._own_or_shipped("roles")

    @property
    def experiments(self) -> Path:
        """What `optimize` runs when no experiment is named."""
        return self._own_or_shipped("experiments")

    @property
    def shipped_experiments(self) -> Path:
        """These may be named too; an own one of the same name wins."""
        return bundle() / "experiments"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def state(self) -> Path:
        """Keys, database, locks: private to the operator (0700)."""
        return self.root / ".ratchet"

    def inventory(self, fleet: str) -> Path:
        return self.root / "inventory" / fleet

    def fleets(self) -> list[str]:
        """Names of the fleets, sorted: folders of `inventory/` with `group_vars/` or a file that may name hosts."""
        folder = self.root / "inventory"
        return sorted(
            entry.name
            for entry in folder.iterdir()
            if entry.is_dir()
            and entry.name[:1] != "."
            and entry.name not in {"group_vars", "host_vars"}
            and any(
                one.name == "group_vars" if one.is_dir() else one.name[:1] != "." and one.name != "known_hosts"
                for one in entry.iterdir()
            )
        )

    def key_file(self, fleet: str) -> Path:
        return self.state / "keys" / fleet

    def known_hosts(self, fleet: str) -> Path:
        return self.inventory(fleet) / "known_hosts"
