"""The roles on an operator's server: what they install there takes nothing away either."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from .conftest import CHECKOUT, Debian


def _variables() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((CHECKOUT / "roles/base/vars/main.yml").read_text())
    return document


def _nginx() -> list[str]:
    (task,) = [
        task
        for task in yaml.safe_load((CHECKOUT / "roles/nginx/tasks/main.yml").read_text())
        if task["name"] == "Install nginx"
    ]
    return list(task["ansible.builtin.command"]["argv"])


def _base(*packages: str) -> list[str]:
    return ["/bin/sh", "-c", _variables()["__base_install_command"], "sh", *packages]


@pytest.mark.parametrize("command", [_base("nginx"), _nginx()])
def test_a_server_keeps_what_conflicts(debian: Debian, command: list[str]) -> None:
    debian.offer("nginx", "usr/sbin/nginx")
    debian.install("web", "usr/bin/web", "Conflicts: nginx\n")
    done = debian.run(*command)
    assert done.code != 0
    assert "remove is disabled" in done.output
    assert debian.installed() == {"web"}


@pytest.mark.parametrize("command", [_base("nginx"), _nginx()])
def test_what_takes_nothing_away_is_installed(debian: Debian, command: list[str]) -> None:
    debian.offer("nginx", "usr/sbin/nginx")
    done = debian.run(*command)
    assert done.code == 0, done.output
    assert debian.installed() == {"nginx"}


def test_what_another_package_provides_is_there(debian: Debian) -> None:
    debian.install("sudo-ldap", "usr/bin/sudo", "Provides: other, sudo (= 1.9), more\n")
    debian.install("sudoku", "usr/games/sudoku", "Provides: not-sudo, sudo-game\n")
    debian.install("g++", "usr/bin/g++")
    packages = ["sudo", "game", "more", "sudoku", "g++", "time-daemon"]
    look = ["/bin/sh", "-c", _variables()["__base_look"], "sh", *packages]
    done = debian.run(*look)
    assert done.output.split()[:2] == ["game", "time-daemon"]
