"""A commit ends on the one configuration or the other, everywhere, whatever breaks off; the record says which."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.files.kept import kept_file, read_kept, read_kept_text, write_kept_text
from controller.adapters.store import open_commits, read_commit, record_commit
from controller.model.errors import FleetLocked, HostFailed, Interrupted, RestoreUnverified
from controller.workflow.fleet.committing import carry_out
from controller.workflow.fleet.open_commits import finish_open, supersede
from tests.unit.workflow.fleet.commit_world import AFTER, BEFORE, LATER, NAMES, Killed, World


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    return World(tmp_path, monkeypatch)


def recorded(world: World) -> dict[str, str]:
    return {host: baseline.configuration for host, baseline in world.store.baselines("web").items()}


def assert_kept(world: World) -> None:
    assert world.confirmed == world.live == dict.fromkeys(NAMES, AFTER) == recorded(world)
    assert read_kept(world.context.project, "web") == {"nginx_gzip_comp_level": 4}
    assert open_commits(world.store, "web") == []


def assert_untouched(world: World) -> None:
    assert world.confirmed == world.live == dict.fromkeys(NAMES, BEFORE)
    assert read_kept_text(world.context.project, "web") == "" and recorded(world) == {}
    assert open_commits(world.store, "web") == []


def test_every_host_is_live_before_the_first_confirms_and_what_was_done_is_recorded(world: World) -> None:
    done = carry_out(world.context, world.commit())
    assert done.commit.state == "done" and done.doubt == {}
    assert_kept(world)
    asked = [call.split()[0] for call in world.calls]
    assert asked.index("confirm") > max(at for at, call in enumerate(asked) if call == "switch")
    # What is to come is on record before it begins.
    assert asked[0] == "record_commit" == asked[asked.index("confirm") - 1]
    assert carry_out(world.context, world.commit()).commit.state == "done"


@pytest.mark.parametrize("when", ["refuses", "down"])
def test_a_host_that_does_not_take_it_takes_it_back_from_all(when: str, world: World) -> None:
    if when == "down":
        world.down = {"web-2"}
    else:
        world.refusing = {"web-2": {"switch"}}
    with pytest.raises(HostFailed) as caught:
        carry_out(world.context, world.commit())
    assert caught.value.where == "web-2" and not any(call.startswith("confirm") for call in world.calls)
    assert_untouched(world)
    with pytest.raises(HostFailed, match="was taken back"):
        carry_out(world.context, world.commit())


def test_another_baseline_than_it_was_measured_against_is_left_alone(world: World) -> None:
    world.live["web-3"] = world.confirmed["web-3"] = LATER
    with pytest.raises(HostFailed, match=f"its baseline is {LATER} by now, neither {BEFORE} nor {AFTER}"):
        carry_out(world.context, world.commit())
    assert world.confirmed == world.live == {"web-1": BEFORE, "web-2": BEFORE, "web-3": LATER}


def test_a_host_that_is_away_while_the_others_confirm_is_waited_for(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-1":
            world.down = {"web-2"}

    def on_sleep() -> None:
        world.down = world.down if len(world.slept) < 3 else set()

    world.at, world.on_sleep = at, on_sleep
    done = carry_out(world.context, world.commit())
    assert done.doubt == {} and len(world.slept) == 3
    assert_kept(world)


@pytest.mark.parametrize("how", ["away", "refuses"])
def test_a_host_that_cannot_confirm_is_in_doubt_until_whoever_comes_next_has_finished_it(
    how: str, world: World
) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-1" and how == "away":
            world.down = {"web-3"}
        elif how == "refuses":
            world.refusing = {"web-3": {"confirm"}}

    world.at = at
    done = carry_out(world.context, world.commit())
    assert set(done.doubt) == {"web-3"} and AFTER in done.doubt["web-3"]
    world.lease_ends()
    assert world.confirmed == {"web-1": AFTER, "web-2": AFTER, "web-3": BEFORE}
    # The settings and records say what is so; the direction is on record.
    assert recorded(world) == {"web-1": AFTER, "web-2": AFTER}
    assert read_kept(world.context.project, "web") == {"nginx_gzip_comp_level": 4}
    assert [commit.open for commit in open_commits(world.store, "web")] == [["web-3"]]
    assert set(finish_open(world.context)) == {"web-3"}
    world.at, world.down, world.refusing = lambda *_: None, set(), {}
    assert finish_open(world.context) == {}
    assert_kept(world)


def test_where_every_host_refuses_to_confirm_nothing_is_left_of_it(world: World) -> None:
    world.refusing = {name: {"confirm"} for name in NAMES}
    with pytest.raises(HostFailed, match="nginx refuses it"):
        carry_out(world.context, world.commit())
    assert_untouched(world)


def failing(world: World, call: str, times: int) -> None:
    """The database or the disk fails so often, once a host has confirmed."""
    left = [times]

    def at(_number: int, called: str) -> None:
        if called == call and any(each.startswith("confirm") for each in world.calls) and left[0]:
            left[0] -= 1
            raise HostFailed("the database failed: database is locked")

    world.at = at


@pytest.mark.parametrize("call", ["record_commit", "record_baseline", "write_kept_text"])
def test_what_fails_after_the_first_confirm_is_tried_again_and_never_turns_the_verdict(call: str, world: World) -> None:
    failing(world, call, 4)
    assert carry_out(world.context, world.commit()).doubt == {}
    assert_kept(world)


@pytest.mark.parametrize("call", ["record_commit", "record_baseline", "write_kept_text"])
def test_what_cannot_be_recorded_at_all_is_told_and_written_by_the_next_command(call: str, world: World) -> None:
    failing(world, call, 10_000)
    assert carry_out(world.context, world.commit()).commit.confirmed == list(NAMES)
    assert world.confirmed == dict.fromkeys(NAMES, AFTER)
    assert "could not be recorded" in str(world.events)
    world.at = lambda *_: None
    assert finish_open(world.context) == {}
    assert_kept(world)


def test_a_stop_before_the_first_confirm_takes_it_back(world: World) -> None:
    world.at = lambda _number, call: world.context.stop.request() if call == "switch web-2" else None  # type: ignore[return-value]
    with pytest.raises(Interrupted, match="before any host had confirmed"):
        carry_out(world.context, world.commit())
    assert_untouched(world)


def test_a_stop_after_it_is_heard_and_finishes_it_first(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-1":
            assert world.context.stop.committing
            world.context.stop.request()
            world.context.stop.request()

    world.at = at
    assert carry_out(world.context, world.commit()).doubt == {}
    assert_kept(world)
    assert not world.context.stop.committing


@pytest.mark.parametrize("kind", ["resume", "next command"])
@pytest.mark.parametrize("lease_ends", [False, True])
def test_a_controller_that_dies_at_any_call_leaves_what_the_next_one_finishes(
    kind: str, lease_ends: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number, directions = 1, set()
    while True:
        (tmp_path / str(number)).mkdir()
        with monkeypatch.context() as patch:
            world = World(tmp_path / str(number), patch)

            def at(call: int, _what: str, limit: int = number) -> None:
                if call == limit:
                    raise Killed

            world.at = at
            try:
                carry_out(world.context, world.commit())
                break
            except Killed:
                pass
            world.at = lambda *_: None
            first_confirm = any(configuration == AFTER for configuration in world.confirmed.values())
            if lease_ends:
                world.lease_ends()
            if kind == "resume":
                carry_out(world.context, world.commit())
            else:
                finish_open(world.context)
            commit = read_commit(world.store, "r-1/1")
            if commit is not None and commit.forward:
                assert_kept(world)
            else:
                assert not first_confirm
                assert_untouched(world)
            directions.add(commit.forward if commit else None)
        number += 1
    assert number > 12 and True in directions
    if kind == "next command":
        assert False in directions


def test_what_somebody_wrote_into_the_settings_meanwhile_stays(world: World) -> None:
    path = kept_file(world.context.project, "web")

    def at(_number: int, call: str) -> None:
        if call == "confirm web-2":
            path.write_text("nginx_sendfile: false # mine\n")

    world.at = at
    carry_out(world.context, world.commit())
    assert read_kept(world.context.project, "web") == {"nginx_sendfile": False, "nginx_gzip_comp_level": 4}
    assert "# mine" in path.read_text()


def undo(world: World, **changes: Any) -> Any:
    commit = world.commit(
        commit_id="rollback-1", run_id="rollback-1", why="the rollback", before=dict(world.confirmed),
        after=dict.fromkeys(NAMES, BEFORE), kept_before=read_kept_text(world.context.project, "web"), kept_after="",
        parameters={}, without_absent=True, **changes,
    )  # fmt: skip
    return carry_out(world.context, supersede(world.context, commit))


def test_a_rollback_waits_for_no_dead_host_which_follows_when_it_is_back(world: World) -> None:
    carry_out(world.context, world.commit())
    world.down = {"web-2"}
    assert set(undo(world).doubt) == {"web-2"}
    assert world.confirmed == {"web-1": BEFORE, "web-2": AFTER, "web-3": BEFORE}
    assert read_kept_text(world.context.project, "web") == ""
    world.down = set()
    assert finish_open(world.context) == {}
    assert world.confirmed == world.live == dict.fromkeys(NAMES, BEFORE) == recorded(world)


def test_undoing_a_commit_that_a_dead_host_never_got_leaves_no_second_direction(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-1":
            world.down = {"web-3"}

    world.at = at
    carry_out(world.context, world.commit())
    world.lease_ends()
    assert set(undo(world).doubt) == {"web-3"}
    assert [commit.commit_id for commit in open_commits(world.store, "web")] == ["rollback-1"]
    world.down = set()
    assert finish_open(world.context) == {}
    assert world.confirmed == world.live == dict.fromkeys(NAMES, BEFORE)
    assert open_commits(world.store, "web") == []


def test_a_host_that_has_left_the_fleet_keeps_nothing_open(world: World) -> None:
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    del world.context.fleet.hosts[2:]
    assert finish_open(world.context) == {}
    assert open_commits(world.store, "web") == []


def test_what_an_operator_has_deployed_on_an_open_host_is_not_undone_by_who_finishes_the_commit(world: World) -> None:
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.refusing = {}
    world.live["web-3"] = world.confirmed["web-3"] = LATER
    assert finish_open(world.context) == {}
    assert world.confirmed == world.live == {"web-1": AFTER, "web-2": AFTER, "web-3": LATER}
    assert open_commits(world.store, "web") == [] and f"its baseline is {LATER} by now" in str(world.events)


def test_a_deploy_between_going_live_and_confirming_is_not_undone(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-1":
            world.live["web-2"] = world.confirmed["web-2"] = LATER

    world.at = at
    done = carry_out(world.context, world.commit())
    assert world.confirmed == {"web-1": AFTER, "web-2": LATER, "web-3": AFTER}
    assert done.commit.state == "done" and set(done.commit.after) == {"web-1", "web-3"}
    assert set(done.left) == {"web-2"} and done.doubt == {}


def test_a_host_that_follows_late_takes_nothing_back_that_was_kept_since(world: World) -> None:
    """The next trial went on without it, where broken hosts are quarantined."""
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.lease_ends()
    two = NAMES[:2]
    newer = "nginx_gzip_comp_level: 2 # r-2\n"
    carry_out(
        world.context,
        world.commit(
            commit_id="r-2/1", run_id="r-2", before=dict.fromkeys(two, AFTER), after=dict.fromkeys(two, LATER),
            kept_before=read_kept_text(world.context.project, "web"), kept_after=newer,
            parameters={"nginx_gzip_comp_level": 2},
        ),
    )  # fmt: skip
    world.refusing = {}
    assert finish_open(world.context) == {}
    # It follows the fleet, not what the fleet has left; who is behind is told with what to type.
    assert world.confirmed == world.live == {"web-1": LATER, "web-2": LATER, "web-3": BEFORE}
    assert recorded(world) == {"web-1": LATER, "web-2": LATER} and open_commits(world.store, "web") == []
    assert read_kept_text(world.context.project, "web") == newer
    assert "web-3 has missed it" in str(world.events) and "--limit web-3" in str(world.events)


def test_an_undo_by_hand_is_not_undone_when_a_host_comes_back(world: World) -> None:
    """The line is deleted and site.yml run, while web-3 is away."""
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.lease_ends()
    write_kept_text(world.context.project, "web", "")
    for name in NAMES[:2]:
        world.live[name] = world.confirmed[name] = BEFORE
    world.refusing = {}
    assert finish_open(world.context) == {}
    assert world.confirmed == dict.fromkeys(NAMES, BEFORE) and read_kept_text(world.context.project, "web") == ""
    assert open_commits(world.store, "web") == []


def test_what_no_host_has_is_written_nowhere_until_it_is_known(world: World) -> None:
    """The controller's own network goes, once everything is live."""

    def at(_number: int, call: str) -> None:
        if call.startswith("confirm"):
            world.down = set(NAMES)

    world.at = at
    with pytest.raises(RestoreUnverified, match="not known"):
        carry_out(world.context, world.commit())
    assert read_kept_text(world.context.project, "web") == "" and recorded(world) == {}
    world.lease_ends()
    assert set(finish_open(world.context)) == set(NAMES)
    world.at, world.down = lambda *_: None, set()
    assert finish_open(world.context) == {}
    assert_untouched(world)


def test_a_confirm_whose_answer_was_lost_counts_once_the_host_can_be_asked(world: World) -> None:
    carry_out(world.context, world.commit(without_absent=True, parameters={}))
    world.confirmed["web-3"] = world.live["web-3"] = AFTER
    undone = undo(world, instead={})
    assert undone.doubt == {} and world.confirmed == dict.fromkeys(NAMES, BEFORE)


def test_an_open_host_that_had_confirmed_after_all_is_undone_too(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-3":
            # It takes it, and its answer is lost.
            world.confirmed["web-3"] = world.live["web-3"]
            world.down = {"web-3"}

    world.at = at
    assert set(carry_out(world.context, world.commit()).doubt) == {"web-3"}
    world.at = lambda *_: None
    assert set(undo(world).doubt) == {"web-3"}
    world.down = set()
    assert finish_open(world.context) == {}
    assert world.confirmed == world.live == dict.fromkeys(NAMES, BEFORE)


def test_a_rollback_that_is_refused_leaves_the_open_commit_as_it_was(world: World) -> None:
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.refusing = {"web-1": {"switch"}}
    with pytest.raises(HostFailed):
        undo(world)
    assert [commit.commit_id for commit in open_commits(world.store, "web")] == ["r-1/1"]
    world.refusing = {}
    assert finish_open(world.context) == {}
    assert_kept(world)


def test_an_undo_does_not_deploy_first_what_it_undoes(world: World) -> None:
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.refusing, world.calls = {}, []
    assert finish_open(world.context, undoing=True) == {}
    assert not any(call.startswith(("confirm", "switch")) for call in world.calls)


def test_a_stop_before_it_begins_touches_no_host(world: World) -> None:
    world.context.stop.request()
    with pytest.raises(Interrupted, match="before the change had begun"):
        carry_out(world.context, world.commit())
    assert world.calls == []


def test_a_file_that_is_damaged_meanwhile_costs_no_recorded_baseline(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-2":
            kept_file(world.context.project, "web").write_text("nginx_a: [\n")

    world.at = at
    carry_out(world.context, world.commit())
    assert recorded(world) == dict.fromkeys(NAMES, AFTER)
    assert "kept parameters could not be recorded" in str(world.events)
    world.at = lambda *_: None
    kept_file(world.context.project, "web").unlink()
    assert finish_open(world.context) == {}
    assert_kept(world)


def test_what_was_repaired_by_hand_on_an_open_host_is_not_made_the_baseline_in_passing(world: World) -> None:
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.lease_ends()
    world.refusing, world.drift = {}, {"web-3": {"conf.d/a.conf": "was edited"}}
    assert "was edited by hand: conf.d/a.conf" in finish_open(world.context)["web-3"]
    assert world.confirmed["web-3"] == BEFORE
    world.drift = {}
    assert finish_open(world.context) == {}
    assert_kept(world)


def test_a_fault_of_ours_on_one_host_is_that_host_s_failure_and_the_commit_is_finished(world: World) -> None:
    wrong: list[Exception] = [EOFError("of a library"), IndexError("of another")]

    def failing(_number: int, call: str) -> None:
        if call == "confirm web-2" and wrong:
            raise wrong.pop()

    world.at = failing
    committed = carry_out(world.context, world.commit())
    assert committed.commit.state == "done" and not committed.doubt and not wrong
    assert_kept(world)


def test_whatever_keeps_the_parameters_from_being_written_is_tried_again(world: World) -> None:
    wrong: list[Exception] = [FileExistsError(17, "File exists"), UnicodeEncodeError("utf-8", "x", 0, 1, "no")]

    def failing(_number: int, call: str) -> None:
        if call == "write_kept_text" and wrong:
            raise wrong.pop()

    world.at = failing
    committed = carry_out(world.context, world.commit())
    assert committed.commit.state == "done" and not wrong
    assert_kept(world)


def test_a_commit_that_was_undone_is_not_told_as_carried_out_to_who_resumes_its_run(world: World) -> None:
    carry_out(world.context, world.commit())
    world.live = world.confirmed = dict.fromkeys(NAMES, BEFORE)
    with pytest.raises(HostFailed, match="was undone since: no host has it any more"):
        carry_out(world.context, world.commit())
    assert world.confirmed == dict.fromkeys(NAMES, BEFORE)


def test_who_resumes_a_carried_out_commit_is_told_whom_it_has_left_and_who_does_not_show_it(world: World) -> None:
    world.confirmed["web-3"] = world.live["web-3"] = LATER
    world.at = lambda _number, call: world.live.update({"web-2": BEFORE}) if call == "write_kept_text" else None
    with pytest.raises(HostFailed, match="web-3"):
        carry_out(world.context, world.commit())
    world.confirmed["web-3"] = world.live["web-3"] = BEFORE

    def elsewhere(_number: int, call: str) -> None:
        if call == "confirm web-1":
            world.confirmed["web-3"] = world.live["web-3"] = LATER

    world.at = elsewhere
    first = carry_out(world.context, world.commit(commit_id="r-1/2"))
    assert list(first.left) == ["web-3"]
    world.live["web-2"] = BEFORE
    again = carry_out(world.context, world.commit(commit_id="r-1/2"))
    assert list(again.left) == ["web-3"]
    assert again.doubt == {"web-2": f"nginx does not show that it runs {AFTER}"}


def test_what_is_undone_by_hand_before_it_is_booked_stays_undone_and_is_not_recorded(world: World) -> None:
    record_commit(world.store, world.commit(state="confirming", confirmed=["web-1"]))
    world.lease_ends()
    assert finish_open(world.context) == {}
    assert world.confirmed == dict.fromkeys(NAMES, BEFORE) and recorded(world) == {}
    assert read_kept_text(world.context.project, "web") == "" and open_commits(world.store, "web") == []
    assert "web-1 has another baseline since; web-2,web-3 has missed it" in str(world.events)


class Holder:
    """The claims of one of two controllers; `over`: the fleet is another's by now."""

    options: tuple[str, ...] = ()

    def __init__(self, generation: int) -> None:
        self.generation = generation
        self.over = False

    def renew(self, _names: object) -> None:
        if self.over:
            raise FleetLocked("run r-1 was taken over", where="web-1")

    def refused(self, said: object) -> FleetLocked | None:
        return FleetLocked("taken over", where="web-1") if self.over and said else None

    def still_ours(self, names: Collection[str]) -> list[str]:
        return [] if self.over else list(names)


@pytest.mark.parametrize("moment", range(2, 5))
def test_a_controller_that_wakes_up_late_does_not_reopen_what_was_undone_meanwhile(world: World, moment: int) -> None:
    """Suspended at its so-manyth record; another takes over, undoes its change, and keeps one of its own."""
    mine: Any = Holder(1)
    other: Any = Holder(2)
    late = dataclasses.replace(world.context, claims=mine)
    later = dataclasses.replace(world.context, claims=other)
    records: list[str] = []

    def suspended(_number: int, call: str) -> None:
        records.extend([call] if call == "record_commit" else [])
        if call == "record_commit" and len(records) == moment:
            world.at = lambda *_: None
            mine.over = True
            world.lease_ends()
            finish_open(later, undoing=True)
            undo = world.commit(
                commit_id="rollback-1", run_id="rollback-1", before=dict(world.confirmed), parameters={}, kept_after="",
                after=dict.fromkeys(NAMES, BEFORE), without_absent=True,
            )  # fmt: skip
            assert carry_out(later, supersede(later, undo)).commit.state == "done"

    world.at = suspended
    with contextlib.suppress(FleetLocked, HostFailed):
        carry_out(late, world.commit())
    assert world.confirmed == world.live == dict.fromkeys(NAMES, BEFORE)
    assert finish_open(later) == {}
    assert world.confirmed == world.live == dict.fromkeys(NAMES, BEFORE)
    assert set(recorded(world).values()) <= {BEFORE} and read_kept_text(world.context.project, "web") == ""


@pytest.mark.parametrize("when", ["after its switch", "before, with a trial's variant live"])
def test_an_edit_is_never_confirmed_with_a_commit(world: World, when: str) -> None:
    def edit(_number: int, call: str) -> None:
        if call == "switch web-3":
            world.drift["web-1"] = {"conf.d/site.conf": "was edited"}

    if when == "after its switch":
        world.at = edit
    else:
        world.drift["web-1"] = {"conf.d/site.conf": "was edited"}
        world.live["web-1"] = AFTER
    done = carry_out(world.context, world.commit())
    assert world.confirmed["web-1"] == BEFORE
    assert "edited by hand" in done.doubt["web-1"]


def died_before_booking(world: World) -> None:
    """Every host has confirmed; nothing is written down; then somebody gives the first one something else."""

    def die(_number: int, call: str) -> None:
        if call == "record_baseline":
            raise Killed

    world.at = die
    with pytest.raises(Killed):
        carry_out(world.context, world.commit())
    world.at = lambda *_: None
    world.confirmed["web-1"] = world.live["web-1"] = LATER


@pytest.mark.parametrize("who", ["the run that is resumed", "the next command"])
def test_what_some_hosts_still_have_is_written_down_though_another_was_moved_before(world: World, who: str) -> None:
    died_before_booking(world)
    if who == "the next command":
        assert finish_open(world.context) == {}
    else:
        done = carry_out(world.context, world.commit())
        assert list(done.left) == ["web-1"] and not done.doubt
    assert world.confirmed == {"web-1": LATER, "web-2": AFTER, "web-3": AFTER}
    assert recorded(world) == {"web-2": AFTER, "web-3": AFTER}
    assert read_kept(world.context.project, "web") == {"nginx_gzip_comp_level": 4}
    assert open_commits(world.store, "web") == []


def test_what_no_host_has_any_more_is_written_down_nowhere(world: World) -> None:
    def move(_number: int, call: str) -> None:
        if call == "record_commit" and all(world.confirmed[name] == AFTER for name in NAMES):
            world.confirmed.update(dict.fromkeys(NAMES, LATER))
            world.live.update(dict.fromkeys(NAMES, LATER))

    world.at = move
    with pytest.raises(HostFailed, match="its baseline is"):
        carry_out(world.context, world.commit())
    assert recorded(world) == {} and read_kept_text(world.context.project, "web") == ""
    assert open_commits(world.store, "web") == []


def test_a_silent_host_that_never_confirmed_makes_no_keep_of_what_was_undone(world: World) -> None:
    record_commit(world.store, world.commit(state="superseded", confirmed=["web-1"]))
    world.down = {"web-3"}
    with pytest.raises(HostFailed, match="was undone since"):
        carry_out(world.context, world.commit())


def waiting_for_web_3(world: World) -> None:
    """r-1/1 is kept on two hosts; the third has not confirmed it, and is back on what it had."""
    world.refusing = {"web-3": {"confirm"}}
    carry_out(world.context, world.commit())
    world.lease_ends()
    world.refusing = {}


def test_a_rollback_that_no_host_confirms_leaves_the_open_commit_as_it_was(world: World) -> None:
    waiting_for_web_3(world)
    world.refusing = {name: {"confirm"} for name in NAMES}
    with pytest.raises(HostFailed, match="nginx refuses it"):
        undo(world)
    assert [commit.commit_id for commit in open_commits(world.store, "web")] == ["r-1/1"]
    world.refusing = {}
    assert finish_open(world.context) == {}
    assert_kept(world)


def test_a_rollback_that_dies_at_any_call_leaves_no_host_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a commit that waits for a host: all follow the one or the other, as the record says."""
    number, ends = 1, set()
    while True:
        (tmp_path / str(number)).mkdir()
        with monkeypatch.context() as patch:
            world = World(tmp_path / str(number), patch)
            waiting_for_web_3(world)
            before = len(world.calls)

            def at(call: int, _what: str, limit: int = before + number) -> None:
                if call == limit:
                    raise Killed

            world.at = at
            try:
                undo(world)
                break
            except Killed:
                world.at = lambda *_: None
            world.lease_ends()
            assert finish_open(world.context) == {}
            assert open_commits(world.store, "web") == []
            ends.add(world.confirmed["web-1"])
            assert world.confirmed == world.live == dict.fromkeys(NAMES, world.confirmed["web-1"]) == recorded(world)
            kept = read_kept(world.context.project, "web")
            assert kept == ({"nginx_gzip_comp_level": 4} if world.confirmed["web-1"] == AFTER else {})
        number += 1
    assert number > 10 and ends == {BEFORE, AFTER}


def test_a_host_whose_answer_was_lost_is_undone_by_the_second_rollback_as_well(world: World) -> None:
    def at(_number: int, call: str) -> None:
        if call == "confirm web-3":
            world.confirmed["web-3"] = world.live["web-3"]
            world.down = {"web-3"}

    world.at = at
    carry_out(world.context, world.commit())
    world.at = lambda *_: None
    for number, after in enumerate((BEFORE, LATER), 1):
        back = world.commit(
            commit_id=f"rollback-{number}", run_id=f"rollback-{number}", before=recorded(world) | {"web-3": BEFORE},
            after=dict.fromkeys(NAMES, after), kept_before="", kept_after="", parameters={}, without_absent=True,
        )  # fmt: skip
        assert set(carry_out(world.context, supersede(world.context, back)).doubt) == {"web-3"}
    world.down = set()
    assert finish_open(world.context) == {}
    assert world.confirmed == world.live == dict.fromkeys(NAMES, LATER)


@pytest.mark.parametrize("known", [["web-1"], ["web-1", "web-2"]])
def test_who_has_confirmed_unknown_to_the_record_is_written_down_though_another_was_moved(
    known: list[str], world: World
) -> None:
    """Every host has confirmed; the database, then the controller, failed before that was on record."""
    world.confirmed, world.live = dict.fromkeys(NAMES, AFTER), dict.fromkeys(NAMES, AFTER)
    record_commit(world.store, world.commit(state="confirming", confirmed=known))
    world.confirmed["web-1"] = world.live["web-1"] = LATER
    assert finish_open(world.context) == {}
    assert recorded(world) == {"web-2": AFTER, "web-3": AFTER}
    assert read_kept(world.context.project, "web") == {"nginx_gzip_comp_level": 4}
    assert open_commits(world.store, "web") == []


def on_two_only(world: World, **changes: Any) -> Any:
    """web-3 has by its host_vars already what is kept."""
    return world.commit(after={"web-1": AFTER, "web-2": AFTER, "web-3": BEFORE}, **changes)


def test_a_host_on_which_nothing_changes_makes_no_keep_of_what_the_others_refuse(world: World) -> None:
    world.refusing = {"web-1": {"confirm"}, "web-2": {"confirm"}}
    with pytest.raises(HostFailed, match="nginx refuses it"):
        carry_out(world.context, on_two_only(world))
    assert_untouched(world)


def test_a_host_on_which_nothing_changed_makes_no_keep_of_what_was_undone(world: World) -> None:
    carry_out(world.context, on_two_only(world))
    world.live = world.confirmed = dict.fromkeys(NAMES, BEFORE)
    with pytest.raises(HostFailed, match="was undone since"):
        carry_out(world.context, on_two_only(world))


def test_a_commit_that_changes_nothing_anywhere_is_carried_out(world: World) -> None:
    assert carry_out(world.context, world.commit(after=dict.fromkeys(NAMES, BEFORE))).commit.state == "done"


def test_a_database_that_fails_when_a_carried_out_commit_is_superseded_turns_no_verdict(world: World) -> None:
    waiting_for_web_3(world)
    world.confirmed["web-1"] = world.live["web-1"] = LATER
    failing(world, "record_commit", 10_000)
    done = carry_out(world.context, world.commit())
    assert done.commit.confirmed == ["web-2"] and "web-1" in done.left
    world.at = lambda *_: None
    assert finish_open(world.context) == {}
    assert open_commits(world.store, "web") == []
