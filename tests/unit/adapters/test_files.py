"""The operator's files: what is read, what is written, and what a crash or a full disk leaves."""

from __future__ import annotations

import base64
import errno
import hmac
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.adapters.files.atomic import replacing, write_atomically
from controller.adapters.files.experiments import load_experiments
from controller.adapters.files.kept import kept_file, read_kept, read_kept_text, with_kept, write_kept_text
from controller.adapters.files.keys import HostSeeds, ensure_fleet_key
from controller.adapters.files.known_hosts import KnownHosts
from controller.adapters.files.runs import list_runs, read_run
from controller.adapters.inventory import load_fleet
from controller.model.errors import BadInput, HostFailed
from controller.model.project import Project
from controller.model.run import RunPlan, RunResult

EXPERIMENT = Path(__file__).parents[2] / "fixtures" / "experiment" / "good" / "smallest.json"


def test_a_written_file_keeps_its_mode_and_leaves_no_other_behind(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    write_atomically(path, "one")
    assert path.stat().st_mode & 0o777 == 0o644
    path.chmod(0o600)
    write_atomically(path, b"two")
    assert path.read_text() == "two"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings"]


def test_a_block_that_fails_leaves_the_old_content(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    write_atomically(path, "old")
    with pytest.raises(KeyError), replacing(path) as file:
        file.write(b"half of the new")
        raise KeyError
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["settings"]


def test_a_full_disk_is_told_with_the_place_and_the_old_content_stays(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    write_atomically(path, "old")
    with pytest.raises(HostFailed) as caught, replacing(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert "No space left on device" in str(caught.value)
    assert "free space" in caught.value.next_step
    assert path.read_text() == "old"


def test_a_missing_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostFailed, match="create the folder"):
        write_atomically(tmp_path / "no" / "file", "x")


def test_an_unknown_fleet_is_answered_with_the_nearest_one(project: Project) -> None:
    with pytest.raises(BadInput) as caught:
        load_fleet(project, "wev")
    assert caught.value.next_step == "did you mean web?"


def test_an_empty_fleet_says_where_its_hosts_belong(project: Project) -> None:
    (project.inventory("web") / "hosts.yml").write_text("all: {hosts: {}}\n")
    with pytest.raises(BadInput, match="fleet web has no hosts"):
        load_fleet(project, "web")


def test_a_fleet_with_servers_and_no_hosts_is_to_be_provisioned(project: Project) -> None:
    (project.inventory("web") / "hosts.yml").unlink()
    with pytest.raises(BadInput, match=r"neither hosts.yml, another inventory, nor `servers`"):
        load_fleet(project, "web")
    settings = project.inventory("web") / "group_vars" / "all" / "ratchet.yml"
    settings.write_text("ratchet: {servers: {count: 1, prefer: [{type: cx23, location: fsn1}]}}\n")
    with pytest.raises(BadInput, match="controller provision --fleet web"):
        load_fleet(project, "web")


def test_a_missing_or_exposed_key_and_a_missing_known_hosts_are_told_with_the_command_that_mends_them(
    project: Project,
) -> None:
    project.key_file("web").chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        load_fleet(project, "web")
    project.key_file("web").unlink()
    with pytest.raises(BadInput, match="ssh-keygen -t ed25519"):
        load_fleet(project, "web")
    ensure_fleet_key(project, "web")
    project.known_hosts("web").unlink()
    with pytest.raises(BadInput, match="no host key is trusted"):
        load_fleet(project, "web")


def test_a_fleets_key_is_generated_once_and_private(project: Project) -> None:
    public, generated = ensure_fleet_key(project, "web")
    assert not generated
    assert public.startswith("ssh-ed25519 ")
    assert project.key_file("web").stat().st_mode & 0o777 == 0o600
    project.key_file("web").with_name("web.pub").unlink()
    assert ensure_fleet_key(project, "web") == (public, False)
    assert project.key_file("web").with_name("web.pub").read_text() == public


def test_known_hosts_holds_one_key_for_each_address_and_keeps_other_lines(tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    known.path.write_text("# by hand\n192.0.2.9 ssh-ed25519 NINE\n")
    assert known.trust("192.0.2.1", "ssh-ed25519 ONE comment")
    assert not known.trust("192.0.2.1", "ssh-ed25519 ONE")
    assert known.trust("192.0.2.1", "ssh-ed25519 TWO")
    assert known.key_of("192.0.2.1") == "ssh-ed25519 TWO"
    assert known.forget({"192.0.2.1"})
    assert not known.forget({"192.0.2.1"})
    assert known.path.read_text() == "# by hand\n192.0.2.9 ssh-ed25519 NINE\n"


def test_known_hosts_gives_up_one_address_and_keeps_the_other_names_of_its_line(tmp_path: Path) -> None:
    known = KnownHosts(tmp_path / "known_hosts")
    hashed = "|1|{}|{}".format(
        base64.b64encode(b"salt").decode(), base64.b64encode(hmac.digest(b"salt", b"192.0.2.1", "sha1")).decode()
    )
    others = "@revoked 192.0.2.1 ssh-ed25519 OLD\n\n@cert-authority * ssh-ed25519 CA\n#192.0.2.1 ssh-ed25519 NONE\n"
    known.path.write_text(f"{others}web-1,192.0.2.1 ssh-ed25519 ONE mine\n{hashed} ssh-ed25519 ONE\n")
    assert known.key_of("192.0.2.1") == known.key_of("web-1") == "ssh-ed25519 ONE"
    assert known.trust("192.0.2.1", "ssh-ed25519 TWO")
    assert known.path.read_text() == f"{others}web-1 ssh-ed25519 ONE mine\n192.0.2.1 ssh-ed25519 TWO\n"
    known.path.write_text(f"{others}192.0.2.1,web-1 ssh-ed25519 ONE\n{hashed} ssh-ed25519 ONE\n")
    assert known.forget({"192.0.2.1"})
    assert known.path.read_text() == f"{others}web-1 ssh-ed25519 ONE\n"


def test_a_known_hosts_that_ssh_reads_otherwise_is_told(project: Project) -> None:
    known = KnownHosts(project.known_hosts("web"))
    known.path.write_text("\ufeff192.0.2.1 ssh-ed25519 ONE\n192.0.2.2 ssh-ed25519 TWO\n")
    for read in (
        lambda: load_fleet(project, "web"),
        lambda: known.key_of("192.0.2.1"),
        lambda: known.trust("192.0.2.1", "ssh-ed25519 ONE"),
    ):
        with pytest.raises(BadInput, match="byte order mark") as caught:
            read()
    # A server that is deleted is forgotten whatever the file is like.
    assert known.forget({"192.0.2.2"})
    assert known.path.read_bytes() == b"192.0.2.1 ssh-ed25519 ONE\n"
    known.path.write_text("\ufeff192.0.2.1 ssh-ed25519 ONE\n")
    subprocess.run(["sh", "-c", caught.value.next_step.partition(": ")[2]], check=True)
    load_fleet(project, "web")


def test_a_seed_is_known_until_its_successor_is_trusted(project: Project) -> None:
    seeds = HostSeeds(project, "web")
    assert seeds.seed("web-1") == seeds.successor("web-1") == ""
    private, public = seeds.create("web-1")
    assert "OPENSSH PRIVATE KEY" in private
    assert seeds.seed("web-1") == public.strip()
    seeds.announce("web-1", "ssh-ed25519 NEXT")
    assert seeds.successor("web-1") == "ssh-ed25519 NEXT"
    seeds.forget("web-1")
    assert seeds.seed("web-1") == seeds.successor("web-1") == ""


def keep(project: Project, parameters: dict[str, Any], comment: str) -> None:
    write_kept_text(project, "web", with_kept(project, "web", parameters=parameters, comment=comment))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# only a comment\n",
        "---\n",
        "{}\n",
        "{nginx_gzip: true}\n",
        "nginx_gzip: true\n...\n",
        "nginx_a: &x 5\nnginx_b: *x\n",
        "nginx_gzip_types: [\n'text/css',\n'text/plain'\n]\n",
        "nginx_a: 'one\ntwo'",
        "---\n# mine\nnginx_a: 1\n",
        "null\n",
        "~  # only a comment\n",
        "---\n...\n",
        "# mine\n---\n!!null\n# end\n...\n",
        "%YAML 1.1\n---\n",
        "nginx_a: yes  # why\n\n# about b\nnginx_b: 0755\n# end\n",
        "nginx_a:\n  - x\n  - y\nnginx_c: 1",
        " nginx_a: 5\n nginx_b: 6\n",
    ],
)
def test_whatever_people_made_of_the_file_it_reads_back_as_what_it_said_and_what_was_kept(
    text: str, project: Project
) -> None:
    path = kept_file(project, "web")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    before = read_kept(project, "web")
    new: dict[str, Any] = {"nginx_gzip_types": ["text/xml"], "nginx_a": 7, "nginx_b": "off"}
    for _ in range(2):
        keep(project, new, "r-1, e/v: 5 %\nlower")
        assert read_kept(project, "web") == before | new == yaml.safe_load(path.read_text())
    assert all(comment in path.read_text() for comment in re.findall("# (?:mine|about b|end|only a comment)", text))


def test_kept_parameters_lie_over_earlier_ones_and_leave_the_operators_lines_alone(project: Project) -> None:
    path = kept_file(project, "web")
    assert read_kept_text(project, "web") == ""
    first = {"nginx_gzip_comp_level": 4, "nginx_gzip_types": ["text/css", "text/xml"]}
    keep(project, first, "r-1, gzip-level/level-4, p50 24.0 % lower")
    path.write_text(path.read_text() + "# mine\nnginx_sendfile:\n  true\n# also mine\n")
    keep(project, {"nginx_gzip_comp_level": 3, "nginx_sendfile": False}, "r-2, e/v")
    text = path.read_text()
    assert read_kept(project, "web") == {
        "nginx_gzip_comp_level": 3,
        "nginx_gzip_types": ["text/css", "text/xml"],
        "nginx_sendfile": False,
    }
    assert "nginx_gzip_comp_level: 3 # r-2, e/v\n" in text
    assert text.count("nginx_gzip_comp_level") == 1
    assert "# mine\nnginx_sendfile: false # r-2, e/v\n# also mine\n" in text
    assert yaml.safe_load(text) == read_kept(project, "web")


@pytest.mark.parametrize(("written", "kept"), [("1", True), ("true", 1), ("1.0", 1), ("0", False)])
def test_a_value_that_only_python_takes_for_the_same_is_written(written: str, kept: Any, project: Project) -> None:
    kept_file(project, "web").write_text(f"nginx_a: {written}\n")
    keep(project, {"nginx_a": kept}, "r-1, e/v")
    assert type(read_kept(project, "web")["nginx_a"]) is type(kept)
    assert "# r-1, e/v" in kept_file(project, "web").read_text()


def test_deleting_a_line_of_the_kept_parameters_undoes_exactly_that_one(project: Project) -> None:
    parameters: dict[str, Any] = {
        "nginx_gzip_types": ["a/b", "c/d"],
        "nginx_gzip": True,
    }
    keep(project, parameters, "r-1, e/v")
    path = kept_file(project, "web")
    lines = [line for line in path.read_text().splitlines() if not line.startswith("nginx_gzip_types")]
    path.write_text("\n".join(lines) + "\n")
    assert read_kept(project, "web") == {"nginx_gzip": True}


def _run(project: Project, run_id: str, *, sealed: bool) -> None:
    folder = project.runs / run_id
    folder.mkdir(parents=True)
    plan = RunPlan(
        run_id=run_id,
        fleet="web",
        seed=1,
        created_at="",
        ratchet_version="",
        hosts=[],
        lease_seconds=60,
        alpha=0.05,
        trials=[],
    )
    (folder / "plan.json").write_text(plan.model_dump_json())
    if sealed:
        result = RunResult(
            run_id=run_id,
            fleet="web",
            seed=1,
            status="completed",
            started_at="",
            seconds=1,
            trials=[],
            baseline_before={},
            baseline_after={},
        )
        (folder / "verdict.json").write_text(result.model_dump_json())


def test_runs_are_listed_newest_first_and_a_damaged_one_hides_no_other(project: Project) -> None:
    _run(project, "r-20260101-000000-aaaa", sealed=True)
    _run(project, "r-20260102-000000-bbbb", sealed=False)
    (project.runs / "r-20260103-000000-cccc").mkdir()
    (project.runs / "r-20260103-000000-cccc" / "plan.json").write_text("{")
    plans = [plan.run_id if plan else "" for plan, _ in list_runs(project)]
    assert plans == ["r-20260102-000000-bbbb", "r-20260101-000000-aaaa"]
    with pytest.raises(BadInput, match="is damaged"):
        read_run(project, "last")


def test_a_run_is_found_by_its_id_a_unique_beginning_or_last(project: Project) -> None:
    _run(project, "r-20260101-000000-aaaa", sealed=True)
    _run(project, "r-20260102-000000-bbbb", sealed=False)
    assert read_run(project, "r-20260101")[1] is not None
    plan, result = read_run(project, "last")
    assert (plan.run_id, result) == ("r-20260102-000000-bbbb", None)
    with pytest.raises(BadInput, match="is the beginning of 2 runs"):
        read_run(project, "r-2026")
    with pytest.raises(BadInput, match="did you mean r-20260102-000000-bbbb"):
        read_run(project, "r-20260102-000000-bbbc")


def test_experiments_come_in_the_order_asked_for_each_once(project: Project) -> None:
    for name in ("one", "two"):
        folder = project.root / "experiments" / name
        folder.mkdir(parents=True)
        (folder / "meta.json").write_text(EXPERIMENT.read_text())
    assert [one.name for one in load_experiments(project, ["two", "one", "two"])] == ["two", "one"]
    assert [one.name for one in load_experiments(project, None)] == ["one", "two"]
    with pytest.raises(BadInput, match="did you mean two"):
        load_experiments(project, ["twoo"])
