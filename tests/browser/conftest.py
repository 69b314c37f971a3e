"""What the browser looks at: pages written by the dashboard role and the report, served by a real nginx on loopback."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By

from controller.model.run import RunResult
from controller.model.trial import Effect, GoalEffect
from controller.report.page import report_page
from controller.report.state import dashboard_state

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or ""
CHROMEDRIVER = shutil.which("chromedriver") or ""
FLAGS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]
# What an error message, a parameter or a file of an operator may hold at worst.
HOSTILE = "<script>window.harmed=1</script><img src=x onerror='window.harmed=1'>\"'&amp;{{ 7 * 7 }}{% raw %}"

NGINX = """\
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
user root;
events {{ worker_connections 64; }}
http {{
    types {{ text/html html; application/json json; }}
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        root {folder}/www;
        charset utf-8;
        location / {{
            add_header Cache-Control "no-cache" always;
            add_header X-Content-Type-Options nosniff always;
            try_files $uri $uri/index.html =404;
        }}
    }}
}}
"""


def _examples() -> ModuleType:
    """The run that the report's unit tests render."""
    spec = importlib.util.spec_from_file_location("example_run", ROOT / "tests/unit/report/conftest.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Site:
    """Pages below one address; `folder` is what nginx serves."""

    address: str
    folder: Path
    examples: ModuleType
    hostile: str = HOSTILE

    def url(self, page: str) -> str:
        return f"{self.address}/{page}"

    def state(self, host: str, *, generated_at: str = "", **changes: Any) -> str:
        """A state of the example run as JSON text, written now unless told otherwise."""
        fields: dict[str, Any] = {
            "fleet": "lab",
            "host": host,
            "configuration": "fedcba9876543210",
            "parameters_kept": {"nginx_gzip_comp_level": 4, "nginx_gzip_types": ["text/css", "text/html"]},
            "runs": [
                _with_goals(self.examples.example_result()),
                self.examples.example_result(status="failed", trials=[]),
            ],
            "generated_at": generated_at or _now(),
        }
        return dashboard_state(**fields | changes)

    def write(self, name: str, text: str) -> None:
        """Replace a file in one step, as Ansible does."""
        path = self.folder / name
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_name(f".{path.name}.new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    if not shutil.which("nginx"):
        pytest.skip("nginx is not installed")
    if os.geteuid() != 0:
        pytest.skip("the role writes files as root")
    base = tmp_path_factory.mktemp("site")
    base.chmod(0o755)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    site = Site(f"http://127.0.0.1:{port}", base / "www", _examples())
    site.folder.mkdir()
    _write_reports(site)
    _write_dashboards(site, base)
    (base / "nginx.conf").write_text(NGINX.format(folder=base, port=port))
    server = subprocess.Popen(
        ["nginx", "-c", base / "nginx.conf", "-p", base, "-e", base / "error.log"], stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port)
        yield site
    finally:
        server.terminate()
        server.wait(timeout=10)


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise AssertionError("nginx did not start")


def _with_goals(result: RunResult) -> RunResult:
    """Its second trial was judged by two goals."""
    goals = [
        GoalEffect(metric="p50", effect=Effect(estimate=0.3, low=0.2, high=0.4), standing="better"),
        GoalEffect(metric="memory", effect=Effect(estimate=-0.1, low=-0.2, high=-0.05), standing="worse"),
    ]
    first, second, *rest = result.trials
    return result.model_copy(update={"trials": [first, second.model_copy(update={"goals": goals}), *rest]})


def _hostile_result(site: Site) -> Any:
    result = _with_goals(site.examples.example_result(status="failed", message=HOSTILE))
    trials = [trial.model_copy(update={"note": HOSTILE, "reason": "host-failed"}) for trial in result.trials]
    trials[0] = trials[0].model_copy(update={"parameters": {"nginx_log_format": HOSTILE}})
    return result.model_copy(update={"trials": trials})


def _write_reports(site: Site) -> None:
    examples = site.examples
    plan, pairs = examples.example_plan(), examples.example_all_pairs()
    site.write("report/index.html", report_page(plan, examples.example_result(), pairs))
    texts = {"question": HOSTILE, "why": HOSTILE, "sources": [HOSTILE]}
    trials = [
        trial.model_copy(update={"experiment": trial.experiment.model_copy(update=texts)}) for trial in plan.trials
    ]
    hostile = plan.model_copy(update={"trials": trials})
    site.write("hostile-report/index.html", report_page(hostile, _hostile_result(site), pairs))


def _write_dashboards(site: Site, base: Path) -> None:
    """Run the role itself, as the controller does, on this machine and for several hosts at once."""
    states = {
        "dashboard": site.state("dashboard"),
        "old": site.state("old", generated_at="2026-01-01T00:00:00Z"),
        "hostile": site.state("hostile", parameters_kept={"nginx_x": HOSTILE}, runs=[_hostile_result(site)]),
    }
    inventory = base / "inventory" / "lab"
    inventory.mkdir(parents=True)
    local = {"ansible_connection": "local", "ansible_python_interpreter": sys.executable}
    hosts = dict.fromkeys((*states, "welcome"), local)
    (inventory / "hosts.yml").write_text(json.dumps({"all": {"hosts": hosts}}))
    variables = {
        "dashboard_states": states,
        "dashboard_root": str(site.folder) + "/{{ inventory_hostname }}",
        "dashboard_refresh_seconds": 1,
    }
    (base / "variables.json").write_text(json.dumps(variables))
    done = subprocess.run(
        [
            *(Path(sys.executable).parent / "ansible-playbook", "-i", inventory, "-e", f"@{base / 'variables.json'}"),
            ROOT / "playbooks/dashboard.yml",
        ],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]


class Browser:
    """One Chromium, with what a test asks of it."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, url: str, *, width: int = 390, scheme: str = "light", scripts: bool = True) -> None:
        """Load a page afresh on a screen of that width."""
        run = self.driver.execute_cdp_cmd
        size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 800}
        run("Emulation.setDeviceMetricsOverride", size)
        run("Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]})
        run("Emulation.setScriptExecutionDisabled", {"value": not scripts})
        self.complaints()
        self.driver.get(url)

    def complaints(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    @property
    def text(self) -> str:
        return " ".join(self.driver.find_element(By.TAG_NAME, "body").text.split())

    def script(self, text: str, *arguments: object) -> Any:
        return self.driver.execute_script(text, *arguments)

    def wait_for(self, words: str, *, gone: bool = False, seconds: float = 8) -> None:
        """Until the page shows, or no longer shows, these words."""
        deadline = time.monotonic() + seconds
        while (words in self.text) == gone:
            assert time.monotonic() < deadline, f"{words!r} {'stays' if gone else 'does not come'}: {self.text[:500]}"
            time.sleep(0.1)


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if not (CHROMIUM and CHROMEDRIVER):
        pytest.skip("chromium and chromedriver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in [*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.set_page_load_timeout(20)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
