from __future__ import annotations

import pytest

from controller.lab import images

LISTING = """\
http://mirror.invalid/debian/|bookworm|main|Debian
http://mirror.invalid/debian/|bookworm|contrib|Debian
http://mirror.invalid/security/|bookworm-security|main|Debian
http://other.invalid/packages/|bookworm|main|Other
http://backports.invalid/debian/|bookworm-backports|main|Debian
"""
DUMP = """\
APT::Architecture "amd64";
Acquire "";
Acquire::http::Proxy "http://proxy.invalid:3128";
Acquire::Check-Valid-Until "false";
Acquire::Languages "";
"""


@pytest.fixture
def machine_apt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "run", lambda command: LISTING if command[0] == "apt-get" else DUMP)
    monkeypatch.setattr(images, "machine_release", lambda: {"ID": "debian", "VERSION_CODENAME": "bookworm"})


@pytest.mark.usefixtures("machine_apt")
def test_package_sources_are_the_machines_own_debian_ones() -> None:
    assert [line.split("] ")[1] for line in images.machine_sources("trixie")] == [
        "http://mirror.invalid/debian/ trixie main",
        "http://mirror.invalid/security/ trixie-security main",
    ]


@pytest.mark.usefixtures("machine_apt")
def test_proxies_of_the_machine_are_taken_over() -> None:
    assert images.machine_apt_options() == [
        'Acquire::Check-Valid-Until "false";',
        'Acquire::http::Proxy "http://proxy.invalid:3128";',
    ]


def test_a_machine_of_another_distribution_lends_no_sources(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "machine_release", lambda: {"ID": "ubuntu", "VERSION_CODENAME": "noble"})
    assert images.machine_sources("bookworm") == []


@pytest.mark.usefixtures("machine_apt")
def test_an_images_name_follows_its_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    before = images.reference("debian-12", bare=False)
    assert before != images.reference("debian-12", bare=True)
    assert before != images.reference("debian-13", bare=False)
    assert before == images.reference("debian-12", bare=False)
    monkeypatch.setattr(images, "ROLE_PACKAGES", ["nginx"])
    assert before != images.reference("debian-12", bare=False)
