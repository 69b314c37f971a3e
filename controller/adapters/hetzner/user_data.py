"""What cloud-init does on a new server: one user, one host key, and nothing else; the roles do the rest.

python3 is there already: cloud-init itself runs on it.
"""

from __future__ import annotations

import yaml

# The API's limit.
MAXIMUM_BYTES = 32 * 1024


def user_data(*, public_key: str, host_private: str, host_public: str) -> str:
    """The `#cloud-config` document. The private host key in it is replaced after the first login."""
    document = {
        "locale": False,
        "disable_root": True,
        "ssh_pwauth": False,
        "ssh_deletekeys": True,
        "ssh_keys": {"ed25519_private": host_private, "ed25519_public": host_public.strip()},
        "users": [
            {
                "name": "ratchet",
                "gecos": "Ratchet's Ansible user",
                "shell": "/bin/bash",
                "lock_passwd": True,
                "sudo": "ALL=(ALL) NOPASSWD:ALL",
                "ssh_authorized_keys": [public_key.strip()],
            }
        ],
    }
    text = "#cloud-config\n" + yaml.safe_dump(document, sort_keys=False, width=4096)
    if len(text.encode()) > MAXIMUM_BYTES:
        raise ValueError("user_data is larger than the API takes")
    return text
