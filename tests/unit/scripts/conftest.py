"""A Debian of a test's own: apt and dpkg are the real ones, in a folder, with packages that hold only a program."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[3]
PROGRAM = "#!/bin/sh\n"
APT = """\
Dir "{root}/";
Dir::State::status "{root}/var/lib/dpkg/status";
Dir::Bin::dpkg "/usr/bin/dpkg";
DPkg::Options {{ "--root={root}"; "--force-not-root"; "--force-bad-path"; "--log={root}/dpkg.log"; }};
APT::Sandbox::User "";
{settings}
"""
# What the scripts ask for, each with its program; podman's dependency is Debian's own.
PACKAGES = {
    "netavark": "usr/lib/podman/netavark",
    "aardvark-dns": "usr/lib/podman/aardvark-dns",
    "mmdebstrap": "usr/bin/mmdebstrap",
    "nftables": "usr/sbin/nft",
    "iptables": "usr/sbin/iptables",
    "catatonit": "usr/bin/catatonit",
    "iproute2": "usr/bin/ip",
    "openssh-client": "usr/bin/ssh",
    "openssl": "usr/bin/openssl",
    "sudo": "usr/bin/sudo",
    "crun": "usr/bin/crun",
    "runc": "usr/sbin/runc",
    "postgresql": "usr/lib/postgresql/15/bin/initdb",
    "nginx-common": "usr/share/nginx/common",
    "wrk": "usr/bin/wrk",
    "nghttp2-client": "usr/bin/h2load",
    "tcpdump": "usr/bin/tcpdump",
    "hcloud-cli": "usr/bin/hcloud",
    "chromium": "usr/bin/chromium",
    "chromium-driver": "usr/bin/chromedriver",
    "shellcheck": "usr/bin/shellcheck",
}


@dataclass
class Done:
    """How a script ended, and all that it said."""

    code: int
    output: str

    @property
    def words(self) -> str:
        return " ".join(self.output.split())


class Debian:
    """Its archive has PACKAGES; nothing is installed but what a test installs."""

    def __init__(self, folder: Path, archive: Path | None = None) -> None:
        self.root = folder / "root"
        self._archive = folder / "archive"
        self._built = folder / "built"
        for name in (
            "var/lib/dpkg/info", "var/lib/dpkg/updates", "var/lib/apt/lists/partial", "var/cache/apt/archives/partial",
            "var/log/apt", "etc/apt/apt.conf.d", "etc/apt/preferences.d", "etc/apt/trusted.gpg.d", "sys/fs/cgroup",
        ):  # fmt: skip
            (self.root / name).mkdir(parents=True)
        (self.root / "var/lib/dpkg/status").touch()
        (self.root / "etc/os-release").write_text("ID=debian\n")
        self._built.mkdir()
        (self.root / "etc/apt/sources.list").write_text(f"deb [trusted=yes] file:{self._archive} ./\n")
        self._configuration = folder / "apt.conf"
        self.configure("")
        if archive is not None:
            shutil.copytree(archive, self._archive)
            return
        self._archive.mkdir()
        for name, program in PACKAGES.items():
            self.offer(name, program)
        self.offer("podman", "usr/bin/podman", "Depends: crun | runc (>= 1.0.0~rc92~)\n")
        self.offer("nginx-light", "usr/sbin/nginx", "Depends: nginx-common\n")

    def configure(self, settings: str) -> None:
        self._configuration.write_text(APT.format(root=self.root, settings=settings))

    def unified_cgroups(self) -> None:
        (self.root / "sys/fs/cgroup/cgroup.controllers").touch()

    def _build(self, name: str, program: str, relations: str, script: str, version: str) -> tuple[Path, str]:
        tree = self._built / name
        shutil.rmtree(tree, ignore_errors=True)
        (tree / program).parent.mkdir(parents=True)
        (tree / program).write_text(script)
        (tree / program).chmod(0o755)
        (tree / "DEBIAN").mkdir()
        control = f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: x <x@example.org>\n{relations}"
        (tree / "DEBIAN/control").write_text(f"{control}Description: stand-in\n")
        deb = self._built / f"{name}.deb"
        subprocess.run(["dpkg-deb", "-Znone", "-b", tree, deb], check=True, capture_output=True, timeout=30)
        return deb, control

    def offer(self, name: str, program: str, relations: str = "") -> None:
        """Put a package into the archive, in place of one of its name."""
        deb, control = self._build(name, program, relations, PROGRAM, "2.0")
        shutil.copy(deb, self._archive / deb.name)
        digest = hashlib.sha256(deb.read_bytes()).hexdigest()
        entry = f"{control}Filename: ./{deb.name}\nSize: {deb.stat().st_size}\nSHA256: {digest}\n\n"
        (self._archive / f"{name}.entry").write_text(entry)

    def install(
        self, name: str, program: str, relations: str = "", *, script: str = PROGRAM, version: str = "1.0"
    ) -> None:
        """Install a package, as its owner has done before."""
        deb, _ = self._build(name, program, relations, script, version)
        options = [f"--root={self.root}", "--force-not-root", "--force-bad-path", f"--log={self.root}/dpkg.log"]
        subprocess.run(["dpkg", *options, "-i", deb], check=True, capture_output=True, timeout=30)

    def install_docker(self) -> None:
        """As Docker's own archive has it: its containerd.io brings runc, and conflicts with Debian's."""
        relations = "".join(f"{kind}: containerd, runc\n" for kind in ("Provides", "Conflicts", "Replaces"))
        self.install("containerd.io", "usr/bin/runc", relations)
        self.install("docker-ce", "usr/bin/dockerd", "Depends: containerd.io\n")

    def installed(self) -> set[str]:
        status = (self.root / "var/lib/dpkg/status").read_text()
        return set(re.findall(r"^Package: (\S+)\nStatus: install ok installed$", status, re.MULTILINE))

    def run(self, *command: str, answer: str | None = None, **environment: str) -> Done:
        """Run one of the checkout's scripts, on a terminal when somebody answers there."""
        entries = sorted(self._archive.glob("*.entry"))
        (self._archive / "Packages").write_text("".join(entry.read_text() for entry in entries))
        kept = {name: value for name, value in os.environ.items() if name != "CI"}
        own = {"APT_CONFIG": str(self._configuration), "DPKG_ROOT": str(self.root), "PATH": self._path()}
        ours, theirs = pty.openpty() if answer is not None else (-1, -1)
        try:
            if answer is not None:
                os.write(ours, answer.encode())
            started = subprocess.Popen(
                command,
                cwd=CHECKOUT,
                env={**kept, **own, **environment},
                stdin=subprocess.DEVNULL if answer is None else theirs,
                stdout=subprocess.PIPE if answer is None else theirs,
                stderr=subprocess.STDOUT,
            )
            if answer is None:
                said, _ = started.communicate(timeout=60)
                return Done(started.returncode, said.decode())
            os.close(theirs)
            theirs = -1
            said = b"".join(_until_it_hangs_up(ours))
            return Done(started.wait(timeout=60), said.decode())
        finally:
            for descriptor in (ours, theirs):
                if descriptor >= 0:
                    os.close(descriptor)

    def _path(self) -> str:
        """Whoever is not root gets a sudo that changes nobody: the folder is theirs."""
        if os.geteuid() == 0:
            return os.environ["PATH"]
        sudo = self._built / "bin" / "sudo"
        sudo.parent.mkdir(parents=True, exist_ok=True)
        sudo.write_text('#!/bin/sh\nexec "$@"\n')
        sudo.chmod(0o755)
        return f"{sudo.parent}:{os.environ['PATH']}"


def _until_it_hangs_up(terminal: int) -> Iterator[bytes]:
    while True:
        try:
            piece = os.read(terminal, 65536)
        except OSError:
            return
        if not piece:
            return
        yield piece


@pytest.fixture(scope="session")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not shutil.which("apt-get"):
        pytest.skip("no apt here")
    folder = tmp_path_factory.mktemp("debian")
    Debian(folder)
    return folder / "archive"


@pytest.fixture
def debian(archive: Path, tmp_path: Path) -> Debian:
    return Debian(tmp_path, archive)
