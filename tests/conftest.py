"""One lab for the whole test session."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session")
def lab_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One lab for all tests of this process (a `LabFleet`); hosts come on demand: `lab_session.hosts(2)`."""
    from controller.lab.session import LabSession
    from tests.integration.conftest import LabFleet

    with LabSession(f"tests-{os.getpid()}") as session:
        yield LabFleet(session, tmp_path_factory.mktemp("lab"))
