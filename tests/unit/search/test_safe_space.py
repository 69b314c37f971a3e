"""What a proposal would cost a host is known before anything is pushed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.model.experiment import Constraint
from controller.model.ranges import amount, size_bytes
from controller.search.safe_space import Capacity, unsafe, worst_memory

SMALL = Capacity(memory_bytes=512 << 20, cpus=1, open_files=4096)
DEFAULTS = {
    "nginx_worker_processes": "auto",
    "nginx_worker_connections": 1024,
    "nginx_worker_rlimit_nofile": 4096,
    "nginx_gzip": True,
    "nginx_gzip_buffers": "16 8k",
    "nginx_output_buffers": "2 32k",
    "nginx_proxy_buffers": "8 4k",
    "nginx_open_file_cache": False,
    "nginx_open_file_cache_max": 1000,
}


def refused(**changes: object) -> str:
    changed = {f"nginx_{name}": value for name, value in changes.items()}
    return unsafe(DEFAULTS | changed, DEFAULTS, SMALL)  # type: ignore[arg-type]


def test_the_baseline_is_always_allowed() -> None:
    assert refused() == ""
    tiny = Capacity(memory_bytes=16 << 20, cpus=1, open_files=64)
    assert unsafe(DEFAULTS, DEFAULTS, tiny) == ""


def test_buffers_that_could_eat_the_memory_are_refused_with_the_figures() -> None:
    assert "MiB, more than 75%" in refused(output_buffers="2 512k")
    assert "MiB" in refused(worker_connections=4000)
    assert refused(output_buffers="2 64k") == ""


def test_more_workers_cost_more() -> None:
    assert refused(worker_processes=1) == ""
    assert "MiB" in refused(worker_processes=2)


def test_descriptors_are_counted_against_the_limit() -> None:
    assert "open files" in refused(open_file_cache=True, open_file_cache_max=100_000)
    assert refused(open_file_cache=True, open_file_cache_max=2000) == ""
    assert "allows 4096" in refused(worker_rlimit_nofile=1_048_576)


def test_an_experiments_constraint_is_a_product() -> None:
    constraint = Constraint(product=["nginx_worker_connections", "nginx_proxy_buffers"], at_most="32m")
    assert unsafe(DEFAULTS, DEFAULTS, SMALL, [constraint]) == ""
    more = DEFAULTS | {"nginx_proxy_buffers": "8 8k"}
    assert "more than 32m" in unsafe(more, DEFAULTS, SMALL, [constraint])


@pytest.mark.parametrize(
    ("value", "number"),
    [("32k", 32768), ("8 4k", 32768), (True, 1), (7, 7), ("auto", 3), ("2", 2), ("1m", 1 << 20), ("1g", 1 << 30)],
)
def test_amounts(value: str | int, number: float) -> None:
    assert amount(value, cpus=3) == number


@pytest.mark.parametrize("text", ["", "65s", "-1", "1kk", "k"])
def test_what_is_no_size_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        size_bytes(text)


@given(
    connections=st.integers(64, 1 << 20),
    workers=st.integers(1, 512),
    buffers=st.sampled_from(["1 4k", "2 32k", "8 1m"]),
    memory=st.integers(1 << 24, 1 << 40),
)
def test_what_passes_fits_the_host_or_costs_no_more_than_the_baseline(
    connections: int, workers: int, buffers: str, memory: int
) -> None:
    capacity = Capacity(memory_bytes=memory, cpus=2, open_files=1 << 21)
    parameters = DEFAULTS | {
        "nginx_worker_connections": connections,
        "nginx_worker_processes": workers,
        "nginx_output_buffers": buffers,
        "nginx_worker_rlimit_nofile": 0,
    }
    if not unsafe(parameters, DEFAULTS, capacity):
        need = worst_memory(parameters, capacity)
        assert need <= 0.75 * memory or need <= worst_memory(DEFAULTS, capacity)
