"""A race finds the best of many variants, seldom anything that is not better, and the same from any prefix."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.search_worlds import SimulatedHost, plan
from controller.model.experiment import Experiment, Variant
from controller.model.trial import TrialPlan
from controller.search import race
from controller.search.ledger import Entry, Stop, Try


def variants_of(count: int) -> list[TrialPlan]:
    experiment = Experiment.model_validate(
        {
            "name": "levels",
            "question": "Which of them is best?",
            "why": "to race them",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a simulation"],
            "workload": {"rate": 100, "requests": [{"path": "/"}]},
            "variants": [{"name": f"v{n}", "parameters": {"nginx_x": n}} for n in range(1, count + 1)],
        }
    )
    return [plan(n, variant, experiment, variants=count) for n, variant in enumerate(experiment.variants, 1)]


def run(
    trials: list[TrialPlan], truth: Sequence[float], seed: int, noise: float = 0.013
) -> tuple[list[Entry], list[Try], Stop]:
    host = SimulatedHost(lambda parameters: truth[int(str(parameters["nginx_x"])) - 1], seed, noise)
    ledger: list[Entry] = []
    proposals: list[Try] = []
    while not isinstance(proposal := race.propose(trials, seed, ledger), Stop):
        proposals.append(proposal)
        ledger.append(host.measure(trials[proposal.trial - 1], proposal, len(ledger) + 1))
        assert len(ledger) < 200
    return ledger, proposals, proposal


def test_the_best_of_eight_wins() -> None:
    trials = variants_of(8)
    truth = [0.0, 0.03, 0.05, -0.04, 0.14, 0.08, 0.0, 0.10]
    won = [run(trials, truth, seed)[2].ranking for seed in range(40)]
    assert sum(ranking == [5] for ranking in won) >= 36
    assert all(ranking in ([5], [8], []) for ranking in won)


def test_among_eight_that_gain_nothing_hardly_ever_one_wins() -> None:
    trials = variants_of(8)
    wins = sum(bool(run(trials, [0.0] * 8, seed, noise=0.05)[2].ranking) for seed in range(150))
    assert wins <= 150 * 0.05


def test_most_pairs_go_to_the_best() -> None:
    ledger, _, _ = run(variants_of(8), [0.0, 0.03, 0.05, 0.06, 0.14, 0.08, 0.02, 0.10], 3)
    pairs = {entry.trial: entry.judgement.pairs for entry in ledger if entry.judgement}
    assert max(pairs, key=pairs.__getitem__) == 5


def test_every_round_measures_everyone_left_in_an_order_drawn_from_the_seed() -> None:
    trials = variants_of(8)
    _, one, _ = run(trials, [0.1] * 8, 1)
    _, other, _ = run(trials, [0.1] * 8, 2)
    first, second = ([proposal.trial for proposal in each[:8]] for each in (one, other))
    assert sorted(first) == sorted(second) == list(range(1, 9))
    assert first != second
    assert len({proposal.trial for proposal in one[8:12]}) == 4


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_prefix_of_the_ledger_proposes_what_was_proposed_then(seed: int) -> None:
    trials = variants_of(5)
    ledger, proposals, stop = run(trials, [0.0, 0.02, 0.06, 0.09, 0.04], seed)
    for length, proposal in enumerate(proposals):
        assert race.propose(trials, seed, ledger[:length]) == proposal
    assert race.propose(trials, seed, ledger) == stop


def test_a_variant_that_broke_a_guardrail_is_out_and_never_measured_again() -> None:
    trials = variants_of(3)
    ledger, proposals, _ = run(trials, [0.05, 0.2, 0.1], 1)
    at = next(index for index, entry in enumerate(ledger) if entry.trial == 2)
    broken = [*ledger[:at], ledger[at].model_copy(update={"ended": "guardrail-body"})]
    while not isinstance(proposal := race.propose(trials, 1, broken), Stop):
        assert proposal.trial != 2
        host = SimulatedHost(lambda parameters: 0.1 * int(str(parameters["nginx_x"])) / 3, len(broken))
        broken.append(host.measure(trials[proposal.trial - 1], proposal, len(broken) + 1))
        assert len(broken) < 40
    assert proposals


def test_two_hosts_share_the_pairs_of_a_stint() -> None:
    trials = variants_of(4)
    two = [trial.model_copy(update={"hosts": ["a", "b"]}) for trial in trials]
    assert race.stint_pairs(two, 1) == -(-race.stint_pairs(trials, 1) // 2)
    assert race.stint_pairs(trials, 2) == 2 * race.stint_pairs(trials, 1)


def test_a_single_variant_runs_alone_at_once() -> None:
    proposal = race.propose(variants_of(1), 1, [])
    assert isinstance(proposal, Try)
    assert proposal.alone
    assert proposal.variant == Variant(name="v1", parameters={"nginx_x": 1})
