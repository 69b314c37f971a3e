"""The lab hosts' images: real Debian systems made by mmdebstrap, kept in podman under a hash of their recipe.

Package sources and proxies are the machine's own, read from its apt when an image is built.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import shlex
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from controller.lab.commands import CommandFailed, exists, podman, run
from controller.model.errors import HostFailed

BUILD_SECONDS = 900
REPOSITORY = "localhost/ratchet-lab"
CODENAMES = {"debian-12": "bookworm", "debian-13": "trixie"}
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

# What Hetzner's own Debian images bring along.
BARE_PACKAGES = [
    "systemd",
    "systemd-sysv",
    "dbus",
    "openssh-server",
    "python3",
    "sudo",
    "iproute2",
    "iputils-ping",
    "procps",
    "ca-certificates",
    "cloud-init",
    "netbase",
    "curl",
    "debian-archive-keyring",
]
# What the roles install, so that setting up a lab host costs seconds.
ROLE_PACKAGES = [
    "nginx",
    "nftables",
    "python3-apt",
    "unattended-upgrades",
    "logrotate",
    "cron",
    "openssl",
    "systemd-timesyncd",
]

# Only modules that do something in a container; each one costs start-up time.
CLOUD_CONFIG = """\
datasource_list: [NoCloud]
network: {config: disabled}
disable_root: false
ssh_pwauth: false
preserve_hostname: false
manage_etc_hosts: true
locale: false
apt: {preserve_sources_list: true}
users: [default]
system_info: {default_user: {name: root, lock_passwd: false, groups: [], sudo: null}}
cloud_init_modules: [write_files, set_hostname, update_etc_hosts, users_groups, ssh]
cloud_config_modules: [set_passwords, ntp, timezone, runcmd]
cloud_final_modules: [package_update_upgrade_install, write_files_deferred, scripts_vendor, scripts_per_once,
  scripts_per_boot, scripts_per_instance, scripts_user, final_message, power_state_change]
"""

SETUP = """\
set -eu
cd "$1"
rm -f etc/ssh/ssh_host_* var/lib/dbus/machine-id
: >etc/machine-id
printf '127.0.0.1 localhost\\n::1 localhost ip6-localhost ip6-loopback\\n' >etc/hosts
for unit in getty@tty1.service console-getty.service e2scrub_reap.service \\
    systemd-networkd-wait-online.service networking.service; do
  ln -sf /dev/null "etc/systemd/system/$unit"
done
rm -f etc/systemd/system/timers.target.wants/apt-daily*.timer etc/systemd/system/getty.target.wants/*
rm -f etc/systemd/system/multi-user.target.wants/unattended-upgrades.service
"""


def machine_release() -> dict[str, str]:
    """The machine's /etc/os-release."""
    lines = Path("/etc/os-release").read_text(encoding="utf-8").splitlines()
    return {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}


def machine_sources(codename: str) -> list[str]:
    """The machine's Debian sources as one-line entries for `codename`; empty where its apt knows no Debian."""
    release = machine_release()
    own = release.get("VERSION_CODENAME")
    if release.get("ID") != "debian" or not own:
        return []
    listing = run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)", "Created-By: Packages"]
    )
    entries = [line.split("|") for line in listing.splitlines() if line.count("|") == 3]
    known = {own: codename, f"{own}-updates": f"{codename}-updates", f"{own}-security": f"{codename}-security"}
    usable = [entry for entry in entries if entry[1] in known and entry[2] == "main"]
    certain = [entry for entry in usable if entry[3] == "Debian"]
    return [f"deb [signed-by={KEYRING}] {uri} {known[suite]} main" for uri, suite, _, _ in certain or usable]


def machine_apt_options() -> list[str]:
    """Proxies and validity checks of the machine's apt, as lines of apt.conf."""
    dump = run(["apt-config", "dump"])
    prefixes = ("acquire::http", "acquire::https", "acquire::check-", "acquire::proxy")
    return sorted(line for line in dump.splitlines() if line.lower().startswith(prefixes) and '""' not in line)


def recipe(image: str, *, bare: bool) -> dict[str, object]:
    """Everything that an image's content depends on, apart from the archive itself."""
    codename = CODENAMES[image]
    return {
        "codename": codename,
        "packages": BARE_PACKAGES + ([] if bare else ROLE_PACKAGES),
        "sources": machine_sources(codename),
        "apt": machine_apt_options(),
        "cloud": CLOUD_CONFIG,
        "setup": SETUP,
    }


def reference(image: str, *, bare: bool) -> str:
    """The image's name in podman."""
    digest = hashlib.sha256(json.dumps(recipe(image, bare=bare), sort_keys=True).encode()).hexdigest()[:12]
    return f"{REPOSITORY}:{image}{'-bare' if bare else ''}-{digest}"


def is_built(name: str) -> bool:
    return exists("image", name)


@contextmanager
def _one_build_at_a_time() -> Iterator[None]:
    folder = podman("info", "--format", "{{.Store.RunRoot}}").strip()
    with Path(folder, "ratchet-lab-images.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def ensure_image(image: str, *, bare: bool = False, say: Callable[[str], None] = lambda _: None) -> str:
    """Build the image if podman lacks it (about a minute); returns its name. Raises HostFailed."""
    name = reference(image, bare=bare)
    if is_built(name):
        return name
    with _one_build_at_a_time():
        if not is_built(name):
            say(f"building the {image}{' bare' if bare else ''} image (once, about a minute)")
            _build(name, recipe(image, bare=bare))
            _remove_older(name)
            say(f"built {name}")
    return name


def _remove_older(name: str) -> None:
    """Images of the same kind that no container uses."""
    kind = name.rpartition("-")[0]
    for other in podman("image", "ls", "--format", "{{.Repository}}:{{.Tag}}", REPOSITORY).split():
        if other != name and other.rpartition("-")[0] == kind:
            with contextlib.suppress(CommandFailed):
                podman("image", "rm", other)


def _build(name: str, content: dict[str, object]) -> None:
    with tempfile.TemporaryDirectory(prefix="ratchet-image-") as folder:
        work = Path(folder)
        work.chmod(0o755)
        command = _mmdebstrap(work, content)
        log = work / "log"
        with log.open("wb") as sink, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=sink) as bootstrap:
            try:
                imported = subprocess.run(
                    ["podman", "import", "-", name],
                    stdin=bootstrap.stdout,
                    capture_output=True,
                    timeout=BUILD_SECONDS,
                    check=False,
                )
                code = bootstrap.wait(timeout=30)
            except subprocess.TimeoutExpired:
                code, imported = -1, None
            finally:
                # Asked so, mmdebstrap removes its half-made tree.
                bootstrap.terminate()
        if code != 0 or imported is None or imported.returncode != 0:
            said = log.read_text(encoding="utf-8", errors="replace") + (imported.stderr.decode() if imported else "")
            if imported is not None and imported.returncode == 0:
                podman("image", "rm", "--force", name)
            raise HostFailed(
                f"the image {name} could not be built: {said.strip()[-800:]}",
                where="lab",
                next_step="check that `apt-get update` works on this machine, then controller lab up",
            )


def _mmdebstrap(work: Path, content: dict[str, object]) -> list[str]:
    def write(file: str, text: str) -> str:
        (work / file).write_text(text, encoding="utf-8")
        return shlex.quote(str(work / file))

    apt_options = "\n".join(content["apt"]) + "\n"  # type: ignore[arg-type]
    apt = write("apt.conf", apt_options)
    cloud = write("cloud.cfg", str(content["cloud"]))
    setup = write("setup", str(content["setup"]))
    sources = "\n".join(content["sources"])  # type: ignore[arg-type]
    return [
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--include={','.join(content['packages'])}",  # type: ignore[arg-type]
        f"--aptopt={work / 'apt.conf'}",
        "--aptopt=APT::Install-Recommends false",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-exclude=/usr/share/locale/*",
        f'--customize-hook=install -m 644 {apt} "$1/etc/apt/apt.conf.d/80lab"',
        f'--customize-hook=install -m 644 {cloud} "$1/etc/cloud/cloud.cfg.d/90_lab.cfg"',
        f'--customize-hook=sh {setup} "$1"',
        str(content["codename"]),
        "-",
        *([str(_sources_file(work, sources))] if sources else []),
    ]


def _sources_file(work: Path, sources: str) -> Path:
    file = work / "machine.list"
    file.write_text(sources + "\n", encoding="utf-8")
    return file
