import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.judge.guardrails import GuardrailWatch
from controller.judge.verdict import judge_trial
from controller.model.experiment import Guardrails
from tests.unit.judge.judge_trials import BODY, CONTROL_US, pair, plan

GAIN = 0.3
LIMITS = Guardrails()


def reason(changes_of, *, gain=GAIN, limits=None, count=45, both=None):
    """(reason, pairs) of a trial whose variant blocks are changed by `changes_of(number)`."""
    trial = plan(guardrails=limits or {})
    given_pairs = []
    for number in range(1, count + 1):
        given_pairs.append(pair(number, gain, variant=changes_of(number), control=both(number) if both else None))
        judgement = judge_trial(trial, given_pairs)
        if judgement.action in {"keep", "revert"}:
            break
    return judgement.reason, judgement.pairs


def test_a_trial_with_nothing_amiss_is_kept():
    assert reason(lambda _: {}) == ("proven-gain", 14)


# --- errors -----------------------------------------------------------------------------------------------------------


def test_two_failed_requests_in_one_block_end_the_trial_at_once():
    assert reason(lambda number: {"errors": 2} if number == 3 else {}) == ("guardrail-errors", 3)


def test_failures_that_all_pairs_together_would_hide_still_end_the_trial():
    assert reason(lambda number: {"errors": 2} if number == 8 else {}) == ("guardrail-errors", 8)


def test_one_failed_request_is_forgiven_and_the_second_is_not():
    assert reason(lambda number: {"errors": 1} if number == 3 else {})[0] == "proven-gain"
    assert reason(lambda number: {"errors": 1} if number in {1, 3} else {}) == ("guardrail-errors", 3)


def test_failures_within_the_limit_are_within_the_limit():
    assert reason(lambda _: {"errors": 2}, limits={"error_rate": 0.005})[0] == "proven-gain"
    assert reason(lambda _: {"errors": 3}, limits={"error_rate": 0.005}) == ("guardrail-errors", 1)


def test_failures_of_control_do_not_excuse_the_variants():
    assert reason(lambda _: {"errors": 9}, both=lambda _: {"errors": 9}) == ("guardrail-errors", 1)


def test_failures_of_control_alone_are_not_the_variants():
    assert reason(lambda _: {}, both=lambda _: {"errors": 9})[0] == "proven-gain"


def test_errors_count_in_an_invalid_block_too_but_not_the_probes_own():
    spoilt = {"errors": 5, "valid": False, "invalid_reason": "late"}
    assert reason(lambda number: spoilt if number == 2 else {}) == ("guardrail-errors", 2)
    own = spoilt | {"error_classes": {"local": 5}}
    assert reason(lambda number: own if number == 2 else {})[0] == "proven-gain"


@pytest.mark.parametrize("counts", [{"requests": 0}, {"errors": -1}, {"requests": 3, "errors": 4}])
def test_counts_that_cannot_be_are_no_data(counts):
    assert reason(lambda _: counts) == ("guardrail-missing-data", 1)


# --- bodies -----------------------------------------------------------------------------------------------------------


def test_another_body_ends_the_trial_at_once():
    other = {"bodies": {"GET /": "00" * 32}}
    assert reason(lambda number: other if number == 4 else {}) == ("guardrail-body", 4)
    assert reason(lambda _: other, limits={"same_body": False})[0] == "proven-gain"


def test_a_body_that_only_the_variant_cannot_deliver_is_another_body():
    assert reason(lambda _: {"bodies": {"GET /": "error:reset"}}) == ("guardrail-body", 1)


@pytest.mark.parametrize("bodies", [{}, {"GET /": "error:reset"}, {"GET /": "varies"}])
def test_bodies_that_cannot_be_compared_are_no_data(bodies):
    same = {"bodies": bodies}
    assert reason(lambda _: same, both=lambda _: same) == ("guardrail-missing-data", 1)


def test_a_path_whose_body_one_arm_lacks_is_no_data():
    assert reason(lambda _: {"bodies": {**BODY, "GET /b": "1"}}) == ("guardrail-missing-data", 1)
    assert reason(lambda _: {"bodies": {}}) == ("guardrail-missing-data", 1)


def test_a_body_that_varies_in_one_arm_cannot_be_compared():
    assert reason(lambda _: {"bodies": {"GET /": "varies"}}) == ("guardrail-missing-data", 1)


# --- memory and open files -------------------------------------------------------------------------------------------

MEMORY = 40_000_000
STEADY = [("rss_bytes", MEMORY, 1.5, "guardrail-memory"), ("open_files", 100, 3.0, "guardrail-open-files")]


@pytest.mark.parametrize(("name", "control", "limit", "code"), STEADY)
def test_two_pairs_running_beyond_a_steady_limit_end_the_trial(name, control, limit, code):
    def both(_):
        return {"metrics": {name: control}}

    beyond = {"metrics": {name: int(control * limit * 1.01)}}
    within = {"metrics": {name: int(control * limit * 0.99)}}
    assert reason(lambda _: beyond, both=both) == (code, 2)
    assert reason(lambda number: beyond if number >= 10 else within, both=both) == (code, 11)
    assert reason(lambda number: beyond if number % 3 == 0 else within, both=both)[0] == "proven-gain"
    assert reason(lambda _: within, both=both)[0] == "proven-gain"


def test_the_last_pair_beyond_a_steady_limit_stands_in_the_way_of_a_keep():
    beyond = {"metrics": {"rss_bytes": 2 * MEMORY}}
    assert reason(lambda number: beyond if number == 14 else {}) == ("guardrail-memory", 14)
    assert reason(lambda number: beyond if number == 8 else {}) == ("guardrail-memory", 8)


def test_pairs_running_are_counted_for_each_host():
    watch = GuardrailWatch(LIMITS)
    beyond = {"metrics": {"rss_bytes": 2 * MEMORY}}
    assert watch.add(pair(1, host="a", variant=beyond)) is None
    assert watch.add(pair(1, host="b", variant=beyond)) is None
    assert watch.add(pair(2, host="a", variant=beyond)).reason == "guardrail-memory"


@pytest.mark.parametrize(
    ("name", "control", "variant", "within"),
    [
        ("rss_bytes", 2_000_000, 2_000_000 + 2**24, 2_000_000 + 2**24 - 1),
        ("open_files", 5, 69, 68),
        ("cpu_us_per_request", 5.0, 25.0, 24.9),
    ],
)
def test_a_difference_too_small_to_matter_breaks_no_ratio(name, control, variant, within):
    def both(_):
        return {"metrics": {name: control}}

    assert reason(lambda _: {"metrics": {name: variant}}, both=both)[0].startswith("guardrail-")
    assert reason(lambda _: {"metrics": {name: within}}, both=both)[0] == "proven-gain"


@pytest.mark.parametrize("name", ["rss_bytes", "open_files", "cpu_us_per_request"])
@pytest.mark.parametrize("arm", ["control", "variant"])
def test_a_side_metric_that_is_not_told_is_no_data(name, arm):
    untold = {"metrics": {name: None}}
    changed = (
        {"changes_of": lambda _: untold} if arm == "variant" else {"changes_of": lambda _: {}, "both": lambda _: untold}
    )
    assert reason(**changed) == ("guardrail-missing-data", 1)


# --- p99 and CPU -----------------------------------------------------------------------------------------------------


def p99(ratio):
    return {"p99_us": round(3 * CONTROL_US * ratio)}


def test_a_p99_beyond_the_limit_in_every_pair_ends_the_trial_before_any_keep():
    assert reason(lambda _: p99(3.0)) == ("guardrail-p99", 5)


def test_one_noisy_p99_does_not_end_a_healthy_trial():
    assert reason(lambda number: p99(10.0) if number == 3 else {})[0] == "proven-gain"
    assert reason(lambda number: p99(10.0) if number in {2, 3} else {})[0] == "proven-gain"


def test_a_p99_beyond_the_limit_in_most_pairs_stands_in_the_way_of_a_keep():
    code, count = reason(lambda number: p99(1.9) if number % 3 == 0 else p99(2.1))
    assert code == "guardrail-p99"
    assert count <= 8


def test_a_p99_that_breaks_out_in_the_fresh_pairs_stands_in_the_way_of_a_keep():
    assert reason(lambda number: p99(2.5) if number > 8 else {}) == ("guardrail-p99", 14)


def test_a_p99_just_within_the_limit_is_within_the_limit():
    assert reason(lambda _: p99(1.99))[0] == "proven-gain"
    assert reason(lambda _: p99(2.01))[0] == "guardrail-p99"


def test_a_p99_worse_by_less_than_a_quarter_of_a_millisecond_is_no_harm():
    small = {"p99_us": 100}
    assert reason(lambda _: {"p99_us": 349}, both=lambda _: small)[0] == "proven-gain"
    assert reason(lambda _: {"p99_us": 350}, both=lambda _: small)[0] == "guardrail-p99"


def test_cpu_beyond_the_limit_is_judged_likewise():
    code, count = reason(lambda _: {"metrics": {"cpu_us_per_request": 200.0}})
    assert code == "guardrail-cpu"
    assert count <= 7
    assert (
        reason(lambda number: {"metrics": {"cpu_us_per_request": 900.0 if number == 5 else 80.0}})[0] == "proven-gain"
    )


def test_noise_of_p99_as_measured_ends_hardly_any_healthy_trial():
    draw = random.Random(8)
    ended = 0
    for _ in range(300):
        watch = GuardrailWatch(LIMITS)
        for number in range(1, 46):
            # One p99 in ten meets a burst that triples it.
            noisy = {arm: p99(math.exp(draw.gauss(0, 0.3)) * (3 if draw.random() < 0.1 else 1)) for arm in "cv"}
            breach = watch.add(pair(number, variant=noisy["v"], control=noisy["c"]))
            # A KEEP asks twice: when the gain is proven, and when it is confirmed.
            if breach or (number in {8, 14} and watch.before_keep(6 if number == 14 else 0)):
                ended += 1
                break
    assert ended <= 6


# --- invalid pairs ---------------------------------------------------------------------------------------------------

SPOILT = {"valid": False, "invalid_reason": "the probe was late"}


def test_a_probe_that_cannot_keep_its_schedule_ends_the_trial():
    assert reason(lambda _: SPOILT) == ("guardrail-missing-data", 5)
    assert reason(lambda _: {}, both=lambda _: SPOILT) == ("guardrail-missing-data", 5)


def test_up_to_a_third_of_the_pairs_may_be_spoilt():
    assert reason(lambda number: SPOILT if number % 3 == 0 else {})[0] == "proven-gain"
    assert reason(lambda number: SPOILT if number % 2 == 0 else {}) == ("guardrail-missing-data", 10)


def test_four_spoilt_pairs_are_measured_again():
    assert reason(lambda number: SPOILT if number <= 4 else {}) == ("proven-gain", 18)


# --- whatever the gain ------------------------------------------------------------------------------------------------


@given(
    st.floats(0, 10),
    st.sampled_from(
        [
            {"errors": 40},
            p99(2.5),
            {"metrics": {"rss_bytes": 2 * MEMORY}},
            {"metrics": {"open_files": 500}},
            {"metrics": {"cpu_us_per_request": 300.0}},
            {"bodies": {"GET /": "00" * 32}},
            {"bodies": {}},
            {"metrics": {"rss_bytes": None}},
            SPOILT,
        ]
    ),
)
def test_no_gain_buys_a_guardrail_off(gain, harm):
    code, _ = reason(lambda _: harm, gain=gain)
    assert code != "proven-gain"
