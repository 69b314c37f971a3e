"""The experiments that ship with Ratchet are valid, honest and possible on the lab's hosts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.parameters import check_parameters
from controller.model.experiment import Experiment
from controller.model.project import Project
from controller.model.ranges import edges

EXPERIMENTS = load_experiments(Project.find(Path(__file__)))
each_experiment = pytest.mark.parametrize("experiment", EXPERIMENTS, ids=lambda experiment: experiment.name)


def test_there_are_at_least_twelve() -> None:
    assert len(EXPERIMENTS) >= 12


@each_experiment
def test_its_parameters_are_within_the_roles_specification_and_no_service_is_reduced(
    project: Project, experiment: Experiment
) -> None:
    check_parameters(project, experiment)


@each_experiment
def test_it_says_why_what_may_go_wrong_and_where_the_idea_comes_from(experiment: Experiment) -> None:
    assert experiment.question.endswith("?")
    assert len(experiment.why) >= 150
    assert len(experiment.risk.note) >= 60
    assert len(experiment.sources) >= 2
    assert any("nginx.org/" in source for source in experiment.sources), "the documentation of the directive"
    assert all(variant.why for variant in experiment.variants)


@each_experiment
def test_every_variant_changes_the_labs_configuration_in_its_own_way(
    experiment: Experiment, render: Callable[[dict[str, Any]], str]
) -> None:
    control, baseline = render(dict(experiment.requires)), render({})
    rendered = [render(dict(experiment.requires) | variant.parameters) for variant in experiment.variants]
    assert control not in rendered
    # What a KEEP commits is another configuration than the one before it.
    assert baseline not in rendered
    assert len(set(rendered)) == len(rendered)


@each_experiment
def test_nginx_accepts_the_control_and_every_variant(
    experiment: Experiment, render: Callable[[dict[str, Any]], str], nginx_accepts: Callable[[str], str]
) -> None:
    for parameters in [{}, *(variant.parameters for variant in experiment.variants)]:
        assert nginx_accepts(render(dict(experiment.requires) | parameters)) == "", parameters


@each_experiment
def test_the_labs_hosts_serve_every_path_of_its_workload(experiment: Experiment, demo_paths: set[str]) -> None:
    for request in experiment.workload.requests:
        path = request.path.partition("?")[0]
        assert path in demo_paths or path.startswith(("/api/", "/cached/")), path


@each_experiment
def test_the_guardrails_stay_in_force(experiment: Experiment) -> None:
    guardrails = experiment.guardrails
    assert guardrails.same_body
    assert guardrails.error_rate <= 0.001
    assert guardrails.p99_ratio <= 4


def test_what_compression_is_asked_about_is_asked_for_by_the_client() -> None:
    for experiment in EXPERIMENTS:
        if experiment.name.startswith("gzip"):
            assert all("Accept-Encoding" in request.headers for request in experiment.workload.requests), (
                experiment.name
            )


def test_nginx_accepts_both_ends_of_every_range(
    render: Callable[[dict[str, Any]], str], nginx_accepts: Callable[[str], str]
) -> None:
    for experiment in EXPERIMENTS:
        if not experiment.ranges:
            continue
        first = {name: edges(each)[0] for name, each in experiment.ranges.items()}
        last = {name: edges(each)[-1] for name, each in experiment.ranges.items()}
        settings = [
            first,
            last,
            *({**first, name: last[name]} for name in last),
            *({**last, name: first[name]} for name in last),
        ]
        for parameters in settings:
            assert nginx_accepts(render(dict(experiment.requires) | parameters)) == "", parameters
