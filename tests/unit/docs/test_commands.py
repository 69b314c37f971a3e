"""What README and docs tell to type works as it stands, in a project that `controller init` has just made."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.main import COMMANDS, build_parser, main
from controller.model.experiment import Experiment
from tests.docs_commands import BLOCK, CHECKOUT, ON_HOSTS, OPERATORS_PAGE, PAGES, commands, page_text, spans

RECORDED = CHECKOUT / "tests/fixtures/runs"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """What `controller init` writes, and beside it the CSV of a recorded trial."""
    assert main(["init", str(tmp_path)]) == 0
    shutil.copy(next(RECORDED.glob("*/trials/*/*.csv.gz")), tmp_path / "1.csv.gz")
    return tmp_path


def run(command: str, folder: Path) -> None:
    kept_out = ("HCLOUD_", "RATCHET_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(kept_out)}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)])
def test_every_command_of_a_page_runs_here_or_is_one_for_hosts(page: str, project: Path) -> None:
    folder = project
    for command in commands(page):
        first, *arguments = command.split()
        if first == "cd":
            folder /= arguments[0]
            assert folder.is_dir(), f"{page}: {command}"
        elif first == "make":
            # In full it takes minutes and installs packages; the script says what it is, or make knows the target.
            run(f"make --dry-run {arguments[0]}", CHECKOUT)
        elif command not in ON_HOSTS:
            run(command, folder)
        elif first == "controller":
            build_parser(arguments[0]).parse_args(arguments)
        else:
            assert first == "ansible-playbook"
            assert all((folder / name).exists() for name in arguments if "/" in name), f"{page}: {command}"


def test_the_commands_for_hosts_are_those_of_the_page_that_a_lab_test_runs() -> None:
    assert set(ON_HOSTS) <= set(commands(OPERATORS_PAGE))
    for place in set(ON_HOSTS.values()):
        file, name = place.split("::")
        assert f"\ndef {name}(" in (CHECKOUT / file).read_text()


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_the_text_have_only_options_that_there_are(
    page: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in (span.split() for span in spans(page) if span.startswith("controller ")):
        if words[1] == "COMMAND":
            continue
        assert words[1] in COMMANDS, f"{page}: {' '.join(words)}"
        with pytest.raises(SystemExit):
            main([words[1], "--help"])
        known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
        assert {word for word in words if word.startswith("--")} <= known, f"{page}: {' '.join(words)}"


@pytest.mark.parametrize("page", PAGES)
def test_benchmarks_and_files_that_a_page_names_are_there(page: str) -> None:
    for span in spans(page):
        for module in re.findall(r"python -m (benchmarks\.\w+)", span):
            assert importlib.util.find_spec(module), f"{page}: {span}"
        if re.match(r"(docs|tests|controller|roles|playbooks|scripts|benchmarks|experiments)/[\w./-]+$", span):
            assert (CHECKOUT / span).exists(), f"{page}: {span}"


def headings(page: Path) -> set[str]:
    """The anchors of a page, as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_of_a_page_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page_text(page)):
        name, _, anchor = target.partition("#")
        path = (CHECKOUT / page).parent / name if name else CHECKOUT / page
        assert path.exists(), f"{page}: {target}"
        assert not anchor or anchor in headings(path), f"{page}: {target}"


def test_the_example_of_an_experiment_is_one() -> None:
    (example,) = [text for language, text in BLOCK.findall(page_text(OPERATORS_PAGE)) if language == "json"]
    assert Experiment.model_validate(json.loads(example)).variants
