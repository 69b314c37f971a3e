"""The peers of `search_on_hosts` look once at each setting within the budget, and figures say what was confirmed."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import search_on_hosts
from benchmarks.lab_fleet import CHECKOUT, LabFleet
from benchmarks.search_findings import Belief, Cell, Findings, Found
from benchmarks.search_on_hosts import (
    BASELINES,
    MINUTES,
    OURS,
    RACE,
    RACE_VARIANTS,
    SEEDS,
    Bench,
    belief_of_ours,
    belief_of_peer,
    drawn_order,
    figures_of,
    measure,
    methods,
    question,
    raced_settings,
    trial_of,
    whole_site,
)
from benchmarks.search_peers import PEERS, Smac, installed, random_search, tpe_once
from benchmarks.search_worlds import SimulatedHost, experiment, plan, true_gain
from controller.adapters.files.experiments import read_experiment
from controller.adapters.files.parameters import check_parameters
from controller.model.experiment import Variant
from controller.model.project import Project
from controller.model.run import Budget
from controller.search.bayes import SearchPlan
from controller.search.ledger import Entry, Stop
from controller.search.space import Parameters

ABOUT = experiment()
RECORD = CHECKOUT / "benchmarks/records/search_on_hosts.jsonl"


def searched(peer: Any, *, minutes: float, trials: int = 2000, first: int = 1) -> tuple[list[Entry], Stop]:
    ledger: list[Entry] = []
    host = SimulatedHost(true_gain, 1)

    def unsafe(parameters: Parameters) -> str:
        return "level 9" if parameters["nginx_gzip_comp_level"] == 9 else ""

    budget = Budget(minutes=minutes, trials=trials)
    search = SearchPlan(ABOUT, seed=1, budget=budget, hosts=1, unsafe=unsafe, first=first)
    while True:
        proposal = peer(search, ledger)
        if isinstance(proposal, Stop):
            return ledger, proposal
        of = plan(proposal.trial, proposal.variant, ABOUT, variants=3)
        ledger.append(host.measure(of, proposal, len(ledger) + 1))


@pytest.mark.parametrize("peer", [random_search, tpe_once])
def test_a_peer_looks_once_at_safe_settings_until_its_minutes_are_spent(peer: Any) -> None:
    ledger, stop = searched(peer, minutes=3, first=4)
    assert [entry.trial for entry in ledger] == list(range(4, 4 + len(ledger)))
    settings = [entry.variant.parameters for entry in ledger]
    assert all(setting not in settings[:at] for at, setting in enumerate(settings))
    assert all(setting["nginx_gzip_comp_level"] != 9 for setting in settings)
    assert sum(entry.seconds for entry in ledger[:-1]) < 180 <= sum(entry.seconds for entry in ledger)
    assert stop.ranking == []


@pytest.mark.parametrize("peer", [random_search, tpe_once])
def test_a_peer_stops_after_its_settings(peer: Any) -> None:
    assert len(searched(peer, minutes=100, trials=3)[0]) == 3


@pytest.mark.skipif(not installed("smac"), reason="the group `peers` is not installed")
def test_smac_asks_and_is_told() -> None:
    ledger, _ = searched(Smac(), minutes=100, trials=4)
    assert len(ledger) == 4
    assert all(entry.variant.parameters["nginx_gzip_comp_level"] != 9 for entry in ledger)


def test_every_method_has_the_host_once_in_an_order_of_the_seed() -> None:
    methods = [OURS, *PEERS]
    orders = [drawn_order(methods, seed) for seed in range(10)]
    assert all(sorted(order) == sorted(methods) for order in orders)
    assert drawn_order(methods, 3) == orders[3]
    assert len({order[0] for order in orders}) > 1


def test_the_questions_are_experiments_that_a_fleet_would_accept(tmp_path: Path) -> None:
    (tmp_path / "experiments").symlink_to(CHECKOUT / "experiments")
    bench = Bench(LabFleet(tmp_path, {}))
    bench._write("confirmed", trial_of({"nginx_gzip_comp_level": 3}))
    ranges, one = (read_experiment(tmp_path / "experiments" / name / "meta.json") for name in ("searched", "confirmed"))
    bench._write("raced", trial_of(*raced_settings(BASELINES["Debian's settings"], 1)))
    raced = read_experiment(tmp_path / "experiments/raced/meta.json")
    check_parameters(Project(CHECKOUT), raced)
    assert len({variant.name for variant in raced.variants}) == RACE_VARIANTS
    assert len(ranges.ranges) >= 12
    assert one.model_copy(update={"name": ranges.name}).timing == ranges.timing
    assert one.objective == ranges.objective
    for parameters in BASELINES.values():
        baseline = one.model_copy(update={"variants": [Variant(name="baseline", parameters=dict(parameters))]})
        check_parameters(Project(CHECKOUT), baseline)


def test_what_is_raced_is_drawn_with_the_seed_from_what_is_safe() -> None:
    for baseline in BASELINES.values():
        settings = raced_settings(baseline, 1)
        assert settings == raced_settings(baseline, 1)
        assert settings != raced_settings(baseline, 2)
        assert len({str(setting) for setting in settings}) == RACE_VARIANTS
    # 768 connections beside so many cached files are more than the host's 1,024.
    cached = [raced_settings(BASELINES["Debian's settings"], seed) for seed in range(1, 6)]
    assert max(each.get("nginx_open_file_cache_max", 0) for settings in cached for each in settings) < 256


def test_a_race_needs_its_time() -> None:
    assert RACE in methods(search_on_hosts.MINUTES)
    assert RACE not in methods(1.5)


def looked(gain: float, reason: str = "outdone", level: int = 1) -> dict[str, Any]:
    effect = {"estimate": gain, "low": gain - 0.1, "high": gain + 0.1}
    return {
        "verdict": "KEEP" if reason == "proven-gain" else "REVERT",
        "reason": reason,
        "effect": effect,
        "confirmed_effect": effect if reason == "proven-gain" else None,
        "parameters": {"nginx_gzip_comp_level": level},
    }


def run_of(*trials: dict[str, Any]) -> dict[str, Any]:
    return {"trials": list(trials), "searches": [{"tried": 7}], "seconds": 90.0}


def test_a_peer_believes_its_best_look_that_broke_no_guardrail() -> None:
    belief = belief_of_peer(run_of(looked(0.1), looked(0.2, level=3), looked(0.5, "guardrail-cpu")))
    assert belief == Belief({"nginx_gzip_comp_level": 3}, claimed=0.2, settings=3, minutes=1.5)
    assert belief_of_peer(run_of(looked(-0.1))).parameters == {}


def test_ours_believes_what_it_kept() -> None:
    belief = belief_of_ours(run_of(looked(0.4), looked(0.2, "proven-gain", 3)))
    assert belief == Belief({"nginx_gzip_comp_level": 3}, claimed=0.2, settings=7, minutes=1.5)
    assert belief_of_ours(run_of(looked(0.4))).parameters == {}


def test_what_a_race_kept_is_told_with_its_variants() -> None:
    race = run_of(looked(0.4, "outdone"), looked(0.2, "proven-gain", 3)) | {"searches": []}
    assert belief_of_ours(race) == Belief({"nginx_gzip_comp_level": 3}, claimed=0.2, settings=2, minutes=1.5)


def found(*gains: float, claimed: float = 0.3) -> list[Found]:
    return [Found(Belief({"nginx_gzip_comp_level": 3}, claimed, 7, 1.5), gain) for gain in gains]


def test_ours_has_to_reach_the_best_peer_in_the_median() -> None:
    seen = {OURS: found(0.1, 0.2, 0.3), "random": found(0.1), "tpe-no-repeats": found(0.2)}
    confirmed, random, _, claimed, *_ = figures_of("here", 12, seen)
    assert (confirmed.value, confirmed.low, confirmed.high, confirmed.reached) == (20.0, 10.0, 30.0, True)
    assert confirmed.peers == {"random": 10.0, "tpe-no-repeats": 20.0, "smac": None}
    assert "uv pip install --group peers" in confirmed.unit
    assert random.value == 10.0
    assert claimed.value == pytest.approx(10.0)
    (confirmed, *_) = figures_of("here", 12, seen | {"smac": found(0.25)})
    assert confirmed.reached is False
    assert "not installed" not in confirmed.unit


def test_what_is_complete_is_on_record_and_not_measured_again(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    first, second = Cell("here", 6.0, 1), Cell("here", 6.0, 2)
    kept = Findings(record)
    kept.add(first, {OURS: found(0.1)[0], "random": found(0.05)[0]})
    kept.add(Cell("there", 6.0, 1), {OURS: found(0.7)[0]})
    again = Findings(record)
    assert first in again
    assert second not in again
    assert Cell("here", 12.0, 1) not in again
    again.add(second, {OURS: found(0.2)[0], "random": found(0.3)[0], "smac": found(0.4)[0]})
    seen = Findings(record).of("here", 6.0, 5)
    # Without the peer that was not there in every cell.
    assert seen == {OURS: found(0.1, 0.2), "random": found(0.05, 0.3)}
    assert Findings(record).of("here", 6.0, 1) == {OURS: found(0.1), "random": found(0.05)}


def test_findings_of_another_question_are_left_alone(tmp_path: Path) -> None:
    record = tmp_path / "record.jsonl"
    cell = Cell("here", 6.0, 1)
    Findings(record, "p50").add(cell, {OURS: found(0.1)[0]})
    assert cell not in Findings(record, "mean")
    Findings(record, "mean").add(cell, {OURS: found(0.2)[0]})
    assert [Findings(record, asked).of("here", 6.0, 1)[OURS] for asked in ("p50", "mean")] == [found(0.1), found(0.2)]


def test_another_experiment_is_another_question(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = question()
    assert question() == asked
    monkeypatch.setattr(search_on_hosts, "whole_site", lambda: whole_site() | {"objective": {"metric": "p99"}})
    assert question() != asked


def test_the_figures_that_the_docs_tell_are_those_on_record() -> None:
    """Where this fails since the question is another one: measure again, or take the figures out of the docs."""
    told = (CHECKOUT / "docs/search.md").read_text()
    findings = Findings(RECORD, question())
    methods = (OURS, RACE, *PEERS)

    def cells(found: Mapping[str, list[Found]], figure: Callable[[Found], float], digits: int, *, spread: bool) -> str:
        def cell(method: str) -> str:
            each = sorted(figure(one) for one in found[method])
            # + 0.0: no sign before a zero.
            middle, low, high = (
                f"{round(value, digits) + 0.0:.{digits}f}" for value in (statistics.median(each), each[0], each[-1])
            )
            return f"{middle} ({low} to {high})" if spread else middle

        return " | ".join(map(cell, methods))

    seen = {baseline: findings.of(baseline, MINUTES, SEEDS) for baseline in BASELINES}
    for baseline, found in seen.items():
        assert set(methods) == set(found)
        assert all(len(each) == SEEDS for each in found.values())
        gains = cells(found, lambda each: 100 * each.confirmed, 1, spread=True)
        beyond = cells(found, lambda each: 100 * (each.belief.claimed - each.confirmed), 1, spread=True)
        assert f"| confirmed gain from {baseline}, % | {gains} |" in told
        assert f"| claimed beyond confirmed, from {baseline}, points | {beyond} |" in told
    both = {method: [each for found in seen.values() for each in found[method]] for method in methods}
    for row, cell in {
        "settings looked at": cells(both, lambda each: each.belief.settings, 0, spread=False),
        "parameters that the result changes": cells(both, lambda each: len(each.belief.parameters), 0, spread=True),
        "minutes of the whole command": cells(both, lambda each: each.belief.minutes, 1, spread=False),
    }.items():
        assert f"| {row} | {cell} |" in told
    best = sum(max(methods, key=lambda name: both[name][search].confirmed) == OURS for search in range(2 * SEEDS))
    assert f"the best result in {best} of the ten searches" in told


@pytest.mark.parametrize("line", ["{", "{}", '{"baseline": "a", "minutes": 6, "seed": 1, "found": {"ours": 1}}'])
def test_a_file_that_is_no_record_is_refused_with_its_line(tmp_path: Path, line: str) -> None:
    record = tmp_path / "record.jsonl"
    record.write_text(line + "\n")
    with pytest.raises(SystemExit, match=r"record\.jsonl, line 1 is not a finding"):
        Findings(record)


class LabsOfTwo:
    """Labs and searches without hosts: no cell ends before two are under way."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, broken: str = "") -> None:
        self.alive: set[str] = set()
        self.meeting = threading.Barrier(2, timeout=10)
        self.broken = broken
        monkeypatch.setattr(search_on_hosts, "lab_fleet", self.fleet)
        monkeypatch.setattr(search_on_hosts, "Bench", lambda _: self)

    @contextmanager
    def fleet(self, name: str, hosts: int) -> Iterator[str]:
        assert (hosts, name in self.alive) == (1, False)
        self.alive.add(name)
        try:
            yield name
        finally:
            self.alive.remove(name)

    def start_from(self, baseline: Any) -> None:
        self.meeting.wait()
        if baseline is BASELINES.get(self.broken):
            raise SystemExit(f"nothing starts from {self.broken}")

    def search(self, _: str, seed: int, minutes: float) -> Belief:
        return Belief({}, 0.0, seed, minutes)

    def confirm(self, belief: Belief, _: int) -> Found:
        until = time.monotonic() + 10
        while self.broken and len(self.alive) > 1 and time.monotonic() < until:
            time.sleep(0.01)
        # The broken lab is gone; what is left is taken away right after.
        time.sleep(0.2 if self.broken else 0)
        return Found(belief, 0.0)


def cells(seeds: int) -> list[Cell]:
    return [Cell(baseline, 1.0, seed) for seed in range(1, seeds + 1) for baseline in BASELINES]


def test_labs_share_the_cells_and_each_is_measured_once(monkeypatch: pytest.MonkeyPatch) -> None:
    labs, findings = LabsOfTwo(monkeypatch), Findings()
    measure(cells(3), findings, labs=2)
    for baseline in BASELINES:
        assert [found.belief.settings for found in findings.of(baseline, 1.0, 3)[OURS]] == [1, 2, 3]
    assert not labs.alive


def test_where_one_lab_breaks_the_others_end_with_what_they_are_at(monkeypatch: pytest.MonkeyPatch) -> None:
    broken, whole = BASELINES
    LabsOfTwo(monkeypatch, broken=broken)
    findings = Findings()
    with pytest.raises(SystemExit, match=f"nothing starts from {broken}"):
        measure(cells(3), findings, labs=2)
    assert [cell for cell in cells(3) if cell in findings] == [Cell(whole, 1.0, 1)]
