"""What the judge asks of live traffic: classes compared with classes, an even share of requests, enough resolution."""

import math
import random

import pytest

from controller.judge.gain import gain
from controller.judge.traffic import TrafficWatch
from controller.judge.verdict import Judge, judge_trial
from tests.unit.judge.judge_trials import CONTROL_US, pair, plan

LIVE = {"source": "live"}


def classes(**values):
    """label -> (requests, microseconds)"""
    return {
        label: {"requests": count, "mean_us": float(us), **{f"p{percent}_us": us for percent in (50, 90, 95, 99)}}
        for label, (count, us) in values.items()
    }


def live_pair(number, gain=0.0, *, control=400, variant=400, **changes):
    slow = round(CONTROL_US * math.exp(-gain))
    return pair(
        number,
        gain,
        control={"requests": control, "classes": classes(api=(control, CONTROL_US))} | changes,
        variant={"requests": variant, "classes": classes(api=(variant, slow))} | changes,
    )


def judged(trial, pairs):
    """The judgement when the judge has decided, or no pairs are left."""
    judge = Judge(trial)
    for each in pairs:
        judge.fold(each)
        if judge.decided:
            break
    return judge.judgement()


def compared(control, variant, metric="p50"):
    return gain(
        pair(1, control={"classes": classes(**control)}, variant={"classes": classes(**variant)}), metric, "switchback"
    )


def test_another_mix_of_requests_is_no_gain():
    slow, quick = 100_000, 10_000
    assert compared({"api": (90, slow), "page": (10, quick)}, {"api": (10, slow), "page": (90, quick)}) == 0.0


def test_a_class_counts_by_its_requests_in_both_arms_together():
    found = compared({"api": (30, 20_000), "page": (10, 8_000)}, {"api": (30, 10_000), "page": (30, 8_000)})
    assert found == pytest.approx(0.6 * math.log(2))


def test_a_class_that_one_arm_did_not_see_takes_no_part():
    found = compared({"api": (30, 20_000), "search": (99, 1_000)}, {"api": (30, 10_000), "page": (50, 8_000)})
    assert found == pytest.approx(math.log(2))
    assert compared({"api": (30, 20_000)}, {"page": (30, 20_000)}) is None


def test_swapping_the_arms_turns_the_gain_into_its_opposite_and_changes_nothing_else():
    draw = random.Random(4)
    for _ in range(50):
        one, other = (
            {label: (draw.randint(1, 99), draw.randrange(0, 90_000, 1000)) for label in "abc"} for _ in range(2)
        )
        assert compared(one, other) == -compared(other, one)


@pytest.mark.parametrize(("control", "variant"), [(0, 1_000), (1_000, 0)])
def test_below_a_millisecond_the_log_says_nothing(control, variant):
    assert compared({"api": (30, control)}, {"api": (30, variant)}) == 0.0


def test_cpu_time_is_no_figure_of_a_class():
    told = pair(
        1,
        control={"classes": classes(api=(9, 1000)), "metrics": {"cpu_us_per_request": 80.0}},
        variant={"classes": classes(api=(9, 1000)), "metrics": {"cpu_us_per_request": 40.0}},
    )
    assert gain(told, "cpu_per_request", "switchback") == pytest.approx(math.log(2))


def test_a_clear_gain_on_live_traffic_is_kept():
    judgement = judged(plan(**LIVE), (live_pair(number, 0.3) for number in range(1, 20)))
    assert (judgement.action, judgement.reason) == ("keep", "proven-gain")


@pytest.mark.parametrize(("variant", "word"), [(320, "fewer"), (500, "more")])
def test_an_arm_that_gets_another_share_of_the_requests_is_not_compared(variant, word):
    trial = plan(**LIVE)
    judgement = judged(trial, (live_pair(number, 0.3, variant=variant) for number in range(1, 20)))
    assert (judgement.action, judgement.reason) == ("revert", "guardrail-sample-ratio")
    assert f"the variant had {word} requests" in judgement.note


def test_users_who_come_in_bursts_do_not_break_the_sample_ratio():
    """The shares of bursts are far from those of independent requests, whose test would fire nearly always."""
    draw = random.Random(11)
    broken = 0
    for _ in range(300):
        watch = TrafficWatch()
        pairs = (
            live_pair(
                number, control=round(draw.lognormvariate(6, 1)) + 1, variant=round(draw.lognormvariate(6, 1)) + 1
            )
            for number in range(1, 41)
        )
        broken += any(watch.add(each) is not None for each in pairs)
    assert broken <= 2


def test_the_probes_requests_are_never_taken_for_traffic():
    judgement = judged(plan(), (pair(number, 0.3, variant={"requests": 100}) for number in range(1, 20)))
    assert judgement.action == "keep"


def test_mostly_static_requests_are_refused_with_the_reason():
    fast = live_pair(1)
    fast = fast.model_copy(update={"control": fast.control.model_copy(update={"p50_us": 0})})
    judgement = judge_trial(plan(**LIVE), [fast])
    assert (judgement.action, judgement.reason) == ("revert", "guardrail-missing-data")
    assert "millisecond" in judgement.note
    assert "probe" in judgement.note


def test_a_block_without_traffic_ends_the_trial_and_says_how_much_there_was():
    why = "0 requests in 10 s of live traffic (minimum_requests 50)"
    empty = live_pair(1)
    empty = empty.model_copy(
        update={
            "variant": empty.variant.model_copy(
                update={"requests": 0, "p50_us": 0, "valid": False, "invalid_reason": why}
            )
        }
    )
    judgement = judge_trial(plan(**LIVE), [empty])
    assert judgement.reason == "guardrail-missing-data"
    assert why in judgement.note
