"""An experiment's parameters are held against the nginx role's own specification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.parameters import check_parameters, known_parameters
from controller.model.errors import BadInput
from controller.model.project import Project

EXPERIMENT = Path(__file__).parents[2] / "fixtures" / "experiment" / "good" / "smallest.json"


def _check(project: Project, parameters: dict[str, Any], **fields: Any) -> None:
    document = json.loads(EXPERIMENT.read_text()) | fields
    document["variants"] = [{"name": "only", "parameters": parameters}]
    folder = project.root / "experiments" / "tried"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(document, indent=1))
    (experiment,) = load_experiments(project, ["tried"])
    check_parameters(project, experiment)


@pytest.mark.parametrize(
    "parameters",
    [
        {"nginx_gzip_comp_level": 1, "nginx_gzip_types": ["text/css"]},
        {"nginx_worker_processes": 2, "nginx_sendfile": False},
        {"nginx_keepalive_timeout": "75s"},
    ],
)
def test_parameters_within_their_specification_pass(project: Project, parameters: dict[str, Any]) -> None:
    _check(project, parameters)


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ({"nginx_gzip_comp_levle": 1}, "did you mean nginx_gzip_comp_level"),
        ({"nginx_gzip_comp_level": 10}, "must be between 1 and 9, found 10"),
        ({"nginx_gzip_comp_level": True}, "must be a whole number, found true"),
        ({"nginx_gzip_comp_level": 4.5}, "must be a whole number, found 4.5"),
        ({"nginx_sendfile": "on"}, "must be true or false, found 'on'"),
        ({"nginx_keepalive_timeout": "75s; load_module x"}, "must be of the form"),
        ({"nginx_keepalive_timeout": "75s\n"}, "must be of the form"),
        ({"nginx_gzip_types": []}, "a list with at least one item"),
        ({"nginx_gzip_types": "text/css"}, "a list with at least one item"),
        ({"nginx_gzip_proxied": ["sometimes"]}, "must be one of off, expired"),
        ({"nginx_sites": ["x"]}, "an experiment cannot vary it"),
    ],
)
def test_parameters_outside_it_are_refused_with_the_line(
    project: Project, parameters: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadInput) as caught:
        _check(project, parameters)
    assert complaint in str(caught.value)
    path, _, line = caught.value.where.rpartition(":")
    assert next(iter(parameters)) in Path(path).read_text().splitlines()[int(line) - 1]


def test_required_parameters_are_checked_too(project: Project) -> None:
    with pytest.raises(BadInput, match="must be true or false"):
        _check(project, {"nginx_gzip": True}, requires={"nginx_tcp_nopush": "yes"})


@pytest.mark.parametrize("parameters", [{"nginx_access_log": False}, {"nginx_error_log_level": "crit"}])
def test_a_gain_by_serving_less_is_refused_unless_it_is_meant(project: Project, parameters: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="by serving less"):
        _check(project, parameters)
    _check(project, parameters, allow_service_reduction=True)


def _check_ranges(project: Project, ranges: dict[str, Any], **fields: Any) -> None:
    document = json.loads(EXPERIMENT.read_text()) | {"ranges": ranges} | fields
    del document["variants"]
    folder = project.root / "experiments" / "searched"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "meta.json").write_text(json.dumps(document, indent=1))
    (experiment,) = load_experiments(project, ["searched"])
    check_parameters(project, experiment)


@pytest.mark.parametrize(
    ("name", "values", "complaint"),
    [
        ("nginx_gzip_comp_level", {"kind": "integer", "low": 1, "high": 12}, "between 1 and 9, found 12"),
        ("nginx_gzip_comp_level", {"kind": "number", "low": 1, "high": 9}, "a whole number"),
        ("nginx_keepalive_timeout", {"kind": "integer", "low": 5, "high": 65, "unit": "x"}, "of the form"),
        ("nginx_gzip", {"kind": "choice", "values": [True, False]}, "by serving less"),
        ("nginx_gzip_levle", {"kind": "integer", "low": 1, "high": 2}, "unknown parameter"),
    ],
)
def test_every_end_of_a_range_is_held_against_the_specification(
    project: Project, name: str, values: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadInput, match=complaint):
        _check_ranges(project, {name: values})


def test_a_constraint_multiplies_amounts_of_known_parameters(project: Project) -> None:
    ranges = {"nginx_keepalive_timeout": {"kind": "integer", "low": 5, "high": 65, "unit": "s"}}
    good = {"product": ["nginx_worker_processes", "nginx_worker_connections", "nginx_proxy_buffers"], "at_most": "1g"}
    _check_ranges(project, ranges, constraints=[good])
    with pytest.raises(BadInput, match="is no amount"):
        _check_ranges(project, ranges, constraints=[good | {"product": ["nginx_keepalive_timeout"]}])
    with pytest.raises(BadInput, match="unknown parameter"):
        _check_ranges(project, ranges, constraints=[good | {"product": ["nginx_worker_conections"]}])


def test_known_parameters_are_the_defaults_with_the_fleets_own_over_them(project: Project) -> None:
    everywhere = {"nginx_worker_connections": 2048, "nginx_gzip_comp_level": "{{ level }}", "other": 1}
    hosts = [everywhere | {"nginx_worker_processes": processes} for processes in (2, 4)]
    known = known_parameters(project, hosts)
    assert known["nginx_worker_processes"] == known_parameters(project, [])["nginx_worker_processes"]
    assert known["nginx_worker_connections"] == 2048
    assert known["nginx_gzip_comp_level"] == 4
    assert "other" not in known
    assert "nginx_sites" not in known
