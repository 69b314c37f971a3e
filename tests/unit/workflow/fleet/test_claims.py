"""A run's claims, held against the hosts' own half: what comes too late ends the run, and says who has the host now."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.ansible import HostOutcome, PlaybookResult
from controller.cli.optimize import EXIT_OF_STATUS
from controller.model.errors import FleetLocked, HostFailed
from controller.model.fleet import Fleet, FleetSettings, Host
from controller.model.project import Project
from controller.workflow.fleet import claims, configurations
from controller.workflow.fleet.claims import CLAIM_SECONDS, Claims
from controller.workflow.run.optimize import _status_of
from ratchet_host import paths, processes
from ratchet_host.claim import Claim, Fence, extend_claim
from ratchet_host.command_line import parse_arguments
from ratchet_host.errors import Refused
from ratchet_host.main import dispatch

HOST = Host(name="web-1", address="192.0.2.1", key_file=Path("k"), known_hosts=Path("h"))


class Clock:
    """This machine's and the host's, which both count the hours of sleep."""

    def __init__(self) -> None:
        self.ahead = 0.0
        self._one_at_a_time = threading.Lock()

    def now(self) -> float:
        return time.monotonic() + self.ahead

    def ask(self, _host: Host, *words: str, attempts: int = 3) -> Any:
        """Calls of one process do not keep each other out by the lock of a file."""
        assert attempts
        with self._one_at_a_time:
            if words == ("status",):
                claim = Claim.read()
                return {"ok": True, "claim": claim.document() if claim else None}
            return dispatch(parse_arguments(list(words)))

    def heartbeats(self, run: str, seconds: float) -> None:
        """A session that is renewed, while the hours pass."""
        for _ in range(round(seconds / 30)):
            with self._one_at_a_time:
                self.ahead += 30
                extend_claim(run)
            time.sleep(0.03)


@pytest.fixture
def clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    """A host whose program answers in this process, and the clocks."""
    found = Clock()
    monkeypatch.setattr(paths, "RUN", tmp_path)
    monkeypatch.setattr(processes, "boot_clock", found.now)
    monkeypatch.setattr(claims, "awake", found.now)
    monkeypatch.setattr(claims, "ask_program", found.ask)
    monkeypatch.setattr(claims, "TICK_SECONDS", 0.02)
    yield found


def of(run: str, generation: int = 1, holder: str = "ann@laptop/1", **changes: Any) -> Claims:
    return Claims([HOST], fleet="prod", run_id=run, generation=generation, holder=holder, **changes)


def fence(run: Claims) -> str:
    """What the host says to a changing command of the run; empty when it takes it."""
    document = run.document
    assert document is not None
    try:
        Fence(document["run"], document["generation"]).check()
    except Refused as refusal:
        return str(refusal)
    return ""


@pytest.mark.usefixtures("clock")
def test_what_a_run_changes_carries_its_claim_and_the_host_takes_it() -> None:
    run = of("r-1", 7)
    with run.held():
        assert fence(run) == ""
        run.renew(["web-1"])
        assert run.options == ["--run", "r-1", "--generation", "7"]
        assert run.variables == {"variant_run": "r-1", "variant_generation": "7"}
    assert Claim.read() is None
    nobody = Claims()
    assert (nobody.document, nobody.options, nobody.variables) == (None, [], {})


@pytest.mark.usefixtures("clock")
def test_a_run_that_was_taken_over_learns_by_whom_and_leaves_the_host_alone() -> None:
    lost = threading.Event()
    run, other = of("r-1", lost=lambda _: lost.set()), of("r-2", 1, "bob@desk/2")
    with run.held():
        with other.held(by_force=True):
            said = fence(run)
            refused = run.refused({"web-1": said, "web-2": "nginx is not running"})
            assert refused is not None and refused.exit_code == 4 and refused.where == "web-1"
            assert "run r-1 was taken over by run r-2, of bob@desk/2" in refused.what
            assert "nothing was restored there" in refused.next_step
            with pytest.raises(FleetLocked, match="taken over"):
                run.renew(["web-1"])
            assert run.still_ours(["web-1"]) == []
            assert lost.wait(5)
        # Nobody has it now; the run is at an end all the same, and says by whom.
        with pytest.raises(FleetLocked, match="taken over by run r-2, of bob@desk/2"):
            run.renew(["web-1"])
    assert Claim.read() is None


@pytest.mark.usefixtures("clock")
def test_who_takes_over_is_told_also_when_only_the_renewal_learns_it() -> None:
    run, other = of("r-1"), of("r-2", 1, "bob@desk/2")
    with run.held(), other.held(by_force=True):
        with pytest.raises(FleetLocked, match="r-1 was taken over by run r-2, of bob@desk/2"):
            run.renew(["web-1"])
        assert Claim.read().run == "r-2"
    assert Claim.read() is None


@pytest.mark.usefixtures("clock")
def test_the_end_of_a_run_that_was_taken_over_does_not_release_the_other_s_claim() -> None:
    run, other = of("r-1"), of("r-2", 1, "bob@desk/2")
    with other.held(by_force=True):
        with pytest.raises(FleetLocked), run.held():
            pass
        assert Claim.read().run == "r-2"


@pytest.mark.usefixtures("clock")
def test_an_earlier_process_of_the_same_run_is_refused() -> None:
    earlier, resumed = of("r-1", 1), of("r-1", 2, "ann@desk/9")
    with earlier.held():
        resumed._take(by_force=False)
        assert "goes on in another process since (generation 2" in fence(earlier)
        with pytest.raises(FleetLocked, match="goes on in another process"):
            earlier.renew(["web-1"])
    assert fence(resumed) == ""


@pytest.mark.parametrize("somebody", [False, True])
def test_a_machine_that_slept_longer_than_its_claim_has_lost_the_host_whoever_was_there_meanwhile(
    somebody: bool, clock: Clock
) -> None:
    told: list[str] = []
    run = of("r-1", lost=told.append)
    with run.held():
        clock.ahead += CLAIM_SECONDS + 1
        assert "has no claim on this host any more" in fence(run)
        if somebody:
            with of("r-2", 1, "bob@desk/2").held():
                pass
        with pytest.raises(FleetLocked, match="the claim of run r-1 on this host ran out"):
            run.renew(["web-1"])
        # It has not kept what it claimed to find out.
        assert Claim.read() is None
        assert run.still_ours(["web-1"]) == []
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
        assert told
    assert fence(run)


def test_a_sleeper_learns_it_though_sessions_renew_its_claims(clock: Clock) -> None:
    told: list[str] = []
    run = of("r-1", lost=told.append)
    with run.held(), run.probed(["web-1"]):
        clock.ahead += CLAIM_SECONDS + 1
        deadline = time.monotonic() + 5
        while not told and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "ran out" in told[0]


def test_a_host_that_rebooted_is_claimed_anew(clock: Clock) -> None:
    run = of("r-1")
    with run.held():
        with run.probed(["web-1"]):
            clock.heartbeats("r-1", 600)
        Claim.path().unlink()
        run.renew(["web-1"])
        assert fence(run) == ""


def test_a_trial_of_hours_speaks_for_its_claim_once_in_a_while(clock: Clock) -> None:
    """A session's word extends a claim for an hour at most."""
    run = of("r-1", lost=pytest.fail)
    with run.held(), run.probed(["web-1"]):
        clock.heartbeats("r-1", 5400)
        assert fence(run) == ""


@dataclasses.dataclass
class Context:
    claims: Claims
    fleet: Fleet
    project: Project = dataclasses.field(default_factory=lambda: Project(Path("nowhere")))


@pytest.mark.usefixtures("clock")
def test_a_play_that_comes_too_late_is_no_failure_of_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    run, given = of("r-1"), []

    def late(*_: Any, extra_vars: dict[str, Any], **__: Any) -> PlaybookResult:
        given.append(extra_vars)
        with of("r-2", 1, "bob@desk/2").held(by_force=True):
            return PlaybookResult("p", 2, 1.0, {"web-1": HostOutcome(status="failed", message=fence(run))}, "")

    monkeypatch.setattr(configurations, "run_playbook", late)
    fleet = Fleet(name="prod", inventory=Path("nowhere"), settings=FleetSettings(), hosts=[HOST])
    with run.held(), pytest.raises(FleetLocked, match="taken over by run r-2, of bob@desk/2") as caught:
        configurations.roll_back(Context(run, fleet), {"web-1": "a"}, undo_edits=True)  # type: ignore[arg-type]
    assert given[0] | run.variables == given[0]
    assert EXIT_OF_STATUS[_status_of(caught.value)] == 4
    assert EXIT_OF_STATUS[_status_of(HostFailed("x"))] == 3


@pytest.mark.usefixtures("clock")
def test_a_play_on_a_host_that_lost_its_claim_with_its_power_is_played_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run, said = of("r-1", lost=pytest.fail), []

    def played(*_: Any, **__: Any) -> PlaybookResult:
        if not said:
            Claim.path().unlink()
        said.append(fence(run))
        outcome = HostOutcome(status="failed" if said[-1] else "ok", message=f"FAILED! {said[-1]}")
        return PlaybookResult("p", 2, 1.0, {"web-1": outcome}, "")

    monkeypatch.setattr(configurations, "run_playbook", played)
    fleet = Fleet(name="prod", inventory=Path("nowhere"), settings=FleetSettings(), hosts=[HOST])
    with run.held():
        result = configurations.play(Context(run, fleet), "rollback.yml", ["web-1"], {})  # type: ignore[arg-type]
        assert result.hosts["web-1"].status == "ok" and len(said) == 2
        assert "has no claim on this host any more; nothing was changed" in said[0]
        assert run.still_ours(["web-1"]) == ["web-1"]


def test_a_host_without_a_claim_is_lost_to_a_run_whose_own_may_have_run_out(clock: Clock) -> None:
    run = of("r-1")
    with run.held():
        clock.ahead += CLAIM_SECONDS + 1
        refused = run.refused({"web-1": fence(run)})
        assert refused is not None and "no claim on this host any more" in refused.what
