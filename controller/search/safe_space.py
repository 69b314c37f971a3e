"""The safe space: what a proposal would cost a host in memory and descriptors, by arithmetic, before it is pushed.

The worst case counts: every connection of every worker busy at once. What the baseline costs already is allowed; beyond
that a proposal stays within a share of the host's memory and within its limit of open files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from controller.model.experiment import Constraint, ParameterValue
from controller.model.ranges import amount, size_bytes

Parameters = Mapping[str, ParameterValue]

MEMORY_SHARE = 0.75
# Descriptors beside connections and cached files: listening sockets, logs, the channel to the master, event queues.
OTHER_FILES = 64


@dataclass(frozen=True)
class Capacity:
    """What the smallest host of the trial has.

    Args:
        memory_bytes: its memory, or its limit where that is smaller.
        cpus: what `auto` workers are.
        open_files: the limit of a worker that sets none of its own; also the most that it may set.
    """

    memory_bytes: int
    cpus: int
    open_files: int


def _amount(value: ParameterValue, capacity: Capacity) -> float:
    return amount(value, cpus=capacity.cpus)


def unsafe(
    parameters: Parameters, baseline: Parameters, capacity: Capacity, constraints: list[Constraint] | None = None
) -> str:
    """Why these parameters may not be pushed; empty when they may.

    Args:
        parameters: complete: the role's defaults, the inventory's values, and the proposal over them.
        baseline: the same without the proposal.
    """
    for constraint in constraints or []:
        product = math.prod(_amount(parameters[name], capacity) for name in constraint.product)
        if product > size_bytes(constraint.at_most):
            return f"{' x '.join(constraint.product)} is {product:.0f}, more than {constraint.at_most}"
    memory, allowed = worst_memory(parameters, capacity), MEMORY_SHARE * capacity.memory_bytes
    if memory > max(allowed, worst_memory(baseline, capacity)):
        return (
            f"with every connection busy its buffers take {memory / 2**20:.0f} MiB, more than {MEMORY_SHARE:.0%} of "
            f"the host's {capacity.memory_bytes / 2**20:.0f} MiB"
        )
    files, limit = worst_files(parameters, capacity)
    files_before, limit_before = worst_files(baseline, capacity)
    if files > limit and files - limit > files_before - limit_before:
        return f"a worker could need {files} open files, and may have {limit}"
    own = int(_amount(parameters.get("nginx_worker_rlimit_nofile", 0), capacity))
    own_before = int(_amount(baseline.get("nginx_worker_rlimit_nofile", 0), capacity))
    if own > max(capacity.open_files, own_before):
        return f"nginx_worker_rlimit_nofile is {own}, and the host allows {capacity.open_files}"
    return ""


def worst_memory(parameters: Parameters, capacity: Capacity) -> float:
    """Bytes of buffers with every connection of every worker busy.

    A proxied request takes two connections, a file one; whichever costs a connection more counts. Shared zones and
    log buffers are added once.
    """

    def value(name: str, otherwise: ParameterValue) -> float:
        return _amount(parameters.get(name, otherwise), capacity)

    head = value("nginx_client_header_buffer_size", "1k")
    gzip = value("nginx_gzip_buffers", "16 8k") if parameters.get("nginx_gzip", True) else 0.0
    file = value("nginx_output_buffers", "2 32k")
    proxied = value("nginx_proxy_buffer_size", "4k") + value("nginx_client_body_buffer_size", "16k")
    if parameters.get("nginx_proxy_buffering", True):
        proxied += value("nginx_proxy_buffers", "8 4k")
    busiest = max(head + gzip + file, (head + gzip + proxied) / 2)
    workers = value("nginx_worker_processes", "auto")
    shared = value("nginx_access_log_buffer", "0") * workers
    if parameters.get("nginx_proxy_cache", False):
        shared += value("nginx_proxy_cache_zone_size", "10m")
    if parameters.get("nginx_ssl_session_cache", True):
        shared += value("nginx_ssl_session_cache_size", "10m")
    return workers * value("nginx_worker_connections", 1024) * busiest + shared


def worst_files(parameters: Parameters, capacity: Capacity) -> tuple[int, int]:
    """(open files that one worker could need, how many it may have)."""
    files = _amount(parameters.get("nginx_worker_connections", 1024), capacity) + OTHER_FILES
    if parameters.get("nginx_open_file_cache", False):
        files += _amount(parameters.get("nginx_open_file_cache_max", 1000), capacity)
    own = int(_amount(parameters.get("nginx_worker_rlimit_nofile", 0), capacity))
    return int(files), own or capacity.open_files
