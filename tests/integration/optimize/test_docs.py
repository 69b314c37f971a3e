"""The commands in docs/operating.md work on hosts, one after the other, as they stand."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs_commands import ON_HOSTS, OPERATORS_PAGE, commands
from tests.integration.operators_fleet import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def test_every_command_of_the_operators_page_works(fleet: FleetUnderTest) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    # The second fleet, `shop`, has no hosts: tests/unit/docs makes it in a project of its own.
    asked = [command for command in commands(OPERATORS_PAGE) if "shop" not in command]
    assert set(ON_HOSTS) <= set(asked)
    for command in asked:
        # The page's fleet is the one of a fresh project.
        here = command.replace("--fleet web", f"--fleet {fleet.name}")
        here = here.replace("inventory/web", f"inventory/{fleet.name}")
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", here],
            cwd=fleet.project,
            env=fleet.environment | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{here}\n{done.stdout}{done.stderr}"
