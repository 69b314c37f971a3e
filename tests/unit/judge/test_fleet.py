"""The fleet design: hosts against hosts, drawn anew each period, one gain a period, exact under the null."""

import hashlib
import math
import random

import pytest

from controller.judge.schedule import draw_groups
from controller.judge.verdict import FleetJudge, judge_of, judge_trial
from controller.model.trial import Pair
from tests.unit.judge.judge_trials import CONTROL_US, block, plan

HOSTS = ("h1", "h2", "h3", "h4")


def fleet_plan(hosts=HOSTS, **changes):
    return plan(design="fleet", hosts=hosts, **changes)


def host_period(host, number, arm, before_us, after_us, **changes):
    return Pair(
        host=host,
        number=number,
        control=block(2 * number - 1, "control", round(before_us)),
        variant=block(2 * number, arm, round(after_us), **changes),
    )


def periods(trial, gain, *, count=60, noise=0.0, seed=1, spoilt=frozenset()):
    """A world: hosts of their own speed, a load that drifts for all, and noise; `gain` where the variant is."""
    draw = random.Random(seed)
    speed = {host: CONTROL_US * math.exp(draw.gauss(0, 0.5)) for host in trial.hosts}
    drift = 0.0
    for number, group in enumerate(draw_groups(trial.seed, trial.number, trial.hosts, count), 1):
        for host in trial.hosts:
            arm = "variant" if host in group else "control"
            before = speed[host] * math.exp(drift + draw.gauss(0, noise))
            # What comes after is slower for everybody, here by half: a common trend is no gain.
            after = speed[host] * math.exp(drift + 0.4 + draw.gauss(0, noise) - (gain if arm == "variant" else 0.0))
            valid = {} if (host, number) not in spoilt else {"valid": False, "invalid_reason": "late"}
            yield host_period(host, number, arm, before, after, **valid)
        drift += draw.gauss(0, 0.2)


def judged(trial, pairs):
    judge = judge_of(trial)
    for each in pairs:
        judge.fold(each)
        if judge.decided:
            break
    return judge.judgement()


@pytest.mark.parametrize("hosts", [2, 3, 4, 7])
def test_each_period_half_of_the_hosts_gets_the_variant(hosts):
    names = [f"h{number}" for number in range(hosts)]
    groups = draw_groups(7, 1, names, 200)
    assert {len(group) for group in groups} == ({hosts // 2, hosts - hosts // 2})
    for name in names:
        assert 60 <= sum(name in group for group in groups) <= 140


def test_the_groups_can_be_drawn_again_with_nothing_but_sha256():
    def digest(name, number, what):
        return hashlib.sha256(f"9/{name}/2/{number}/{what}".encode()).digest()

    for number, group in enumerate(draw_groups(9, 2, list(HOSTS), 50), 1):
        order = sorted(HOSTS, key=lambda host, number=number: digest(host, number, "group"))
        assert group == set(order[2:] if digest("", number, "groups")[0] & 1 else order[:2])


def test_the_groups_hang_on_no_order_of_the_hosts():
    assert draw_groups(9, 2, list(HOSTS), 20) == draw_groups(9, 2, list(reversed(HOSTS)), 20)


def test_a_gain_on_the_variants_hosts_is_kept_and_told_without_the_common_trend():
    judgement = judged(fleet_plan(), periods(fleet_plan(), 0.2, noise=0.03))
    assert (judgement.action, judgement.reason) == ("keep", "proven-gain")
    assert judgement.confirmed_effect.estimate == pytest.approx(1 - math.exp(-0.2), abs=0.03)
    assert judgement.pairs < 30


def test_a_harm_is_reverted():
    assert judged(fleet_plan(), periods(fleet_plan(), -0.2, noise=0.03)).reason == "slower"


def test_nothing_is_judged_before_every_host_of_the_period_is_told():
    judge = FleetJudge(fleet_plan())
    told = list(periods(fleet_plan(), 0.2, count=2))
    for each in told[:3]:
        assert judge.add(each).pairs == 0
    assert judge.add(told[3]).pairs == 1
    # A host that is ahead waits for the others.
    assert judge.add(told[4]).pairs == 1


def test_the_same_pairs_give_the_same_judgement_in_whatever_order_a_periods_hosts_come():
    trial = fleet_plan()
    told = list(periods(trial, 0.1, count=8, noise=0.05))
    turned = [each for start in range(0, len(told), 4) for each in reversed(told[start : start + 4])]
    assert judge_trial(trial, told) == judge_trial(trial, turned)


def test_swapping_the_groups_turns_the_gain_into_its_opposite():
    """What makes the evidence exact: under the null only the coin decides the sign, whatever the hosts live through."""
    trial = fleet_plan(hosts=("h1", "h2", "h3"))
    draw = random.Random(3)
    for _ in range(20):
        lived = {host: (draw.uniform(1e4, 9e4), draw.uniform(1e4, 9e4)) for host in trial.hosts}
        gains = []
        for group in ({"h1"}, {"h2", "h3"}):
            judge = FleetJudge(trial)
            judge._groups = [frozenset(group)]
            for host in trial.hosts:
                judge.fold(host_period(host, 1, "variant" if host in group else "control", *lived[host]))
            gains += judge._decision.searched
        assert gains[0] == pytest.approx(-gains[1])


def test_a_spoilt_host_counts_on_neither_side_and_a_side_without_hosts_is_no_period():
    trial = fleet_plan(hosts=("h1", "h2", "h3", "h4"))
    (group,) = draw_groups(trial.seed, trial.number, trial.hosts, 1)
    one, *_ = sorted(group)
    judge = FleetJudge(trial)
    for each in periods(trial, 0.2, count=1, spoilt={(one, 1)}):
        judge.fold(each)
    assert len(judge._decision.searched) == 1
    judge = FleetJudge(trial)
    for each in periods(trial, 0.2, count=1, spoilt={(host, 1) for host in group}):
        judge.fold(each)
    assert (judge._decision.searched, judge._decision.pairs) == ([], 1)


@pytest.mark.parametrize("broken", ["arm", "order", "number"])
def test_a_period_that_is_not_as_it_was_drawn_is_invalid(broken):
    trial = fleet_plan()
    (group,) = draw_groups(trial.seed, trial.number, trial.hosts, 1)
    arm = "variant" if "h1" in group else "control"
    if broken == "arm":
        wrong = host_period("h1", 1, "control" if arm == "variant" else "variant", 1e4, 1e4)
    elif broken == "order":
        wrong = host_period("h1", 1, arm, 1e4, 1e4)
        wrong = wrong.model_copy(
            update={
                "control": wrong.control.model_copy(update={"block": 2}),
                "variant": wrong.variant.model_copy(update={"block": 1}),
            }
        )
    else:
        wrong = host_period("h1", 2, arm, 1e4, 1e4)
    assert judge_trial(trial, [wrong]).reason == "measurement-invalid"


def test_a_failing_variant_ends_the_trial_with_its_first_period():
    trial = fleet_plan()
    (group,) = draw_groups(trial.seed, trial.number, trial.hosts, 1)
    failing = {"errors": 40, "error_classes": {"status": 40}}
    told = [
        host_period(host, 1, *(("variant", 1e4, 1e4) if host in group else ("control", 1e4, 1e4)))
        if host not in group
        else host_period(host, 1, "variant", 1e4, 1e4, **failing)
        for host in trial.hosts
    ]
    assert judge_trial(trial, told).reason == "guardrail-errors"


@pytest.mark.parametrize(("hosts", "noise"), [(2, 0.03), (4, 0.08), (9, 0.15)])
def test_alike_arms_are_falsely_kept_in_at_most_one_trial_in_a_hundred(hosts, noise):
    names = tuple(f"h{number}" for number in range(hosts))
    kept = 0
    for seed in range(200):
        trial = fleet_plan(hosts=names).model_copy(update={"seed": seed})
        kept += judged(trial, periods(trial, 0.0, count=45, noise=noise, seed=seed)).action == "keep"
    assert kept <= 2


@pytest.mark.parametrize(("hosts", "gain", "noise"), [(2, 0.1, 0.03), (4, 0.1, 0.05), (8, 0.05, 0.03)])
def test_true_gains_are_kept_four_times_in_five(hosts, gain, noise):
    names = tuple(f"h{number}" for number in range(hosts))
    kept = 0
    for seed in range(40):
        trial = fleet_plan(hosts=names).model_copy(update={"seed": seed})
        kept += judged(trial, periods(trial, gain, count=45, noise=noise, seed=seed)).action == "keep"
    assert kept >= 32
