import math

import pytest

from controller.judge.gain import gain, log_ratio
from controller.model.metrics import METRICS
from controller.model.trial import Pair
from tests.unit.judge.judge_trials import block, pair


def two(control, variant):
    return Pair(
        host="h1",
        number=1,
        control=block(1, "control", 100, **control),
        variant=block(2, "variant", 80, **variant),
    )


@pytest.mark.parametrize("metric", ["p50", "p90", "p95", "p99", "mean"])
def test_a_faster_variant_has_the_logarithm_of_the_ratio_as_its_gain(metric):
    assert gain(two({}, {}), metric, "switchback") == pytest.approx(math.log(100 / 80))


def test_a_duet_takes_its_p50_from_the_paired_requests_and_nothing_else():
    told = two({"paired_gain": 0.5}, {"paired_gain": 0.5})
    assert gain(told, "p50", "duet") == 0.5
    assert gain(told, "p50", "switchback") == pytest.approx(math.log(100 / 80))
    assert gain(told, "p90", "duet") == pytest.approx(math.log(100 / 80))


@pytest.mark.parametrize("told", [(None, None), (0.5, None), (0.5, 0.4), (math.nan, math.nan), (math.inf, math.inf)])
def test_a_duet_without_one_agreed_paired_gain_tells_nothing(told):
    assert gain(two({"paired_gain": told[0]}, {"paired_gain": told[1]}), "p50", "duet") is None


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_the_blocks_own_figure_and_twice_of_it_is_twice_as_good_or_as_bad(metric):
    def told(block, value):
        *side, field = METRICS[metric].field.split(".")
        inner = block.metrics if side else block
        changed = inner.model_copy(update={field: value})
        return block.model_copy(update={"metrics": changed}) if side else changed

    better, worse = (3000, 1500) if METRICS[metric].more_is_better else (1500, 3000)
    alike = two({}, {})
    found = alike.model_copy(update={"control": told(alike.control, worse), "variant": told(alike.variant, better)})
    assert gain(found, metric, "switchback") == pytest.approx(math.log(2))


@pytest.mark.parametrize("metric", ["mean_p50", "ttfb_p50"])
def test_a_figure_that_an_earlier_agent_did_not_tell_is_no_gain(metric):
    assert gain(two({f"{metric}_us": 300}, {}), metric, "duet") is None


def test_cpu_per_request_comes_from_the_side_metrics():
    cheap = two({"metrics": {"cpu_us_per_request": 90.0}}, {"metrics": {"cpu_us_per_request": 60.0}})
    assert gain(cheap, "cpu_per_request", "duet") == pytest.approx(math.log(1.5))


@pytest.mark.parametrize("figure", [None, math.nan, math.inf, -1.0])
def test_a_metric_that_one_arm_does_not_tell_gives_no_gain(figure):
    assert gain(two({"metrics": {"cpu_us_per_request": figure}}, {}), "cpu_per_request", "duet") is None
    assert gain(two({}, {"metrics": {"cpu_us_per_request": figure}}), "cpu_per_request", "duet") is None


def test_memory_is_what_nginx_took_at_the_end_of_each_block():
    small = two({"metrics": {"rss_bytes": 30_000_000}}, {"metrics": {"rss_bytes": 20_000_000}})
    assert gain(small, "memory", "duet") == pytest.approx(math.log(1.5))
    assert gain(two({"metrics": {"rss_bytes": 0}}, {}), "memory", "duet") is None


def test_zero_counts_as_one_of_its_unit():
    assert log_ratio(0, 0) == 0.0
    assert log_ratio(10, 0) == math.log(10)


def test_pairs_of_the_builder_have_the_gain_that_was_asked_for():
    assert gain(pair(1, 0.25), "p50", "switchback") == pytest.approx(0.25, abs=1e-5)
