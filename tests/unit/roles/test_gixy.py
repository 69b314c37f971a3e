"""gixy, an auditor of nginx configurations, finds nothing in what the role renders but what is kept on purpose."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.adapters.files.experiments import load_experiments
from controller.model.project import Project
from tests.unit.roles.test_hostile_parameters import SITE
from tests.unit.roles.test_nginx_parameters import ROLE, render

# Not installed by an older setup: scripts/setup brings it.
pytest.importorskip("gixy")
GIXY = [sys.executable, "-m", "gixy.cli"]
LAB: dict[str, Any] = yaml.safe_load((ROLE.parents[1] / "inventory/lab/group_vars/all/nginx.yml").read_text())
KEPT = {
    "hsts_header": "it binds every name of a domain for months: its operator's to say, in sites-enabled",
    "try_files_is_evil_too": "what a cache of open files is worth is what experiments/open-file-cache asks",
    "low_keepalive_requests": "the lab starts from settings that somebody once thought to be good",
}


def findings(texts: dict[str, str], folder: Path, *, kept: dict[str, str] = KEPT) -> set[str]:
    """`configuration: plugin: reason` of each finding."""
    paths = {}
    for number, (name, text) in enumerate(texts.items()):
        path = folder / f"{number}.conf"
        path.write_text(text, encoding="utf-8")
        paths[str(path)] = name
    command = [*GIXY, "--disable-includes", "--format", "json", "--skips", ",".join(kept), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode in {0, 1}, done.stderr
    found = json.loads(done.stdout)
    return {f"{paths[each['path']]}: {each['plugin']}: {each.get('reason') or each['summary']}" for each in found}


def rendered() -> dict[str, dict[str, Any]]:
    """Name -> parameters: the defaults, the lab, a site with everything, and both arms of each shipped experiment."""
    found: dict[str, dict[str, Any]] = {
        "defaults": {},
        "lab": LAB,
        "site": {"nginx_sites": [SITE], "nginx_proxy_cache": True},
    }
    for experiment in load_experiments(Project(ROLE.parents[1])):
        found[experiment.name] = LAB | dict(experiment.requires)
        for variant in experiment.variants:
            found[f"{experiment.name}/{variant.name}"] = LAB | dict(experiment.requires) | dict(variant.parameters)
    return found


def test_nothing_is_found_in_any_configuration_that_we_ship(tmp_path: Path) -> None:
    texts = {name: render(**parameters) for name, parameters in rendered().items()}
    assert len(texts) > 40
    assert findings(texts, tmp_path) == set()


def test_what_is_kept_on_purpose_is_still_there(tmp_path: Path) -> None:
    found = findings({"lab": render(**LAB)}, tmp_path, kept={"none": ""})
    assert {line.split(": ")[1] for line in found} == set(KEPT)


def test_a_mistake_in_the_template_would_be_found(tmp_path: Path) -> None:
    good = render(**LAB)
    mistakes = {
        "status": good.replace("            deny all;\n", "", 1),
        "splitting": good.replace("try_files $uri $uri/ =404;", "return 302 https://$host$uri;"),
    }
    told = {":".join(line.split(": ")[:2]) for line in findings(mistakes, tmp_path)}
    assert told >= {"status:status_page_exposed", "splitting:http_splitting"}
