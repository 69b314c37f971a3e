"""A project folder with one static fleet, whose key and known_hosts exist."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.files.keys import ensure_fleet_key
from controller.model.project import Project

FIXTURES = Path(__file__).parents[2] / "fixtures"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    (tmp_path / "ansible.cfg").write_text("[defaults]\n")
    folder = tmp_path / "inventory" / "web" / "group_vars" / "all"
    folder.mkdir(parents=True)
    (folder / "ratchet.yml").write_text("ratchet: {}\n")
    (folder.parents[1] / "hosts.yml").write_text("all: {hosts: {web-1: {ansible_host: 192.0.2.1}}}\n")
    (folder.parents[1] / "known_hosts").write_text("192.0.2.1 ssh-ed25519 AAAA\n")
    project = Project(tmp_path)
    ensure_fleet_key(project, "web")
    return project
