"""A tournament crowns the best, hardly ever one that is not better, and the same from any prefix."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from benchmarks.search_worlds import SimulatedHost, plan
from controller.model.experiment import Experiment, Variant
from controller.search.ledger import Stop, Try
from controller.search.tournament import SWISS_PAIRS, Entrants, Match, Played, Round, propose


def about(count: int) -> Experiment:
    return Experiment.model_validate(
        {
            "name": "levels",
            "question": "Which of them is best?",
            "why": "to let them play",
            "risk": {"level": "low", "note": "none"},
            "sources": ["a simulation"],
            "workload": {"rate": 100, "requests": [{"path": "/"}]},
            "variants": [{"name": f"v{n}", "parameters": {"nginx_x": n}} for n in range(1, count + 1)],
        }
    )


def entrants(count: int, *, hosts: int = 1, seed: int = 1, first: int = 1) -> Entrants:
    return Entrants(
        variants=about(count).variants,
        hosts=[f"h{n}" for n in range(1, hosts + 1)],
        planned_pairs=45,
        seed=seed,
        first=first,
    )


def play(
    of: Entrants, truth: Sequence[float], seed: int, noise: float = 0.013
) -> tuple[list[Round], list[Played], Stop]:
    """The whole tournament on simulated hosts; `truth`: what each variant gains over the baseline."""

    def gain(variant: Variant | None) -> float:
        return 0.0 if variant is None else truth[int(str(variant.parameters["nginx_x"])) - 1]

    played: list[Played] = []
    rounds: list[Round] = []
    while not isinstance(proposal := propose(of, played), Stop):
        rounds.append(proposal)
        for match in proposal.matches:
            host = SimulatedHost(
                lambda _, match=match: gain(match.challenger) - gain(match.champion), seed * 1009 + match.trial, noise
            )
            trial = plan(match.trial, match.challenger, about(len(of.variants)), variants=len(of.variants))
            pairs = match.pairs_per_host * len(match.hosts)
            asked = Try(
                trial=match.trial, variant=match.challenger, pairs_per_host=pairs, alone=match.kind != "swiss", why=""
            )
            played.append(Played(match=match, entry=host.measure(trial, asked, match.trial)))
        assert len(played) < 100
    return rounds, played, proposal


def champion(played: Sequence[Played], stop: Stop) -> str:
    return next((each.match.challenger.name for each in played if each.match.trial in stop.ranking), "")


@pytest.mark.parametrize("hosts", [1, 3])
def test_the_best_of_eight_becomes_champion(hosts: int) -> None:
    truth = [0.0, 0.03, 0.05, -0.04, 0.14, 0.08, 0.0, 0.06]
    won = []
    for seed in range(30):
        _, played, stop = play(entrants(8, hosts=hosts, seed=seed), truth, seed)
        won.append(champion(played, stop))
    assert won.count("v5") >= 27
    assert set(won) <= {"v5", "v6", ""}


@pytest.mark.parametrize("hosts", [1, 3])
def test_among_eight_that_gain_nothing_hardly_ever_one_is_kept(hosts: int) -> None:
    ends = [play(entrants(8, hosts=hosts, seed=seed), [0.0] * 8, seed, noise=0.05)[2] for seed in range(100)]
    assert sum(bool(stop.ranking) for stop in ends) <= 2


def test_whoever_is_proven_takes_over_and_meets_the_baseline_on_fresh_pairs() -> None:
    rounds, played, stop = play(entrants(3), [0.10, 0.25, 0.0], 1)
    assert [(each.match.challenger.name, each.match.champion and each.match.champion.name) for each in played] == [
        ("v1", None),
        ("v2", "v1"),
        ("v3", "v2"),
        ("v2", None),
    ]
    assert [each.match.kind for each in played] == ["title", "title", "title", "final"]
    assert all(len(turn.matches) == 1 for turn in rounds)
    assert stop.ranking == [4]


def test_a_champion_that_fails_its_final_is_not_kept() -> None:
    _, played, _ = play(entrants(1), [0.2], 1)
    lost = [
        *played[:-1],
        played[-1].model_copy(update={"entry": played[-1].entry.model_copy(update={"ended": "not-confirmed"})}),
    ]
    stop = propose(entrants(1), lost)
    assert isinstance(stop, Stop)
    assert stop.ranking == []
    assert "not proven against the baseline" in stop.why


def test_nobody_meets_the_baseline_when_nobody_took_the_title() -> None:
    _, played, stop = play(entrants(3), [0.0, -0.1, 0.0], 1)
    assert len(played) == 3
    assert stop.why == "no candidate took the title from the baseline"


def test_swiss_matches_run_at_once_on_hosts_of_their_own_and_nobody_meets_twice() -> None:
    rounds, played, _ = play(entrants(8, hosts=3), [0.01 * n for n in range(8)], 1)
    swiss = [turn for turn in rounds if turn.matches[0].kind == "swiss"]
    assert sum(len(turn.matches) for turn in swiss) == 3 * 4
    for turn in swiss:
        used = [host for match in turn.matches for host in match.hosts]
        assert len(used) == len(set(used))
    assert {len(turn.matches) for turn in swiss} == {3, 1}
    met = [
        frozenset((match.challenger.name, match.champion.name))
        for turn in swiss
        for match in turn.matches
        if match.champion
    ]
    assert len(set(met)) == len(met) == 12
    # One match alone has the whole fleet.
    assert next(turn for turn in swiss if len(turn.matches) == 1).matches[0].hosts == ["h1", "h2", "h3"]
    assert all(each.match.hosts == ["h1", "h2", "h3"] for each in played if each.match.kind != "swiss")


def test_with_an_odd_number_everybody_else_plays() -> None:
    rounds, _, _ = play(entrants(5, hosts=2), [0.0, 0.02, 0.04, 0.06, 0.08], 2)
    first = [match for turn in rounds[:1] for match in turn.matches]
    assert len(first) == 2
    assert (
        len(
            {name for match in first for name in (match.challenger.name, match.champion.name if match.champion else "")}
        )
        == 4
    )
    assert all(match.pairs_per_host == SWISS_PAIRS for match in first)


def test_a_match_that_a_guardrail_ended_scores_for_neither() -> None:
    of = entrants(4, hosts=2)
    one = propose(of, [])
    assert isinstance(one, Round)
    _, played, _ = play(of, [0.0, 0.0, 0.3, 0.3], 1)
    broken = [
        played[0].model_copy(update={"entry": played[0].entry.model_copy(update={"ended": "guardrail-body"})}),
        played[1],
    ]
    after = propose(of, broken)
    assert isinstance(after, Round)
    blamed = {played[0].match.challenger.name, played[0].match.champion.name if played[0].match.champion else ""}
    leaders = after.matches[0]
    assert isinstance(leaders, Match)
    winner = played[1].match.challenger.name
    other = played[1].match.champion.name if played[1].match.champion else ""
    assert {leaders.challenger.name} <= {winner, other}
    assert blamed & {leaders.challenger.name} == set()


@pytest.mark.parametrize("hosts", [1, 2, 3])
def test_a_prefix_of_what_was_played_is_due_what_was_due_then(hosts: int) -> None:
    of = entrants(6, hosts=hosts, seed=4, first=11)
    rounds, played, stop = play(of, [0.0, 0.02, 0.06, 0.09, 0.04, 0.2], 5)
    at = 0
    for turn in rounds:
        assert propose(of, played[:at]) == turn
        assert [match.trial for match in turn.matches] == list(range(11 + at, 11 + at + len(turn.matches)))
        at += len(turn.matches)
    assert propose(of, played) == stop
