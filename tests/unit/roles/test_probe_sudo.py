"""The one line of sudo that the probe's account gets."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.model.blocks import LIMITS
from ratchet_agent.commands import command_of
from ratchet_agent.main import SESSION_COMMAND
from ratchet_agent.plan_parsing import parse_plan
from ratchet_host.command_line import parse_arguments

ROLE = Path(__file__).resolve().parents[3] / "roles/probe"
PATTERN = yaml.safe_load((ROLE / "vars/main.yml").read_text())["__probe_session"]
PLAIN = "session --lease 60 --design duet --bound 3600"
CLAIMED = f"{PLAIN} --run r-20261130-2015-ab12.live --generation 7"


@pytest.mark.parametrize("asked", [PLAIN, CLAIMED, "session --lease 5 --design switchback --bound 5"])
def test_what_the_agent_asks_is_allowed_and_understood(asked: str) -> None:
    assert re.fullmatch(PATTERN, asked)
    assert parse_arguments(asked.split()).command == "session"


@pytest.mark.parametrize("plan", [{}, {"claim": {"run": "r-1", "generation": 12}, "bound_seconds": 95}])
def test_the_agent_asks_in_exactly_these_words(plan: dict[str, Any]) -> None:
    document = {
        "format": 1, "run": "r-1.soak", "trial": 1, "host": "here", "design": "soak", "lease_seconds": 60, "seed": 7,
        "workload": {"rate": 1, "requests": [{"path": "/"}]}, "arms": {"control": "c", "variant": "v"},
        "block_seconds": 1, "burn_in_seconds": 0, "pairs": [["variant"]],
        "limits": LIMITS.model_dump(),
    }  # fmt: skip
    command = command_of(parse_plan(json.dumps(document | plan).encode()), SESSION_COMMAND)
    assert command[:3] == ["sudo", "-n", "/usr/local/sbin/ratchet-host"]
    assert re.fullmatch(PATTERN, " ".join(command[3:]))
    told = parse_arguments(command[3:])
    assert (told.run, told.generation, told.bound) == (("r-1", 12, 95) if plan else (None, None, 3600))


@pytest.mark.parametrize(
    "asked",
    [
        "session --lease 60 --design duet",
        "session --lease 0 --design duet --bound 60",
        "session --lease 60 --design duet --bound 99999",
        f"{PLAIN} --run r-1",
        f"{PLAIN} --generation 1",
        f"{PLAIN} --run -r --generation 1",
        f"{PLAIN} --run {'r' * 65} --generation 1",
        f"{PLAIN} --run r-1 --generation {'1' * 16}",
        f"{PLAIN} --run r 1 --generation 1",
        f"{CLAIMED} --more",
        f"{CLAIMED}\n--more",
        f"x{PLAIN}",
    ],
)
def test_nothing_else_is_allowed(asked: str) -> None:
    assert not re.search(f"^{PATTERN}$", asked)


@pytest.mark.skipif(not shutil.which("visudo", path="/usr/sbin:/usr/bin"), reason="needs sudo's visudo")
def test_sudo_takes_the_line(tmp_path: Path) -> None:
    tasks = (ROLE / "tasks/main.yml").read_text()
    content = re.search(r"Cmnd_Alias.*\n.*RATCHET_SESSION\n", tasks)
    assert content
    text = content[0].replace("{{ __probe_session }}", PATTERN).replace("{{ __probe_user }}", "ratchet-probe")
    (tmp_path / "line").write_text(text.replace("\n      ", "\n"))
    done = subprocess.run(
        ["/usr/sbin/visudo", "-cf", str(tmp_path / "line")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
