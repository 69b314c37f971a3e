"""Every schema of an operator's file has good files, which are read, and bad ones, each with its complaint."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.kept import kept_file, read_kept
from controller.adapters.inventory import load_fleet
from controller.model.errors import BadInput
from controller.model.project import Project

FIXTURES = Path(__file__).parents[2] / "fixtures"


def _fleet(project: Project, source: Path) -> Path:
    target = project.inventory("web") / "group_vars" / "all" / "ratchet.yml"
    shutil.copy(source, target)
    load_fleet(project, "web")
    return target


def _hosts(project: Project, source: Path) -> Path:
    target = project.inventory("web") / "hosts.yml"
    shutil.copy(source, target)
    (project.root / "inventory" / "key").write_text("not read here")
    (project.root / "inventory" / "key").chmod(0o600)
    load_fleet(project, "web")
    return target


def _kept(project: Project, source: Path) -> Path:
    target = kept_file(project, "web")
    shutil.copy(source, target)
    read_kept(project, "web")
    return target


def _experiment(project: Project, source: Path) -> Path:
    target = project.root / "experiments" / source.stem / "meta.json"
    target.parent.mkdir(parents=True)
    shutil.copy(source, target)
    load_experiments(project, [source.stem])
    return target


READERS: dict[str, Callable[[Project, Path], Path]] = {
    "fleet": _fleet,
    "hosts": _hosts,
    "kept": _kept,
    "experiment": _experiment,
}


def _files(quality: str) -> list[Path]:
    return sorted(path for path in FIXTURES.glob(f"*/{quality}/*") if path.suffix in {".yml", ".json"})


def _name(path: Path) -> str:
    return f"{path.parent.parent.name}/{path.stem}"


@pytest.mark.parametrize("source", _files("good"), ids=_name)
def test_a_good_file_is_read(project: Project, source: Path) -> None:
    READERS[source.parent.parent.name](project, source)


@pytest.mark.parametrize("source", _files("bad"), ids=_name)
def test_a_bad_file_is_refused_with_its_place_its_field_and_a_next_step(project: Project, source: Path) -> None:
    expect = source.with_suffix(".expect")
    wanted = expect.read_text() if expect.exists() else source.read_text().splitlines()[0].removeprefix("# ")
    place = re.fullmatch(r"(?:line (\d+): )?(.*?)(?:; (did you mean .*))?\n?", wanted)
    assert place is not None
    with pytest.raises(BadInput) as caught:
        READERS[source.parent.parent.name](project, source)
    error = caught.value
    assert place[2] in error.what
    if place[1]:
        assert error.where.endswith(f":{place[1]}")
    if place[3]:
        assert error.next_step == place[3]
    assert error.next_step
    assert error.exit_code == 2


def test_there_are_both_kinds_for_every_schema() -> None:
    for quality in ("good", "bad"):
        assert {path.parent.parent.name for path in _files(quality)} == set(READERS)
