"""One lab and one PostgreSQL for the whole test session."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from tests.postgres import Cluster, newest_programs

# Who starts the tests in the background of a shell has them ignore Ctrl-C, and all that they start with them.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def lab_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One lab for all tests of this process (a `LabFleet`); hosts come on demand: `lab_session.hosts(2)`."""
    from benchmarks.lab_session import LabSession
    from tests.integration.conftest import LabFleet

    with LabSession(f"tests-{os.getpid()}") as session:
        yield LabFleet(session, tmp_path_factory.mktemp("lab"))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[Cluster]:
    programs = newest_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (scripts/system-packages --tests)")
    cluster = Cluster(programs)
    yield cluster
    cluster.close()
