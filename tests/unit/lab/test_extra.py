"""The lab's server is an extra: without it, the lab's own command says what to install, and nothing else misses it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controller.cli.main import main

CHECKOUT = Path(__file__).parents[3]
WITHOUT = "import sys; sys.modules['starlette'] = sys.modules['uvicorn'] = None\n"


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
@pytest.mark.parametrize("verb", ["up", "api"])
def test_a_lab_without_its_server_says_what_to_install(
    package: str, verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["lab", verb]) == 2
    told = capsys.readouterr().err
    assert f"the lab's API needs {package}, which is not installed" in told
    assert "pip install 'nginx-ratchet[lab]'" in told


def test_nothing_but_the_labs_server_imports_it() -> None:
    modules = [
        ".".join(path.relative_to(CHECKOUT).with_suffix("").parts)
        for path in sorted((CHECKOUT / "controller").rglob("*.py"))
        if not path.name.startswith("__") and path.parent.name + "/" + path.name not in {"lab/api.py", "lab/serve.py"}
    ]
    program = WITHOUT + "import importlib\nfor name in sys.argv[1:]: importlib.import_module(name)"
    done = subprocess.run(
        [sys.executable, "-c", program, *modules], cwd=CHECKOUT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
