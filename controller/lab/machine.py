"""What this machine offers and needs: missing packages, podman's options for systemd containers, room for hosts."""

from __future__ import annotations

import os
import resource
import shutil
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from controller.lab.commands import CommandFailed, run
from controller.model.errors import HostFailed

# program -> the Debian package that brings it
PROGRAMS = {"podman": "podman", "mmdebstrap": "mmdebstrap", "nft": "nftables", "iptables": "iptables", "ip": "iproute2"}
NETWORK_PROGRAMS = {"netavark": "netavark"}
LIBRARIES = (Path("/usr/lib/podman"), Path("/usr/libexec/podman"))

# A lab host gets this share of its type's cores and memory: three of the smallest fit a machine with two cores.
SMALLEST_PER_MACHINE = 3
SMALLEST_CORES, SMALLEST_MEMORY_GB = 2, 4
CORE_SHARE = (0.25, 0.5)
MEMORY_SHARE = (1 / 8, 1 / 4)


def _find(program: str) -> str | None:
    """Where a program is. `sudo env PATH=$PATH` brings an account's own PATH, which need not have root's folders."""
    return shutil.which(program, path=os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin")


def missing_packages() -> list[str]:
    """Debian packages that the lab needs and this machine lacks, sorted. A program may come from anywhere."""
    missing = {package for program, package in PROGRAMS.items() if not _find(program)}
    for program, package in NETWORK_PROGRAMS.items():
        if not any((folder / program).exists() for folder in LIBRARIES) and not _find(program):
            missing.add(package)
    if _cgroups_are_hybrid():
        missing |= set() if _find("runc") else {"runc"}
    elif not _find("crun") and not _podman_has_a_runtime():
        missing.add("crun")
    return sorted(missing)


def _podman_has_a_runtime() -> bool:
    """Without crun podman refuses every command, unless its settings name another runtime."""
    try:
        run(["podman", "info"])
    except CommandFailed:
        return False
    return True


def require_parts() -> None:
    """Raises HostFailed naming the missing packages and the command that installs them."""
    if os.geteuid() != 0:
        raise HostFailed(
            "the lab needs root: its hosts run systemd, nftables and sshd of their own",
            where="lab",
            next_step="sudo env PATH=$PATH controller lab up",
        )
    missing = missing_packages()
    if missing:
        raise HostFailed(
            f"this machine lacks {', '.join(missing)}",
            where="lab",
            next_step=f"apt-get update && apt-get install --no-install-recommends --no-remove {' '.join(missing)}",
        )


def _cgroups_are_hybrid() -> bool:
    return not Path("/sys/fs/cgroup/cgroup.controllers").exists()


@cache
def global_options() -> tuple[str, ...]:
    """podman's options before the command: crun refuses hybrid cgroups, so runc does the work there."""
    return ("--runtime", "runc") if _cgroups_are_hybrid() and _find("runc") else ()


def run_options() -> list[str]:
    """`podman run` options that let systemd start under this process's own limits."""
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    _, processes = resource.getrlimit(resource.RLIMIT_NPROC)
    # podman lowers its own process limit to the kernel's highest process number; raising it again may be refused.
    highest = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))
    files = min(files, 524288) if files != resource.RLIM_INFINITY else 524288
    processes = min(processes, highest) if processes != resource.RLIM_INFINITY else highest
    return [f"--ulimit=nofile={min(1024, files)}:{files}", f"--ulimit=nproc={processes}:{processes}"]


@dataclass(frozen=True)
class Limits:
    """What one host may use: CPUs (fraction of cores) and memory (bytes)."""

    cpus: float
    memory: int


def _clamp(value: float, bounds: tuple[float, float]) -> float:
    return max(bounds[0], min(bounds[1], value))


def limits_for(cores: int, memory_gb: float, *, machine_cores: int, machine_memory: int) -> Limits:
    """Scale a server type to this machine, so that three of the smallest type fill it and bigger types stay bigger."""
    core_share = _clamp(machine_cores / (SMALLEST_PER_MACHINE * SMALLEST_CORES), CORE_SHARE)
    smallest_fit = SMALLEST_PER_MACHINE * SMALLEST_MEMORY_GB * 2**30
    memory_share = _clamp(machine_memory / 2 / smallest_fit, MEMORY_SHARE)
    return Limits(
        cpus=round(min(cores * core_share, machine_cores), 2),
        memory=int(min(memory_gb * memory_share * 2**30, machine_memory / 2)),
    )


def machine_limits(cores: int, memory_gb: float) -> Limits:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return limits_for(cores, memory_gb, machine_cores=os.cpu_count() or 1, machine_memory=memory)
