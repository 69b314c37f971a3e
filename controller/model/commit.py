"""A commit on record: which configuration each host leaves, which it goes to, and how far that has come."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.experiment import Frozen, ParameterName, ParameterValue

# going-live: under the lease, nothing is confirmed; what breaks off here goes back by itself.
# confirming: from here on it is finished forward, whoever goes on with it.
# booking: every host that can be reached has confirmed it; settings and baselines are being recorded.
# superseded: what was left of it is another's, or somebody's who has deployed since.
CommitState = Literal["going-live", "confirming", "booking", "done", "returned", "superseded"]
ENDED: frozenset[CommitState] = frozenset({"done", "returned", "superseded"})


class Commit(Frozen):
    """One change of a fleet's baseline. Whatever happens, each host ends on `before` or `after`, as `forward` says.

    Both are host -> configuration id. It is recorded before each of its phases begins.
    """

    format: int = 1
    commit_id: str = Field(description="RUN/TRIAL of a kept variant, else the work's own name")
    fleet: str
    run_id: str
    why: str = Field(description="what it carries out, for people and for the audit log")
    started_at: str
    state: CommitState = "going-live"
    before: dict[str, str]
    after: dict[str, str]
    instead: dict[str, list[str]] = Field(
        default={}, description="host -> what it may have of earlier commits, where it has not said which"
    )
    confirmed: list[str] = Field(default=[], description="hosts that have said so")
    left: dict[str, str] = Field(default={}, description="host -> why it is no part of it any more")
    booked: list[str] = Field(
        default=[], description="hosts whose baseline is recorded; with the first ones the parameters are written"
    )
    without_absent: bool = Field(
        default=False, description="hosts that cannot be reached keep nobody waiting: they follow when they are back"
    )
    kept_before: str = Field(description="text of zz-kept.yml")
    kept_after: str = Field(description="its text once it is booked, with what somebody has edited meanwhile")
    parameters: dict[ParameterName, ParameterValue] = Field(
        default={}, description="of a kept variant: laid over the file again where somebody has edited it meanwhile"
    )
    comment: str = ""

    @property
    def forward(self) -> bool:
        """Whether it is to be finished, not taken back."""
        return self.state in {"confirming", "booking", "done"}

    @property
    def begun(self) -> bool:
        """Whether a host has another baseline by it, so that it is finished and not taken back.

        A host whose baseline it leaves as it was says nothing of it, unless it changes none or waits for none.
        """
        changing = {host for host, configuration in self.after.items() if configuration != self.before.get(host)}
        if self.without_absent or not changing:
            return bool(self.confirmed)
        return bool(changing & set(self.confirmed))

    @property
    def ended(self) -> bool:
        return self.state in ENDED

    @property
    def open(self) -> list[str]:
        """Hosts that have not confirmed it yet."""
        return sorted(set(self.after) - set(self.confirmed))

    @property
    def direction(self) -> dict[str, str]:
        """Host -> the configuration that is to be its baseline in the end."""
        return self.after if self.forward else self.before
