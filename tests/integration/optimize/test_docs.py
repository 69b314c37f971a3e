"""The commands in docs/operating.md work, one after the other, as they stand."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.lab_fleet import CHECKOUT
from tests.integration.operators_fleet import FleetUnderTest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]

BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)


def commands(page: str) -> list[str]:
    """The lines of the page's shell blocks."""
    text = (CHECKOUT / "docs" / page).read_text()
    return [line for block in BLOCK.findall(text) for line in block.splitlines() if line and not line.startswith("#")]


def test_every_command_of_the_operators_page_works(fleet: FleetUnderTest) -> None:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    asked = commands("operating.md")
    assert len(asked) > 10
    for command in asked:
        done = subprocess.run(
            shlex.split(command),
            cwd=fleet.project,
            env=fleet.environment | {"PATH": path},
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
