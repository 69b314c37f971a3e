"""What these tests share: the project, the lab's baseline, the demo's content, and a real nginx."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import jinja2
import pytest
import yaml

from controller.model.project import Project

ROOT = Path(__file__).resolve().parents[3]
MOVED = (
    "/etc/nginx/modules-enabled",
    "/etc/nginx/sites-enabled",
    "/etc/nginx/conf.d",
    "/var/log/nginx",
    "/var/log/ratchet",
    "/var/cache/nginx",
)
Render = Callable[[dict[str, Any]], str]


def load_module(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def project() -> Project:
    return Project.find(ROOT)


@pytest.fixture(scope="session")
def baseline() -> dict[str, Any]:
    """The parameters that the lab's hosts start with."""
    parameters: dict[str, Any] = yaml.safe_load((ROOT / "roles/nginx/defaults/main.yml").read_text())
    return parameters | yaml.safe_load((ROOT / "inventory/lab/group_vars/all/nginx.yml").read_text())


@pytest.fixture(scope="session")
def demo_content() -> ModuleType:
    """The module that generates what a lab host serves."""
    return load_module("demo_content", ROOT / "roles/demo_site/library/demo_content.py")


@pytest.fixture(scope="session")
def upstream_program() -> Path:
    return ROOT / "roles/demo_site/files/ratchet-demo-upstream"


@pytest.fixture(scope="session")
def demo_paths(demo_content: ModuleType) -> set[str]:
    """The paths of the files that a lab host serves."""
    return {"/", *(f"/{name}" for name in demo_content.content(300))}


@pytest.fixture(scope="session")
def render(baseline: dict[str, Any]) -> Render:
    """The configuration of the lab with parameters laid over it, as Ansible renders it."""
    environment = jinja2.Environment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - a configuration is no HTML
    )
    filters = load_module("nginx_value", ROOT / "roles/nginx/filter_plugins/nginx_value.py")
    environment.filters.update(filters.FilterModule().filters())
    text = (ROOT / "roles/nginx/templates/nginx.conf.j2").read_text(encoding="utf-8")
    template = environment.from_string(text.removeprefix("#jinja2: lstrip_blocks: True\n"))
    return lambda parameters: template.render(baseline | parameters)


@pytest.fixture(scope="session")
def nginx_accepts(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Run `nginx -t` on a configuration moved into a scratch folder and onto other ports; returns its complaint."""
    root = tmp_path_factory.mktemp("nginx")
    key, certificate = root / "key.pem", root / "cert.pem"
    curve = ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", *curve, "-nodes", "-days", "1", "-subj", "/CN=localhost", *files],
        check=True,
        capture_output=True,
        timeout=30,
    )

    def check(text: str) -> str:
        for path in MOVED:
            (root / path.lstrip("/")).mkdir(parents=True, exist_ok=True)
            text = text.replace(path, f"{root}{path}")
        text = text.replace("/run/nginx.pid", f"{root}/nginx.pid").replace("/etc/ssl/ratchet-demo", str(root))
        text = re.sub(r"(listen (?:\[::\]:)?)(80|443)\b", r"\g<1>20\g<2>", text)
        (root / "nginx.conf").write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["nginx", "-t", "-q", "-e", "stderr", "-p", str(root), "-c", str(root / "nginx.conf")],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return "" if done.returncode == 0 else done.stderr

    return check
