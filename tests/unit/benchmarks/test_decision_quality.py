import json

import numpy
import pytest

from benchmarks import decision_quality, decision_rules
from benchmarks.decision_quality import LOOKS, Cell, measure, wilson
from benchmarks.decision_rules import hodges_lehmann, ratchet
from benchmarks.decision_worlds import WORLDS
from benchmarks.recorded_worlds import recorded_worlds
from controller.judge.decision import Decision
from controller.judge.evidence import estimate


def judged(gains, rule):
    """(reason, pairs proven after, pairs) by the product's own decision."""
    decision, proven_after = Decision(rule), 0
    for gain in gains:
        outcome = decision.add(float(gain))
        if decision.confirming and not proven_after:
            proven_after = decision.pairs
        if outcome.action in {"keep", "revert"}:
            return outcome.reason, proven_after, decision.pairs
    raise AssertionError("the schedule did not end the trial")


@pytest.mark.parametrize("look", LOOKS, ids=lambda look: look.name)
@pytest.mark.parametrize("effect", [0.0, 0.02, 0.05, 0.25, -0.1])
def test_the_fast_path_decides_exactly_as_the_judge(look, effect):
    reasons = set()
    for world in (*WORLDS, *recorded_worlds()):
        draw = numpy.random.default_rng(4)
        # A gain that is proven but too small keeps the judge estimating to the last pair.
        gains = look.gains(draw, world, world.hosts(draw, 1 if effect == 0.02 else 5), effect)
        for variants in (1, 10):
            fast = ratchet(gains, look.rule(variants))
            slow = [judged(row, look.rule(variants)) for row in gains]
            assert [(one.reason, one.proven_after, one.pairs) for one in fast] == slow
            reasons |= {one.reason for one in fast}
    assert reasons


def test_the_fast_path_meets_every_way_a_trial_can_end():
    draw = numpy.random.default_rng(1)
    shapes = [
        numpy.full(45, 0.3),
        numpy.full(45, -0.3),
        numpy.full(45, 0.0),
        numpy.where(numpy.arange(45) < 8, 0.3, 0.01),
        numpy.where(numpy.arange(45) < 8, 0.3, -3.0),
        numpy.tile([0.5, -0.5], 23)[:45],
        *draw.normal(0.03, 0.05, (40, 45)),
    ]
    rule = LOOKS[0].rule()
    fast = ratchet(numpy.array(shapes), rule)
    assert [(one.reason, one.proven_after, one.pairs) for one in fast] == [judged(row, rule) for row in shapes]
    assert {one.reason for one in fast} == {"proven-gain", "slower", "futile", "not-confirmed", "undecided"}


def test_both_estimates_are_the_same_number():
    draw = numpy.random.default_rng(2)
    for count in (1, 2, 5, 6, 31):
        numbers = draw.normal(0, 1, count)
        assert hodges_lehmann(numbers) == pytest.approx(estimate(numbers.tolist()), abs=1e-12)


def test_switchbacks_are_as_noisy_as_those_that_were_measured_and_duets_ten_times_quieter():
    draw = numpy.random.default_rng(3)
    for world in WORLDS:
        hosts = world.hosts(draw, 100)
        assert 0.055 <= world.switchback_gains(draw, hosts, 0.0).std() <= 0.175
        assert 0.009 <= world.duet_gains(draw, hosts, 0.0).std() <= 0.018


def test_before_after_rules_keep_large_effects_and_nothing_on_a_quiet_host():
    quiet = WORLDS[0]
    for effect, kept in ((0.0, 0.0), (0.25, 1.0)):
        cell = Cell(quiet, effect, 40)
        for name, runs in cell.before_after.items():
            if name != "Mann-Whitney before/after" or effect:
                assert runs.mean() == kept, name


def test_mann_whitney_errs_about_as_often_as_its_level_where_minutes_are_independent():
    kept = Cell(WORLDS[0], 0.0, 1000).before_after["Mann-Whitney before/after"].mean()
    assert 0.01 <= kept <= 0.045


def test_students_quantiles_are_those_of_the_tables():
    found = decision_rules._student(numpy.array([4, 10, 30]))
    assert found == pytest.approx([2.776, 2.228, 2.042], abs=0.003)


def test_wilson_intervals_are_those_of_the_formula():
    assert wilson(0, 2000) == pytest.approx((0.0, 0.1917), abs=0.001)
    assert wilson(20, 2000) == pytest.approx((0.649, 1.539), abs=0.01)


def test_the_benchmark_tells_every_cell_in_one_json_document(capsys, monkeypatch):
    monkeypatch.setattr(decision_quality, "QUICK_RUNS", 20)
    decision_quality.main(["--quick", "--output", "json"])
    figures = json.loads(capsys.readouterr().out)["figures"]
    names = [figure["name"] for figure in figures]
    assert len(set(names)) == len(names)
    for look in ("duet", "switchback"):
        for world in (*WORLDS, *recorded_worlds()):
            for start in (
                "false keep, A/A",
                "power at 5 %",
                "power at 10 %",
                "power at 25 %",
                "pairs to prove 25 %",
                "pairs to keep 25 %",
            ):
                assert f"{start}, {look}, {world.name}" in names
        assert f"any false keep, ten A/A trials, {look}" in names
        for world in recorded_worlds():
            assert f"any false keep, ten A/A trials, {look}, {world.name}" in names


def test_the_same_runs_give_the_same_figures():
    assert [figure.value for figure in measure(quick=True, runs=10)] == [
        figure.value for figure in measure(quick=True, runs=10)
    ]
