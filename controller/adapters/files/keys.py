"""A fleet's keys in `.ratchet/keys/`: its own SSH key, and the host keys that new servers are born with.

A server gets its first host key from us, so that not even the first connection trusts blindly. That key is a seed: its
private half stands in the server's user_data, so it is replaced over the connection that it made trustworthy.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.documents import is_there, read_text
from controller.adapters.files.private_state import secrets_folder
from controller.model.errors import BadInput
from controller.model.project import Project

PRIVATE_MODE = 0o600


def generate_key(comment: str) -> tuple[str, str]:
    """A new Ed25519 key: (private, public) in OpenSSH's formats."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    return private.decode(), _public_of(key, comment)


def _public_of(key: Ed25519PrivateKey, comment: str) -> str:
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{public.decode()} {comment}\n"


def ensure_fleet_key(project: Project, fleet: str) -> tuple[str, bool]:
    """(public key, whether it was generated now). Raises BadInput when the private key is damaged, or away."""
    path = project.key_file(fleet)
    public_path = path.with_name(f"{fleet}.pub")
    comment = f"ratchet-{fleet}"
    if is_there(path):
        public = _read_public(path, comment)
        if not is_there(public_path):
            write_atomically(public_path, public)
        return public, False
    private, public = generate_key(comment)
    secrets_folder(project, "keys")
    write_atomically(path, private, PRIVATE_MODE)
    write_atomically(public_path, public)
    return public, True


def _read_public(path: Path, comment: str) -> str:
    try:
        key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(
            f"the fleet's SSH key cannot be read: {error}",
            where=str(path),
            next_step="restore it from a copy; without it, delete the servers (controller destroy) and provision again",
        ) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput("the fleet's SSH key is not an Ed25519 key", where=str(path), next_step="move it away")
    return _public_of(key, comment)


class HostSeeds:
    """The seeds of servers whose first host key has not been replaced yet: `.ratchet/keys/<fleet>.seeds/`.

    The order of writing makes every crash recoverable: a seed is on disk before its server is ordered, and a
    successor's public half before the server starts to use it.
    """

    def __init__(self, project: Project, fleet: str) -> None:
        self._project = project
        self._folder = project.key_file(f"{fleet}.seeds")

    def create(self, name: str) -> tuple[str, str]:
        """A new seed for a server: (private, public)."""
        private, public = generate_key(name)
        secrets_folder(self._project, "keys", self._folder.name)
        self._successor(name).unlink(missing_ok=True)
        write_atomically(self._seed(name), public, PRIVATE_MODE)
        return private, public

    def seed(self, name: str) -> str:
        """The public half of the key that the server was born with; empty when it has been replaced."""
        return _text(self._seed(name))

    def successor(self, name: str) -> str:
        """The public half of the key that is about to replace the seed; empty when none is."""
        return _text(self._successor(name))

    def announce(self, name: str, public: str) -> None:
        """Note the successor before the server uses it."""
        write_atomically(self._successor(name), public, PRIVATE_MODE)

    def forget(self, name: str) -> None:
        """The successor is in known_hosts: the seed has served."""
        self._seed(name).unlink(missing_ok=True)
        self._successor(name).unlink(missing_ok=True)

    def names(self) -> set[str]:
        """The servers that still have one."""
        if not self._folder.is_dir():
            return set()
        return {path.name.removesuffix(".pub").removesuffix(".next") for path in self._folder.glob("*.pub")}

    def close(self) -> None:
        """Remove the folder if it is empty."""
        if self._folder.is_dir() and not any(self._folder.iterdir()):
            self._folder.rmdir()

    def _seed(self, name: str) -> Path:
        return self._folder / f"{name}.pub"

    def _successor(self, name: str) -> Path:
        return self._folder / f"{name}.next.pub"


def _text(path: Path) -> str:
    return read_text(path).strip() if is_there(path) else ""
