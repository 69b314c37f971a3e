"""The stints of a variant fold into one judgement, and nothing is proven while it competes."""

from __future__ import annotations

from controller.judge.stints import StintJudge, judge_stints
from controller.judge.verdict import judge_trial
from tests.unit.judge.judge_trials import pair, pairs, plan

GAINS = [0.2, 0.21, 0.19, 0.2, 0.22, 0.2, 0.18, 0.2]


def test_overwhelming_evidence_proves_nothing_until_the_variant_is_alone() -> None:
    trial = plan()
    competing = [(False, pairs(GAINS)), (False, pairs(GAINS))]
    judgement = judge_stints(trial, competing)
    assert judgement.action == "continue"
    assert judgement.evidence > judgement.threshold
    alone = judge_stints(trial, [*competing, (True, pairs(GAINS[:1]))])
    assert alone.action == "confirm"
    assert alone.pairs == 17


def test_what_was_measured_while_it_competed_leaves_the_proof_its_pairs() -> None:
    trial = plan(maximum_pairs=16, confirm_pairs=3)
    fresh = pairs(GAINS * 2)
    fresh[2] = pair(3, 0.2, variant={"valid": False})
    judge = StintJudge(trial)
    judge.begin(alone=False)
    for each in pairs(GAINS + GAINS[:4]):
        judge.fold(each)
    judge.begin(alone=True)
    for each in fresh:
        if judge.decided:
            break
        judgement = judge.add(each)
    assert judgement.reason == "proven-gain"


def test_evidence_is_that_of_all_pairs_in_one_go() -> None:
    trial = plan()
    split = judge_stints(trial, [(False, pairs(GAINS[:3])), (False, pairs(GAINS[3:5]))])
    whole = judge_trial(trial, pairs(GAINS[:5]))
    assert (split.evidence, split.effect) == (whole.evidence, whole.effect)


def test_harm_ends_a_competitor_at_once() -> None:
    judge = StintJudge(plan())
    judge.begin(alone=False)
    for each in pairs([-0.3] * 8):
        judgement = judge.add(each)
        if judge.decided:
            break
    assert (judgement.action, judgement.reason) == ("revert", "slower")


def test_the_pairs_of_each_stint_begin_at_one() -> None:
    trial = plan()
    judgement = judge_stints(trial, [(False, pairs(GAINS[:2])), (False, [pair(3, 0.2)])])
    assert judgement.reason == "measurement-invalid"
