"""The registry of metrics fits what it names: blocks, classes of live traffic, an experiment's limits, reason codes."""

from __future__ import annotations

from typing import get_args

import pytest

from controller.model.blocks import Block, ClassFigures, SideMetrics
from controller.model.experiment import Guardrails
from controller.model.metrics import GUARDRAILS, METRICS, Metric
from controller.model.trial import ReasonCode


def test_an_objective_may_name_exactly_the_metrics_that_some_workload_can_tell() -> None:
    assert set(get_args(Metric)) == {name for name, metric in METRICS.items() if metric.modes}


@pytest.mark.parametrize("name", METRICS)
def test_each_metric_is_read_from_a_field_that_a_block_has(name: str) -> None:
    model, field = Block, METRICS[name].field
    if field.startswith("metrics."):
        model, field = SideMetrics, field.removeprefix("metrics.")
    assert field in model.model_fields


def test_live_traffic_is_compared_by_class_exactly_where_its_classes_tell_the_metric() -> None:
    told = ClassFigures.model_fields.keys()
    assert {metric.field for metric in METRICS.values() if metric.of_classes} == told - {"requests"}


def test_every_limit_on_a_ratio_is_a_metrics_and_has_a_reason_code() -> None:
    assert set(GUARDRAILS) == {name for name in Guardrails.model_fields if name.endswith("_ratio")}
    assert {guardrail.reason for _, guardrail in GUARDRAILS.values()} < set(get_args(ReasonCode))
