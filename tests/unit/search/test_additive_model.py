"""The model learns what parameters add, each by itself, from few looks; what does nothing it leaves out of account."""

from __future__ import annotations

import random
from itertools import islice

import numpy
import pytest

from benchmarks.search_worlds import experiment, true_gain
from controller.search.additive_model import MODELLED, AdditiveModel
from controller.search.draws import at_random, by_tpe
from controller.search.ledger import Look
from controller.search.space import Parameters, mixed

SPACE = experiment()


def seen(count: int, *, noise: float = 0.01, seed: int = 1) -> list[Look]:
    chance = random.Random(seed)
    return [
        Look(setting, true_gain(setting) + chance.gauss(0.0, noise), pairs=6)
        for setting in islice(at_random(SPACE, seed), count)
    ]


def test_it_foretells_what_it_has_not_seen() -> None:
    model = AdditiveModel(SPACE, seen(40))
    unseen = list(islice(at_random(SPACE, 99), 200))
    truth = numpy.array([true_gain(setting) for setting in unseen])
    mean, spread = model.predict(unseen)
    assert numpy.corrcoef(mean, truth)[0, 1] > 0.9
    # Nine in ten within two standard deviations: it knows how much it does not know.
    assert (abs(mean - truth) < 2.0 * spread).mean() > 0.9


def test_what_is_expected_to_improve_is_better_than_most() -> None:
    model = AdditiveModel(SPACE, seen(40))
    unseen = list(islice(at_random(SPACE, 98), 200))
    chosen = unseen[int(model.expected_improvement(unseen).argmax())]
    assert true_gain(chosen) > numpy.quantile([true_gain(setting) for setting in unseen], 0.95)


def test_a_disaster_does_not_hide_the_differences_between_good_settings() -> None:
    looks = seen(40)
    worst = Look(next(at_random(SPACE, 77)), -30.0, pairs=3)
    unseen = list(islice(at_random(SPACE, 99), 200))
    truth = [true_gain(setting) for setting in unseen]
    mean, _ = AdditiveModel(SPACE, [*looks, worst]).predict(unseen)
    assert numpy.corrcoef(mean, truth)[0, 1] > 0.8


def test_more_pairs_count_for_more() -> None:
    one, *others = seen(20)
    setting = one.parameters
    lucky = [Look(setting, 1.0, pairs=pairs) for pairs in (2, 60)]
    believed = [float(AdditiveModel(SPACE, [look, *others]).predict([setting])[0][0]) for look in lucky]
    assert believed[0] < believed[1]


def test_looks_without_a_gain_teach_nothing() -> None:
    looks = seen(10)
    failed = Look(next(at_random(SPACE, 5)), None, pairs=0)
    unseen = list(islice(at_random(SPACE, 9), 5))
    with_it, without_it = (AdditiveModel(SPACE, each).predict(unseen)[0] for each in ([*looks, failed], looks))
    assert with_it.tolist() == without_it.tolist()
    with pytest.raises(ValueError, match="no look has a gain"):
        AdditiveModel(SPACE, [failed])


@pytest.mark.parametrize("count", [1, 3, MODELLED + 50])
def test_few_looks_alike_or_many_make_a_model(count: int) -> None:
    looks = [Look(look.parameters, 0.0 if count == 3 else look.gain, look.pairs) for look in seen(count)]
    mean, spread = AdditiveModel(SPACE, looks).predict([looks[0].parameters])
    assert numpy.isfinite([*mean, *spread]).all()


def test_draws_are_one_function_of_their_seed_and_keep_to_the_conditions() -> None:
    looks = [*seen(20), Look(next(at_random(SPACE, 5)), None, pairs=0)]
    for settings in (at_random, lambda about, seed: by_tpe(about, looks, seed)):
        drawn, again, other = (list(islice(settings(SPACE, seed), 8)) for seed in (3, 3, 4))
        assert drawn == again != other
        assert all(("nginx_open_file_cache_max" in each) == bool(each["nginx_open_file_cache"]) for each in drawn)


def test_a_mixture_takes_the_named_parameters_and_what_they_switch_on() -> None:
    drawn = list(islice(at_random(SPACE, 1), 40))
    off = next(each for each in drawn if not each["nginx_open_file_cache"])
    on = next(each for each in drawn if each["nginx_open_file_cache"])
    switched = mixed(SPACE, off, on, ["nginx_open_file_cache"])
    added: Parameters = {name: on[name] for name in ("nginx_open_file_cache", "nginx_open_file_cache_max")}
    assert switched == off | added
    assert mixed(SPACE, on, off, ["nginx_open_file_cache"]) == {
        name: value for name, value in on.items() if name != "nginx_open_file_cache_max"
    } | {"nginx_open_file_cache": False}
    assert mixed(SPACE, on, off, ["nginx_gzip_comp_level"]) == on | {
        "nginx_gzip_comp_level": off["nginx_gzip_comp_level"]
    }
    assert mixed(SPACE, off, off, ["nginx_open_file_cache"]) == off
    without_cache = {name: value for name, value in off.items() if name != "nginx_open_file_cache"}
    assert mixed(SPACE, without_cache, without_cache, []) is None
