"""Parameters of arms come from experiments: they are checked, laid over the inventory's, and never evaluated."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import pytest

ROOT = Path(__file__).resolve().parents[3]
INVENTORY = """
all:
  hosts:
    here: {nginx_gzip_comp_level: '{{ 2 * 3 }}'}
    there: {nginx_gzip_comp_level: 5}
    elsewhere: {nginx_gzip_comp_level: 5}
  vars: {ansible_connection: local, ansible_become: false}
"""


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("arms") / "inventory" / "hosts.yml"
    path.parent.mkdir()
    path.write_text(INVENTORY)
    return path


def push(inventory: Path, arms: object) -> subprocess.CompletedProcess[str]:
    """Check mode on this machine: everything up to the host's program, which is not installed here."""
    environment = {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", "HOME": os.environ.get("HOME", "/"),
        "ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "ANSIBLE_ROLES_PATH": str(ROOT / "roles"), "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
    }  # fmt: skip
    return subprocess.run(
        ["ansible-playbook", "-i", str(inventory), str(ROOT / "playbooks/push.yml"), "--check", "-vvv", "-e",
         json.dumps({"variant_arms": arms})],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def arm(**parameters: Any) -> list[dict[str, Any]]:
    return [{"name": "variant", "parameters": parameters}]


def test_parameters_are_laid_over_the_inventory_s_which_may_be_templates(inventory: Path) -> None:
    done = push(inventory, [{"name": "baseline"}, *arm(nginx_gzip_types=["text/css"])])
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("gzip_comp_level 6;") == 2 and done.stdout.count("gzip_comp_level 5;") == 4
    assert done.stdout.count("gzip_types text/css;") == 3


def test_a_template_in_a_parameter_is_refused_and_never_evaluated(inventory: Path, tmp_path: Path) -> None:
    witness = tmp_path / "evaluated"
    expression = "{{ lookup('ansible.builtin.pipe', 'touch " + str(witness) + "') }}"
    for arms in (
        arm(nginx_keepalive_timeout=expression),
        arm(nginx_gzip_types=["text/css", expression]),
        [{"name": expression, "parameters": {}}],
    ):
        done = push(inventory, arms)
        assert done.returncode == 2 and "template expressions are not evaluated here" in done.stdout
    assert not witness.exists()


@pytest.mark.parametrize(
    ("arms", "told"),
    [
        (arm(nginx_gzip_comp_level=10), "nginx_gzip_comp_level: 10 is not between 1 and 9"),
        (arm(nginx_gzip_comp_levl=1), "did you mean nginx_gzip_comp_level?"),
        (arm(ansible_user="root"), "is not a parameter of role nginx"),
        ([*arm(), *arm()], "expected a name of its own for each arm"),
    ],
)
def test_what_is_no_parameter_is_refused_by_name(inventory: Path, arms: object, told: str) -> None:
    done = push(inventory, arms)
    assert done.returncode == 2 and told in " ".join(done.stdout.split())


HOSTILE = {
    "semicolon": '"1; include /etc/shadow"',
    "newline": '"1\\n}\\nload_module /tmp/x.so;"',
    "line-separator": '"1\\u2028include x"',
    "nul": '"1\\0"',
    "shell": '"$(id)"',
    "variable": '"${http_host}"',
    "comment": '"1 # 2"',
    "lua": "\"content_by_lua_block { os.execute('id') }\"",
    "traversal": '"../../etc/shadow"',
    "mapping": "{a: 1}",
    "endless": hex(16**5000),
    "long": '"' + "1" * 100_000 + '"',
    "unsafe-template": "!unsafe \"{{ lookup('pipe', 'touch WITNESS') }}\"",
    "unsafe-text": '!unsafe "1; include x"',
    "made-by-template": "\"{{ '1; in' ~ 'clude x' }}\"",
}


def test_a_hostile_value_in_the_inventory_fails_its_host_by_the_parameter_s_name(tmp_path: Path) -> None:
    witness = tmp_path / "evaluated"
    path = tmp_path / "inventory" / "hosts.yml"
    path.parent.mkdir()
    lines = [f"    {host}: {{nginx_keepalive_timeout: {value}}}" for host, value in HOSTILE.items()]
    tail = "  vars: {ansible_connection: local, ansible_become: false}"
    text = "\n".join(["all:", "  hosts:", *lines, "    sane: {}", tail, ""])
    path.write_text(text.replace("WITNESS", str(witness)))
    done = push(path, arm())
    assert "Traceback" not in done.stdout + done.stderr
    assert "include" not in "".join(line for line in done.stdout.splitlines() if line.startswith("+"))
    for host in HOSTILE:
        told = re.search(rf"fatal: \[{host}\].*?(?=\nfatal:|\nok:|\nchanged:|\Z)", done.stdout, re.DOTALL)
        assert told and "nginx_keepalive_timeout" in told[0], host
    assert re.search(r"^(ok|changed): \[sane\]", done.stdout, re.MULTILINE)
    assert not witness.exists()


def test_the_configuration_depends_on_parameters_alone_so_that_hosts_may_share_a_rendering() -> None:
    text = (ROOT / "roles/nginx/templates/nginx.conf.j2").read_text()
    environment = jinja2.Environment(autoescape=True)
    environment.filters["nginx_value"] = str
    tree = environment.parse(text)
    own = {node.name for node in tree.find_all(jinja2.nodes.Name) if node.ctx != "load"}
    names = jinja2.meta.find_undeclared_variables(tree) - own
    assert names and all(name.startswith("nginx_") for name in names)
