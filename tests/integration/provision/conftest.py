"""An operator's project with the fleet `web`, provisioned by the command, on the session's lab."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pytest
import yaml

from benchmarks.lab_session import LabSession
from controller.model.project import Project

# The roles have tests of their own; here it counts that the playbook reaches every host, and changes nothing twice.
SITE = """\
- name: Leave a mark
  hosts: all
  gather_facts: false
  become: true
  tasks:
    - name: Mark
      ansible.builtin.copy:
        content: set up
        dest: /etc/ratchet-mark
        mode: "0644"
"""


class Lab(Protocol):
    session: LabSession
    client: Any

    def environment(self) -> dict[str, str]: ...


@dataclass
class Answer:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.out)
        return document


@dataclass
class Site:
    """The project, and the lab's API for the tests' own questions."""

    project: Project
    lab: Lab

    def controller(self, *words: str, **environment: str) -> Answer:
        done = subprocess.run(
            [sys.executable, "-m", "controller", "--project", str(self.project.root), *words],
            env={"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "HOME": "/root"}
            | self.lab.environment()
            | environment,
            capture_output=True,
            text=True,
            timeout=280,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert "Traceback" not in done.stderr, done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    def settings(self, fleet: str = "web", **servers: Any) -> None:
        """Write the fleet's settings."""
        document = {
            "count": 1,
            "prefer": [{"type": "cx22", "location": "fsn1"}, {"type": "cx23", "location": "nbg1"}],
            "labels": {"purpose": "test"},
        } | servers
        path = self.project.inventory(fleet) / "group_vars" / "all" / "ratchet.yml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump({"ratchet": {"servers": document}}))

    def files(self) -> dict[str, str]:
        """What provisioning writes: path -> content."""
        paths = [self.project.inventory("web") / name for name in ("hosts.yml", "known_hosts")]
        keys = self.project.state / "keys"
        return {str(path): path.read_text() for path in [*paths, *keys.rglob("*")] if path.is_file()}

    def servers(self, fleet: str = "web") -> dict[str, Any]:
        found = self.lab.client.servers.get_all(label_selector=f"ratchet-fleet={fleet}")
        return {server.name: server for server in found}


@pytest.fixture(scope="module")
def site(lab_session: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    root = tmp_path_factory.mktemp("site with a blank")
    (root / "ansible.cfg").write_text((Path(__file__).parents[3] / "ansible.cfg").read_text())
    (root / "playbooks").mkdir()
    (root / "playbooks" / "site.yml").write_text(SITE)
    site = Site(Project(root), lab_session)
    site.settings()
    yield site
    lab_session.session.clear_faults()
    site.controller("destroy", "--fleet", "web", "--yes")


@pytest.fixture
def provisioned(site: Site) -> Site:
    """The fleet with one host, whatever an earlier test did to it."""
    site.lab.session.clear_faults()
    site.settings()
    answer = site.controller("provision", "--fleet", "web")
    assert answer.code == 0, answer.err
    return site
