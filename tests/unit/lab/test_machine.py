from __future__ import annotations

from pathlib import Path

import pytest

from controller.lab import machine
from controller.lab.machine import limits_for

GB = 2**30


def test_three_of_the_smallest_type_fit_a_machine_with_two_cores() -> None:
    limits = limits_for(2, 4, machine_cores=2, machine_memory=8 * GB)
    assert 0.5 <= limits.cpus <= 1
    assert 3 * limits.cpus <= 2.05
    assert GB // 2 <= limits.memory <= GB
    assert 3 * limits.memory <= 8 * GB


@pytest.mark.parametrize(("cores", "memory"), [(1, 2 * GB), (2, 8 * GB), (64, 256 * GB)])
def test_a_bigger_type_never_gets_less_and_none_gets_more_than_the_machine_has(cores: int, memory: int) -> None:
    sizes = [limits_for(n, 2.0 * n, machine_cores=cores, machine_memory=memory) for n in (1, 2, 4, 8, 16)]
    assert sizes == sorted(sizes, key=lambda limits: (limits.cpus, limits.memory))
    assert all(limits.cpus <= cores and limits.memory <= memory / 2 for limits in sizes)


def test_a_machine_without_the_parts_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(machine, "LIBRARIES", ())
    monkeypatch.setattr(machine, "_podman_has_a_runtime", lambda: False)
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)
    with pytest.raises(machine.HostFailed) as caught:
        machine.require_parts()
    assert "podman" in caught.value.what and "mmdebstrap" in caught.value.what
    assert caught.value.next_step.startswith("apt-get update && apt-get install")
    assert " --no-remove " in caught.value.next_step
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("hybrid", "there", "podman_starts", "missing"),
    [
        (True, {"runc"}, True, []),
        (True, {"crun"}, True, ["runc"]),
        (False, {"crun"}, True, []),
        (False, {"runc"}, False, ["crun"]),
        (False, {"runc"}, True, []),
        (False, set(), False, ["crun"]),
    ],
)
def test_any_runtime_will_do_that_podman_can_start(
    monkeypatch: pytest.MonkeyPatch, hybrid: bool, there: set[str], podman_starts: bool, missing: list[str]
) -> None:
    programs = {*machine.PROGRAMS, *machine.NETWORK_PROGRAMS, *there}
    monkeypatch.setattr(machine.shutil, "which", lambda program, **_: program if program in programs else None)
    monkeypatch.setattr(machine, "_cgroups_are_hybrid", lambda: hybrid)
    monkeypatch.setattr(machine, "_podman_has_a_runtime", lambda: podman_starts)
    assert machine.missing_packages() == missing


def test_roots_programs_are_found_by_an_accounts_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    searched = []
    monkeypatch.setattr(machine.shutil, "which", lambda _, path: searched.append(path) or "/usr/sbin/runc")
    monkeypatch.setattr(machine, "_cgroups_are_hybrid", lambda: True)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.global_options.__wrapped__() == ("--runtime", "runc")
    assert searched[0].split(":")[0] == str(tmp_path)
    assert "/usr/sbin" in searched[0].split(":")
