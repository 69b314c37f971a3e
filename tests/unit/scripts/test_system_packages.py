"""What the scripts install on the operator's machine: what is missing, never at another package's cost."""

from __future__ import annotations

import pytest

from .conftest import Debian

INSTALL = ("scripts/system-packages", "--install")
TESTS = (*INSTALL, "--tests")
WITH_DOCKER = {"containerd.io", "docker-ce"}
BROKEN = "#!/bin/sh\nexit 127\n"


def test_what_is_missing_is_told_and_installed(debian: Debian) -> None:
    done = debian.run(*INSTALL)
    assert done.code == 0, done.output
    assert {"podman", "runc", "netavark", "mmdebstrap", "sudo"} <= debian.installed()
    assert "this machine lacks podman, netavark" in done.output
    assert "apt-get will install aardvark-dns, " in done.output
    again = debian.run(*INSTALL)
    assert (again.code, again.output) == (0, "")


def test_what_is_there_and_has_to_become_newer_is_told(debian: Debian) -> None:
    debian.offer("nginx-light", "usr/sbin/nginx", "Depends: nginx-common (>= 2.0)\n")
    debian.install("nginx-common", "usr/share/nginx/common")
    done = debian.run(*TESTS, "--yes")
    assert done.code == 0, done.output
    assert ", wrk, and upgrade nginx-common\n" in done.output


@pytest.mark.parametrize("unified", [False, True])
def test_docker_stays_and_its_runc_is_used(debian: Debian, unified: bool) -> None:
    if unified:
        debian.unified_cgroups()
    debian.install_docker()
    assert "runc" not in debian.run("scripts/system-packages", "--missing").output.split()
    done = debian.run(*INSTALL)
    assert done.code == 0, done.output
    assert WITH_DOCKER | {"podman"} <= debian.installed()
    assert "runc" not in debian.installed()


def test_where_a_package_would_have_to_go_nothing_is_installed(debian: Debian) -> None:
    debian.install_docker()
    (debian.root / "usr/bin/runc").write_text(BROKEN)
    for environment in ({}, {"CI": "true"}):
        done = debian.run(*INSTALL, **environment)
        assert done.code == 2, done.output
        assert "nothing was installed: runc would remove containerd.io, docker-ce" in done.words
        assert "next: " in done.output
        assert debian.installed() == WITH_DOCKER


def test_set_up_ends_with_it(debian: Debian) -> None:
    debian.install_docker()
    (debian.root / "usr/bin/runc").write_text(BROKEN)
    done = debian.run("scripts/setup", "--system", "--tests")
    assert done.code == 2
    assert "would remove containerd.io, docker-ce" in done.output


def test_any_package_is_kept_not_only_docker(debian: Debian) -> None:
    # Another machine's web server, under which a package of ours would pull the floor.
    debian.install("web", "usr/bin/web", "Conflicts: nginx-common\n")
    done = debian.run(*TESTS, "--yes")
    assert done.code == 2
    assert "nginx-light would remove web" in done.words
    assert debian.installed() == {"web"}


def test_packages_that_only_together_push_one_out_are_all_named(debian: Debian) -> None:
    for package, part in (("wrk", "one"), ("tcpdump", "two")):
        debian.offer(part, f"usr/lib/{part}")
        debian.offer(package, f"usr/bin/{package}", f"Depends: {part} (>= 2.0)\n")
        debian.install(part, f"usr/lib/{part}")
    debian.install("mine", "usr/bin/mine", "Depends: one (<< 2.0) | two (<< 2.0)\n")
    done = debian.run(*TESTS)
    assert done.code == 2, done.output
    assert ", wrk, nghttp2-client, tcpdump, " in done.words
    assert "would remove mine" in done.words
    assert debian.installed() == {"one", "two", "mine"}


def test_what_the_machine_has_from_elsewhere_is_not_asked_for(debian: Debian) -> None:
    debian.install("sudo-ldap", "usr/bin/sudo", "Conflicts: sudo\n")
    debian.install("nginx", "usr/sbin/nginx", "Conflicts: nginx-common\n")
    debian.install("postgresql-17", "usr/lib/postgresql/17/bin/initdb")
    done = debian.run(*TESTS)
    assert done.code == 0, done.output
    assert {"sudo-ldap", "nginx", "postgresql-17", "podman", "wrk"} <= debian.installed()
    assert not {"sudo", "nginx-light", "postgresql"} & debian.installed()


def test_podman_gets_the_runtime_that_it_takes_by_itself(debian: Debian) -> None:
    debian.unified_cgroups()
    debian.install("runc", "usr/sbin/runc")
    debian.install("podman", "usr/bin/podman", script="#!/bin/sh\nexit 125\n")
    missing = ("scripts/system-packages", "--missing")
    assert "crun" in debian.run(*missing).output.split()
    (debian.root / "usr/bin/podman").write_text("#!/bin/sh\n")
    assert "crun" not in debian.run(*missing).output.split()


def test_packages_that_nothing_needs_any_more_stay_too(debian: Debian) -> None:
    debian.install("left", "usr/bin/left")
    (debian.root / "var/lib/apt/extended_states").write_text("Package: left\nArchitecture: all\nAuto-Installed: 1\n\n")
    debian.configure('APT::Get::AutomaticRemove "true";')
    done = debian.run(*INSTALL)
    assert done.code == 0, done.output
    assert "left" in debian.installed()


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("Yes\n", 0), ("\n", 2), ("n\n", 2), ("\x04", 2)])
def test_somebody_at_a_terminal_is_asked(debian: Debian, answer: str, code: int) -> None:
    done = debian.run(*INSTALL, answer=answer)
    assert done.code == code, done.output
    assert "install them? [y/N]" in done.output
    assert ("podman" in debian.installed()) == (code == 0)
    assert ("nothing was installed" in done.output) == (code == 2)


def test_nobody_is_asked_who_has_said_yes_before(debian: Debian) -> None:
    assert debian.run(*INSTALL, "--yes", answer="n\n").code == 0
    assert debian.run(*TESTS, answer="n\n", CI="true").code == 0
    assert {"podman", "wrk"} <= debian.installed()


def test_without_a_terminal_it_goes_on_and_says_so(debian: Debian) -> None:
    done = debian.run(*INSTALL)
    assert done.code == 0
    assert "no terminal to ask on: going on" in done.output


def test_what_apt_says_is_shown_when_it_fails(debian: Debian) -> None:
    (debian.root / "etc/apt/sources.list").write_text("deb [trusted=yes] file:/nowhere ./\n")
    done = debian.run(*INSTALL)
    assert done.code == 3
    assert "/nowhere" in done.output
    assert "Unable to locate package podman" in done.output
    assert "nothing was installed" in done.output


def test_what_dpkg_says_is_shown_when_it_fails(debian: Debian) -> None:
    debian.install("owner", "usr/bin/mmdebstrap")
    (debian.root / "usr/bin/mmdebstrap").chmod(0o644)
    done = debian.run(*INSTALL)
    assert done.code == 3
    assert "trying to overwrite" in done.output
    assert "apt-get failed, see above" in done.output


def test_another_system_is_left_alone(debian: Debian) -> None:
    (debian.root / "etc/os-release").write_text("ID=fedora\n")
    done = debian.run(*INSTALL)
    assert done.code == 2
    assert "Debian and Ubuntu" in done.output


@pytest.mark.parametrize(
    "command", [("scripts/setup", "--sytem"), ("scripts/setup", "--system", "--test"), ("scripts/system-packages", "x")]
)
def test_a_word_that_it_does_not_know_is_refused(debian: Debian, command: tuple[str, ...]) -> None:
    done = debian.run(*command)
    assert done.code == 2
    assert "usage: " in done.output
    assert debian.installed() == set()
