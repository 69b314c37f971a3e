"""The auditors' words are read as they stand, and what is kept on purpose does not count."""

from __future__ import annotations

import pytest

from benchmarks.host_security import parse

REPORT = """hardening_index=63
warning[]=MAIL-8818|Found version|-|-|
suggestion[]=LOGG-2154|Enable logging to an external logging host|-|-|
details[]=KRNL-6000|sysctl|x;|
"""
SAID = """(gen) banner: SSH-2.0-OpenSSH_9.2p1
(kex) sntrup761x25519-sha512@openssh.com -- [warn] using experimental algorithm
                                          `- [info] available since OpenSSH 8.5
(kex) ecdh-sha2-nistp256 -- [fail] using weak elliptic curves
(mac) hmac-sha1 -- [warn] using encrypt-and-MAC mode
                `- [warn] using weak hashing algorithm
"""


def test_findings_are_told_with_what_they_are_about() -> None:
    found = parse(REPORT, SAID)
    assert found.index == 63
    assert found.warnings == ["MAIL-8818 Found version - - "]
    assert len(found.suggestions) == 1
    assert found.ssh_failures == ["(kex) ecdh-sha2-nistp256: using weak elliptic curves"]
    assert found.ssh_warnings == [
        "(mac) hmac-sha1: using encrypt-and-MAC mode",
        "(mac) hmac-sha1: using weak hashing algorithm",
    ]


@pytest.mark.parametrize(("report", "said"), [("", SAID), (REPORT, "connection refused")])
def test_an_auditor_that_did_not_finish_is_no_good_news(report: str, said: str) -> None:
    with pytest.raises(SystemExit, match="did not finish"):
        parse(report, said)
