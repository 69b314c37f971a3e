"""The alert command: what it gets, and what is made of what it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from controller.adapters.notify import alert
from controller.adapters.secrets import is_ours, is_secret
from controller.model.errors import HostFailed


def test_an_alert_command_gets_none_of_our_secrets_and_what_it_works_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "RATCHET_DATABASE_URL",
        "RATCHET_DATABASE_URL_COMMAND",
        "PGPASSWORD",
        "HCLOUD_TOKEN",
        "HCLOUD_TOKEN_FD",
    ):
        monkeypatch.setenv(name, "planted-secret")
    monkeypatch.setenv("SLACK_WEBHOOK", "https://hooks.example/x")
    alert(["sh", "-c", f"env > {tmp_path}/env; cat > {tmp_path}/said"], {"run": "r-1"})
    environment = (tmp_path / "env").read_text()
    assert "planted-secret" not in environment
    assert "https://hooks.example/x" in environment
    assert (tmp_path / "said").read_text() == '{"run": "r-1"}\n'


def test_an_alert_command_may_say_any_bytes() -> None:
    alert(["sh", "-c", "cat > /dev/null; printf '\\377'"], {})
    with pytest.raises(HostFailed, match="ended with 3: \ufffdno"):
        alert(["sh", "-c", "cat > /dev/null; printf '\\377no' >&2; exit 3"], {})


def test_secrets_are_known_by_their_names_and_paths_of_ansible_and_of_ssh_are_none() -> None:
    secrets = "GITHUB_PAT VAULT_AUTH BEARER SLACK_WEBHOOK RESTIC_KEY DB_PWD AWS_SECRET_ACCESS_KEY HCLOUD_TOKEN_FILE"
    assert all(map(is_secret, secrets.split()))
    paths = "ANSIBLE_VAULT_PASSWORD_FILE ANSIBLE_BECOME_PASSWORD_FILE ANSIBLE_PRIVATE_KEY_FILE SSH_AUTH_SOCK PATH PWD"
    assert not any(map(is_secret, (*paths.split(), "OLDPWD", "PGPASSFILE")))
    assert not any(map(is_ours, (*paths.split(), "SLACK_WEBHOOK", "HCLOUD_TOKENS")))
