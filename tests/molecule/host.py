"""Boot or remove the host of one molecule scenario: the lab's own image, without the lab's API.

usage: host.py up|down SCENARIO FOLDER

`up` writes FOLDER/hosts.yml, an inventory that reaches the host as root, with a key and a known_hosts file beside it.
RATCHET_MOLECULE_IMAGE chooses the image (debian-12), or debian-12-bare: without the packages that the roles install.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from controller.lab.commands import podman, run  # noqa: E402 - the path comes first
from controller.lab.images import ensure_image  # noqa: E402
from controller.lab.machine import global_options, require_parts, run_options  # noqa: E402

BOOT_SECONDS = 40


WANTED = os.environ.get("RATCHET_MOLECULE_IMAGE", "debian-12")


def container(scenario: str) -> str:
    return f"ratchet-molecule-{scenario}-{WANTED}"


def up(scenario: str, folder: Path) -> None:
    """Boot a fresh host; one that an earlier run left is replaced."""
    require_parts()
    down(scenario, folder)
    folder.mkdir(parents=True)
    image = ensure_image(WANTED.removesuffix("-bare"), bare=WANTED.endswith("-bare"), say=print)
    key = folder / "key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "molecule", "-f", str(key)])
    name = container(scenario)
    podman(
        *global_options(),
        "create",
        f"--name={name}",
        f"--hostname={scenario.replace('_', '-')}",
        "--systemd=always",
        "--cap-add=NET_ADMIN",
        "--cap-add=SYS_ADMIN",
        "--security-opt=seccomp=unconfined",
        "--memory=768m",
        "--cpus=1",
        *run_options(),
        image,
        "/sbin/init",
    )
    empty = folder / "empty"
    empty.touch()
    # Nothing seeds this host, so cloud-init has nothing to wait for.
    podman("cp", str(empty), f"{name}:/etc/cloud/cloud-init.disabled")
    podman(*global_options(), "start", name)
    inside(
        name, "mkdir -pm 700 /root/.ssh && cat >/root/.ssh/authorized_keys && ssh-keygen -A", key.with_suffix(".pub")
    )
    wait_for_boot(name)
    address = json.loads(podman("inspect", name))[0]["NetworkSettings"]["Networks"]["podman"]["IPAddress"]
    host_key = inside(name, "cat /etc/ssh/ssh_host_ed25519_key.pub")
    (folder / "known_hosts").write_text(f"{address} {host_key}", encoding="utf-8")
    options = f"-o IdentitiesOnly=yes -o StrictHostKeyChecking=yes -o UserKnownHostsFile={folder / 'known_hosts'}"
    inventory = {
        "all": {
            "hosts": {scenario: {"ansible_host": address}},
            "vars": {
                "ansible_user": "root",
                "ansible_ssh_private_key_file": str(key),
                "ansible_ssh_common_args": options,
            },
        }
    }
    (folder / "hosts.yml").write_text(json.dumps(inventory, indent=2), encoding="utf-8")


def inside(name: str, script: str, stdin: Path | None = None) -> str:
    """Run a shell script on the host; returns what it printed."""
    with (stdin or Path(os.devnull)).open("rb") as source:
        done = subprocess.run(
            ["podman", *global_options(), "exec", "-i", name, "sh", "-c", script],
            stdin=source,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.returncode != 0:
        sys.exit(f"{name}: {script}: {done.stderr.strip()}")
    return done.stdout


def wait_for_boot(name: str) -> None:
    deadline = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < deadline:
        inside(name, "systemctl restart ssh || true")
        if inside(name, "systemctl is-active ssh || true").strip() == "active":
            return
        time.sleep(0.3)
    sys.exit(f"{name}: no sshd {BOOT_SECONDS} s after its start: {inside(name, 'systemctl --failed || true')}")


def down(scenario: str, folder: Path) -> None:
    podman("rm", "--force", "--ignore", "--time=0", "--volumes", container(scenario))
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in {"up", "down"}:
        sys.exit(__doc__)
    {"up": up, "down": down}[sys.argv[1]](sys.argv[2], Path(sys.argv[3]))
