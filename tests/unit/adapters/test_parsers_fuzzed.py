"""Whatever stands in an operator's file, reading it gives a value or a RatchetError, never anything else."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.adapters.ansible.environment import ansible_environment
from controller.adapters.files.documents import read_json, read_yaml
from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.fleet import load_settings
from controller.adapters.files.kept import kept_file, read_kept, with_kept, write_kept_text
from controller.adapters.files.keys import ensure_fleet_key
from controller.adapters.files.runs import list_runs, read_run
from controller.adapters.inventory import Inventory, load_fleet
from controller.adapters.inventory.connection import UnfitVariable, connection
from controller.adapters.inventory.templates import Variables
from controller.model.errors import RatchetError
from controller.model.project import Project

EXPERIMENT = Path(__file__).parents[2] / "fixtures" / "experiment" / "good" / "everything.json"
FUZZ = settings(max_examples=60, deadline=None)

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
tree = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
markup = st.text(alphabet="{}[]:,-&*!|>'\"#%@`?\\\n\t x0=<~.\x00\x85\ud800é", max_size=60)
noise = st.binary(max_size=80) | markup.map(lambda text: text.encode("utf-8", "surrogatepass"))


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def _project() -> Iterator[Project]:
    with _folder() as root:
        (root / "ansible.cfg").write_text("")
        (root / "inventory" / "web" / "group_vars" / "all").mkdir(parents=True)
        (root / "inventory" / "web" / "known_hosts").write_text("")
        yield Project(root)


@given(noise)
@FUZZ
def test_any_bytes_as_yaml_and_json(raw: bytes) -> None:
    with _folder() as folder:
        path = folder / "file"
        path.write_bytes(raw)
        for read in (read_yaml, read_json):
            try:
                read(path)
            except RatchetError as error:
                assert str(path) in error.where
                assert error.next_step


@given(tree)
@FUZZ
def test_yaml_reads_as_pyyaml_does(value: Any) -> None:
    with _folder() as folder:
        path = folder / "file"
        path.write_text(yaml.safe_dump(value, allow_unicode=False))
        try:
            document = read_yaml(path)
        except RatchetError:
            return
        assert repr(document.value) == repr(yaml.safe_load(path.read_text()))


@given(
    st.recursive(st.just([]), lambda inner: st.lists(inner, min_size=1, max_size=1), max_leaves=3), st.integers(1, 4000)
)
@settings(max_examples=20, deadline=None)
def test_deep_nesting_is_refused(_: Any, depth: int) -> None:
    with _folder() as folder:
        path = folder / "file"
        path.write_text("[" * depth + "]" * depth)
        for read in (read_yaml, read_json):
            try:
                read(path)
            except RatchetError as error:
                assert "nested" in error.what


def test_a_reference_that_grows_without_end_is_refused() -> None:
    with _folder() as folder:
        path = folder / "file"
        path.write_text("a: &a [*a]\n")
        laughs = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
        for text in ("a: &a [*a]\n", laughs):
            path.write_text(text)
            try:
                read_yaml(path)
            except RatchetError as error:
                assert "too large" in error.what
            else:
                raise AssertionError("it was read")


@given(noise | tree.map(lambda value: yaml.safe_dump({"ratchet": value}).encode()))
@FUZZ
def test_any_settings(raw: bytes) -> None:
    with _project() as project:
        (project.inventory("web") / "group_vars" / "all" / "ratchet.yml").write_bytes(raw)
        with suppress(RatchetError):
            load_settings(project, "web")


@given(noise | tree.map(lambda value: yaml.safe_dump({"all": {"hosts": {"web-1": value}}}).encode()))
# Each asks Ansible, which takes most of a second.
@settings(max_examples=8, deadline=None)
def test_any_inventory(raw: bytes) -> None:
    with _project() as project:
        ensure_fleet_key(project, "web")
        (project.inventory("web") / "hosts.yml").write_bytes(raw)
        with suppress(RatchetError):
            load_fleet(project, "web")


CONNECTION = ["ansible_host", "ansible_port", "ansible_user", "ansible_ssh_private_key_file", "ansible_ssh_common_args"]


TELLING = ["{{ ansible_host }}", "{% for x in ansible_user %}{{ x }}{% endfor %}", "-F", "-J a", "-i %z"]


@given(st.dictionaries(st.sampled_from(CONNECTION), tree | markup | st.sampled_from(TELLING)))
@FUZZ
def test_any_variables_of_a_connection(variables: dict[str, Any]) -> None:
    with _project() as project:
        folder = project.inventory("web")
        inventory = Inventory(folder, {"web-1": variables}, {"all": ["web-1"]}, (folder / "hosts.yml",))
        environment = ansible_environment(project)
        with suppress(UnfitVariable):
            connection(project, "web-1", Variables(inventory, "web-1", environment), environment)


@given(st.data())
@FUZZ
def test_an_experiment_with_anything_anywhere(data: st.DataObject) -> None:
    document = json.loads(EXPERIMENT.read_text())
    place = document
    while isinstance(place, dict | list) and place and data.draw(st.booleans()):
        inner = data.draw(st.sampled_from(sorted(place) if isinstance(place, dict) else list(range(len(place)))))
        if not isinstance(place[inner], dict | list):
            break
        place = place[inner]
    if isinstance(place, dict):
        place[data.draw(st.sampled_from(sorted(place)) | st.text(max_size=8))] = data.draw(tree)
    else:
        place.append(data.draw(tree))
    with _project() as project:
        folder = project.root / "experiments" / "everything"
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(json.dumps(document))
        try:
            load_experiments(project, ["everything"])
        except RatchetError as error:
            assert "meta.json" in error.where


@given(noise)
@FUZZ
def test_any_kept_parameters_and_any_run(raw: bytes) -> None:
    with _project() as project:
        kept_file(project, "web").write_bytes(raw)
        with suppress(RatchetError):
            read_kept(project, "web")
        (project.runs / "r-1").mkdir(parents=True)
        for name in ("plan.json", "verdict.json"):
            (project.runs / "r-1" / name).write_bytes(raw)
        list_runs(project)
        with suppress(RatchetError):
            read_run(project, "r-1")


@given(
    st.dictionaries(
        st.from_regex(r"nginx_[a-z0-9_]{1,20}", fullmatch=True),
        st.booleans()
        | st.integers()
        | st.floats(allow_nan=False)
        | st.text(st.characters(codec="utf-8"), max_size=20)
        | st.lists(st.text(st.characters(codec="utf-8"), max_size=10), max_size=3),
        min_size=1,
        max_size=4,
    ),
    st.text(st.characters(codec="utf-8"), max_size=20),
)
@FUZZ
def test_what_is_kept_reads_back_exactly_on_one_line_each(parameters: dict[str, Any], words: str) -> None:
    with _project() as project:
        for _ in range(2):
            write_kept_text(project, "web", with_kept(project, "web", parameters=parameters, comment=words))
            assert read_kept(project, "web") == parameters
        lines = kept_file(project, "web").read_text().split("\n")
        assert [line.split(":")[0] for line in lines if line.startswith("nginx_")] == list(parameters)
