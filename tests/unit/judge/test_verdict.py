import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.judge.gain import gain
from controller.judge.verdict import Judge, judge_trial
from controller.model.trial import Judgement, Pair
from tests.unit.judge.judge_trials import pair, pairs, plan

GAIN = 0.3


def judged(trial, given_pairs):
    """The judgements after each pair, up to the verdict."""
    judge, judgements = Judge(trial), []
    for one in given_pairs:
        judgements.append(judge.add(one))
        if judge.decided:
            break
    return judgements


@settings(max_examples=60)
@given(st.lists(st.floats(-1, 1), min_size=1, max_size=45), st.sampled_from(["duet", "switchback"]))
def test_folding_pair_by_pair_gives_what_judging_the_whole_gives(gains, design):
    trial = plan(design=design)
    judgements = judged(trial, pairs(gains))
    for count, judgement in enumerate(judgements, 1):
        assert judge_trial(trial, pairs(gains)[:count]) == judgement


def test_a_keep_tells_evidence_effect_and_the_fresh_estimate():
    judgement = judged(plan(), pairs([GAIN] * 8 + [0.1] * 20))[-1]
    assert (judgement.action, judgement.reason, judgement.pairs) == ("keep", "proven-gain", 14)
    assert judgement.evidence >= judgement.threshold == 100
    assert judgement.effect.estimate == pytest.approx(1 - math.exp(-GAIN), abs=1e-4)
    assert judgement.confirmed_effect.estimate == pytest.approx(1 - math.exp(-0.1), abs=1e-4)


def test_an_effect_is_told_from_the_third_pair_on():
    judgements = judged(plan(), pairs([GAIN] * 20))
    assert [judgement.effect is not None for judgement in judgements[:4]] == [False, False, True, True]


def test_the_harm_process_is_told_beside_the_evidence():
    judgement = judged(plan(), pairs([-GAIN] * 20))[-1]
    assert (judgement.action, judgement.reason) == ("revert", "slower")
    assert judgement.evidence_slower >= 20 > judgement.evidence


def test_nothing_judged_is_nothing_said():
    judgement = judge_trial(plan(), [])
    assert (judgement.action, judgement.evidence, judgement.pairs, judgement.effect) == ("continue", 1.0, 0, None)


def test_several_hosts_fold_into_one_decision_in_the_order_of_judging():
    trial = plan(hosts=("a", "b", "c"))
    mixed = [pair(number, GAIN, host=host) for number in range(1, 10) for host in "abc"]
    judgements = judged(trial, mixed)
    alone = judged(plan(), pairs([GAIN] * 20))
    assert [j.evidence for j in judgements] == [j.evidence for j in alone]
    assert (judgements[-1].reason, len(judgements)) == ("proven-gain", 14)


def test_a_duet_is_judged_by_its_paired_gain():
    trial = plan(design="duet")
    slower_by_blocks = [
        pair(number, -GAIN, control={"paired_gain": GAIN}, variant={"paired_gain": GAIN}) for number in range(1, 20)
    ]
    assert judged(trial, slower_by_blocks)[-1].reason == "proven-gain"
    assert judged(plan(), slower_by_blocks)[-1].reason == "slower"


@pytest.mark.parametrize("metric", ["p90", "p95", "p99", "mean"])
def test_the_objectives_metric_is_the_one_that_is_judged(metric):
    field = {"mean": "mean_us"}.get(metric, f"{metric}_us")
    better = [pair(number, 0.0, variant={field: 30_000}) for number in range(1, 20)]
    assert judged(plan(metric=metric), better)[-1].reason == "proven-gain"
    assert judged(plan(metric="p50"), better)[-1].reason == "futile"


def test_an_objective_that_one_arm_does_not_tell_is_missing_data():
    untold = pair(1, control={"paired_gain": None})
    judgement = judge_trial(plan(design="duet"), [untold])
    assert (judgement.action, judgement.reason) == ("revert", "guardrail-missing-data")
    assert gain(untold, "p50", "duet") is None


def test_an_invalid_pair_is_no_evidence():
    spoilt = pair(1, GAIN, variant={"valid": False, "invalid_reason": "late"})
    judgement = judge_trial(plan(), [spoilt, *pairs([GAIN] * 3)[1:]])
    assert judgement.evidence == judge_trial(plan(), pairs([GAIN] * 2)).evidence
    assert judgement.pairs == 3


LATE = {"valid": False, "invalid_reason": "late"}


@pytest.mark.parametrize("design", ["switchback", "duet"])
def test_harm_shows_through_pairs_that_the_probe_spoilt(design):
    """Every third pair, as many as may be: none of them counts for a gain, all of them for the harm."""

    def spoilt_in_thirds(gain):
        told = {} if design == "switchback" else {"paired_gain": gain}
        return [
            pair(number, gain, control=told, variant=told | (LATE if number % 3 else {})) for number in range(1, 20)
        ]

    trial = plan(design=design)
    assert [j.evidence_slower for j in judged(trial, spoilt_in_thirds(-GAIN)[:4])][-1] > 10
    assert judge_trial(trial, spoilt_in_thirds(GAIN)[:4]).evidence < 3


def test_a_spoilt_pair_that_does_not_tell_the_metric_is_no_evidence_of_harm_either():
    untold = [pair(number, -GAIN, control={"paired_gain": None}, variant=LATE) for number in (1, 2)]
    judgement = judge_trial(plan(design="duet"), untold)
    assert (judgement.action, judgement.evidence_slower, judgement.pairs) == ("continue", 1.0, 2)


def test_users_who_are_too_few_show_no_harm():
    trial = plan(design="switchback", source="live")
    few = [pair(number, -GAIN, variant=LATE) for number in (1, 2, 3)]
    assert judge_trial(trial, few).evidence_slower == 1.0


@pytest.mark.parametrize("gain", [GAIN, -GAIN])
@pytest.mark.parametrize("design", ["switchback", "duet"])
def test_a_pair_in_which_nginx_ran_something_else_tells_neither_gain_nor_harm(design, gain):
    astray = {"ran": [None, None], "valid": False, "invalid_reason": "nginx ran something that nobody staged"}
    told = {} if design == "switchback" else {"paired_gain": gain}
    judgement = judge_trial(plan(design=design), [pair(1, gain, control=told, variant=told | astray)])
    assert (judgement.evidence, judgement.evidence_slower, judgement.pairs) == (1.0, 1.0, 1)


def _moved(one, **changes):
    return Pair(**{**{name: getattr(one, name) for name in ("host", "number", "control", "variant")}, **changes})


@pytest.mark.parametrize(
    "second",
    [
        pair(3),
        pair(1),
        pair(2, host="stranger"),
        _moved(pair(2), control=pair(2).variant),
        _moved(pair(2), variant=pair(2).control),
        _moved(pair(2), control=pair(3).control),
        _moved(pair(2), control=pair(2).control.model_copy(update={"block": 9})),
    ],
)
def test_a_pair_out_of_place_makes_the_measurement_invalid(second):
    judgement = judge_trial(plan(), [pair(1), second])
    assert (judgement.action, judgement.reason, judgement.pairs) == ("revert", "measurement-invalid", 2)


def test_the_variant_may_come_first_in_a_pair():
    turned = pair(1)
    control = turned.control.model_copy(update={"block": 2})
    variant = turned.variant.model_copy(update={"block": 1})
    assert judge_trial(plan(), [_moved(turned, control=control, variant=variant)]).action == "continue"


def test_no_pair_may_follow_the_verdict():
    with pytest.raises(ValueError, match="h1, pair 15: a pair after the verdict"):
        judge_trial(plan(), pairs([GAIN] * 20))


def test_judgements_are_plain_numbers_that_survive_json():
    huge = judge_trial(plan(maximum_pairs=2000, minimum_pairs=500), pairs([9.0] * 499))
    assert math.isfinite(huge.evidence)
    assert Judgement.model_validate_json(huge.model_dump_json()) == huge
