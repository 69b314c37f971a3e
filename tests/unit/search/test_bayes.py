"""The search of ranges finds more than chance does, stays in the safe space, and is one function of its ledger."""

from __future__ import annotations

import statistics
from dataclasses import replace

import numpy
import pytest

from benchmarks.search_worlds import SimulatedHost, experiment, plan, true_gain
from controller.model.experiment import Variant
from controller.model.run import Budget
from controller.search import bayes
from controller.search.ledger import Entry, Stop, Try
from controller.search.space import Parameters

SPACE = experiment()


def anything(_: Parameters) -> str:
    return ""


def of(seed: int, budget: Budget, unsafe: bayes.Unsafe = anything) -> bayes.SearchPlan:
    return bayes.SearchPlan(SPACE, seed=seed, budget=budget, hosts=1, unsafe=unsafe)


def search(
    seed: int, budget: Budget, unsafe: bayes.Unsafe = anything, noise: float = 0.013
) -> tuple[list[Entry], list[Try], Stop]:
    host = SimulatedHost(true_gain, seed, noise)
    ledger: list[Entry] = []
    proposals: list[Try] = []
    while not isinstance(proposal := bayes.propose(of(seed, budget, unsafe), ledger), Stop):
        proposals.append(proposal)
        trial = plan(proposal.trial, proposal.variant, SPACE, variants=3)
        ledger.append(host.measure(trial, proposal, len(ledger) + 1))
        assert len(ledger) < 300
    return ledger, proposals, proposal


def best(ledger: list[Entry], stop: Stop) -> float:
    return max((true_gain(e.variant.parameters) for e in ledger if e.trial in stop.ranking[:1]), default=0.0)


def by_chance(seed: int, seconds: float) -> float:
    """Random settings, a look each, the one that looked best."""
    host = SimulatedHost(true_gain, seed + 1000)
    looks: list[tuple[float, float]] = []
    draws = 0
    while host.seconds < seconds:
        draws += 1
        proposal = bayes.propose(of(1_000_000 * seed + draws, Budget()), [])
        assert isinstance(proposal, Try)
        parameters = proposal.variant.parameters
        trial = plan(draws, proposal.variant, SPACE, variants=3)
        entry = host.measure(trial, proposal, draws)
        seen = entry.judgement.effect.estimate if entry.judgement and entry.judgement.effect else -1.0
        looks.append((seen, true_gain(parameters)))
    return max(looks)[1]


def test_it_beats_chance_at_the_same_budget_in_the_median_of_five_seeds() -> None:
    budget = Budget(trials=40, minutes=10.0, least_progress=0.0)
    ours, chances = [], []
    for seed in range(5):
        ledger, _, stop = search(seed, budget)
        ours.append(best(ledger, stop))
        chances.append(by_chance(seed, sum(entry.seconds for entry in ledger)))
    assert statistics.median(ours) > statistics.median(chances)


def test_a_prefix_of_the_ledger_proposes_what_was_proposed_then() -> None:
    budget = Budget(trials=16, least_progress=0.0)
    ledger, proposals, stop = search(4, budget)
    for length in [0, 1, len(ledger) // 2, len(ledger) - 1]:
        again = bayes.propose(of(4, budget), ledger[:length])
        assert again == proposals[length]
    assert bayes.propose(of(4, budget), ledger) == stop


def test_what_is_not_safe_is_never_proposed_and_nothing_twice() -> None:
    def unsafe(parameters: Parameters) -> str:
        return "too many" if int(str(parameters["nginx_worker_connections"])) > 1024 else ""

    _, proposals, _ = search(2, Budget(trials=15, least_progress=0.0), unsafe)
    new = {proposal.trial: proposal.variant.parameters for proposal in proposals}
    assert all(not unsafe(dict(parameters)) for parameters in new.values())
    assert len({str(parameters) for parameters in new.values()}) == len(new) == 15


def test_a_space_of_one_range_or_two_is_searched_until_nothing_is_left() -> None:
    for names in (["nginx_gzip_comp_level"], ["nginx_gzip_comp_level", "nginx_multi_accept"]):
        about = SPACE.model_copy(update={"ranges": {name: SPACE.ranges[name] for name in names}})
        ledger: list[Entry] = []
        host = SimulatedHost(lambda tried: 0.01 * int(str(tried["nginx_gzip_comp_level"])), 1)
        asked = replace(of(1, Budget(trials=100, minutes=100.0, least_progress=0.0)), experiment=about)
        while not isinstance(proposal := bayes.propose(asked, ledger), Stop):
            trial = plan(proposal.trial, proposal.variant, about, variants=3)
            ledger.append(host.measure(trial, proposal, len(ledger) + 1))
        assert len({entry.trial for entry in ledger}) == 9 * len(names)
        assert "no safe setting is left" in proposal.why


def test_it_ends_when_nothing_is_safe() -> None:
    stop = bayes.propose(of(1, Budget(), lambda _: "never"), [])
    assert isinstance(stop, Stop)
    assert "no safe setting" in stop.why


def test_conditional_parameters_come_only_with_their_switch() -> None:
    _, proposals, _ = search(1, Budget(trials=15, least_progress=0.0))
    for proposal in proposals:
        parameters = proposal.variant.parameters
        assert ("nginx_open_file_cache_max" in parameters) == (parameters["nginx_open_file_cache"] is True)


def test_only_the_promising_are_looked_at_again() -> None:
    ledger, _, stop = search(3, Budget(trials=25, least_progress=0.0), noise=0.06)
    looks = {trial: sum(entry.trial == trial for entry in ledger) for trial in {entry.trial for entry in ledger}}
    assert statistics.median(looks.values()) == 1
    assert max(looks.values()) <= bayes.LOOKS
    assert looks[stop.ranking[0]] >= 2


def test_the_budget_of_minutes_and_of_settings_ends_it() -> None:
    ledger, _, stop = search(1, Budget(trials=100, minutes=2.0, least_progress=0.0))
    assert "2 minutes" in stop.why
    assert 110 <= sum(entry.seconds for entry in ledger) <= 160
    _, _, stop = search(1, Budget(trials=7, least_progress=0.0))
    assert "7 settings" in stop.why


def test_it_stops_at_diminishing_returns() -> None:
    ledger, _, stop = search(1, Budget(trials=500, minutes=500.0, least_progress=0.002))
    assert "diminishing returns" in stop.why
    assert len({entry.trial for entry in ledger}) >= 2 * bayes.WINDOW


@pytest.mark.parametrize("ended", ["rejected-by-nginx", "guardrail-memory", "host-failed"])
def test_failures_in_the_ledger_do_not_stop_it(ended: str) -> None:
    ledger, _, _ = search(5, Budget(trials=14, least_progress=0.0))
    failed = [
        entry.model_copy(update={"ended": ended, "judgement": None if ended != "guardrail-memory" else entry.judgement})
        for entry in ledger
    ]
    proposal = bayes.propose(of(5, Budget(trials=99)), failed)
    assert isinstance(proposal, Try)
    assert proposal.trial not in {entry.trial for entry in failed}


def test_a_setting_that_turned_out_futile_is_no_finalist() -> None:
    ledger, _, _ = search(5, Budget(trials=10, least_progress=0.0))
    ended = [entry.model_copy(update={"ended": "futile"}) for entry in ledger]
    stop = bayes.propose(of(5, Budget(trials=10)), ended)
    assert isinstance(stop, Stop)
    assert stop.ranking == []


def test_names_tell_the_trial() -> None:
    proposal = bayes.propose(replace(of(1, Budget()), hosts=2, first=12), [])
    assert isinstance(proposal, Try)
    assert (proposal.trial, proposal.variant.name, proposal.pairs_per_host) == (12, "try-12", 3)
    assert proposal.variant == Variant(name="try-12", parameters=proposal.variant.parameters)


def test_the_simulated_surface_has_room_above_chance() -> None:
    random = numpy.random.default_rng(1)
    gains = [
        true_gain(p.variant.parameters)
        for n in range(60)
        if isinstance(p := bayes.propose(of(int(random.integers(2**31)), Budget()), []), Try)
    ]
    assert statistics.median(gains) < 0.5 * max(gains)
