#!/usr/bin/python
"""Ansible module: put several small files in place with one call, each checked by its own program first.

A call costs most of a second on a small server whatever it does, so that one for six files is worth a module.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: base_files
short_description: Put several small files in place
description:
  - Each file is checked, written beside its place and moved there at once. The first one that is refused ends the call.
options:
  files:
    description: The files, in order.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Where it goes. Missing folders are created for its owner, with mode 0755.
        type: path
        required: true
      content:
        description: The whole text; with O(files[].add), lines that it must have.
        type: str
        required: true
      add:
        description: Keep the file's other lines, and add those that are missing.
        type: bool
        default: false
      mode:
        description: Permissions, octal.
        type: str
        default: "0644"
      folder_mode:
        description: Permissions of the folder that it is in, if that is the owner's own.
        type: str
      owner:
        description: User, who is also the group.
        type: str
        default: root
      check:
        description: Command whose argument C(%s) is the file, and that must succeed.
        type: list
        elements: str
        default: []
author: Ratchet
"""

EXAMPLES = r"""
- name: Allow the account everything
  base_files:
    files:
      - {path: /etc/sudoers.d/admin, content: "admin ALL=(ALL) ALL\n", mode: "0440", check: [visudo, -cf, "%s"]}
"""

RETURN = r"""
written:
  description: Paths of the files that were, or would be, written.
  returned: always
  type: list
  elements: str
"""


def wanted_text(file: dict[str, Any], current: str) -> str:
    content: str = file["content"]
    if not file["add"]:
        return content
    have = {line.strip() for line in current.splitlines()}
    missing = [line for line in content.splitlines() if line.strip() and line.strip() not in have]
    kept = current if not current or current.endswith("\n") else current + "\n"
    return kept + "".join(f"{line}\n" for line in missing)


def _mode_and_owner(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mode & 0o7777, status.st_uid


def place(module: AnsibleModule, file: dict[str, Any]) -> dict[str, Any] | None:
    """Bring one file to what it must be; returns the difference, None when there is none."""
    path, mode = Path(file["path"]), int(file["mode"], 8)
    current = path.read_text(encoding="utf-8") if path.is_file() else ""
    text = wanted_text(file, current)
    try:
        account = pwd.getpwnam(file["owner"])
    except KeyError:
        if not module.check_mode:
            module.fail_json(msg=f"{path}: there is no account {file['owner']}")
        account = None
    found = path.stat() if path.is_file() else None
    folder = path.parent
    folder_mode = int(file["folder_mode"], 8) if file["folder_mode"] else None
    right = (
        found is not None
        and account is not None
        and current == text
        and (found.st_mode & 0o7777, found.st_uid, found.st_gid) == (mode, account.pw_uid, account.pw_gid)
        and (
            folder_mode is None
            or (folder.stat().st_mode & 0o7777, folder.stat().st_uid) == (folder_mode, account.pw_uid)
        )
    )
    if right:
        return None
    if not module.check_mode and account is not None:
        folder.mkdir(parents=True, exist_ok=True)
        if folder_mode is not None:
            folder.chmod(folder_mode)
            os.chown(folder, account.pw_uid, account.pw_gid)
    check(module, file, text)
    if not module.check_mode and account is not None:
        number, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=folder)
        with os.fdopen(number, "w", encoding="utf-8") as sink:
            sink.write(text)
            os.fchown(number, account.pw_uid, account.pw_gid)
            os.fchmod(number, mode)
            sink.flush()
            os.fsync(number)
        Path(new).replace(path)
    return {"before_header": str(path), "after_header": str(path), "before": current, "after": text}


def check(module: AnsibleModule, file: dict[str, Any], text: str) -> None:
    """Fail unless the file's own program accepts it. In check mode the program may not be installed yet."""
    command = file["check"]
    if not command or (module.check_mode and shutil.which(command[0]) is None):
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", prefix="ratchet-check-") as trial:
        trial.write(text)
        trial.flush()
        code, out, err = module.run_command([trial.name if word == "%s" else word for word in command])
    if code != 0:
        said = (err or out).strip().replace(trial.name, file["path"])
        module.fail_json(msg=f"{file['path']} is not written: {command[0]} refuses it: {said}")


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "files": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "path": {"type": "path", "required": True},
                    "content": {"type": "str", "required": True},
                    "add": {"type": "bool", "default": False},
                    "mode": {"type": "str", "default": "0644"},
                    "folder_mode": {"type": "str"},
                    "owner": {"type": "str", "default": "root"},
                    "check": {"type": "list", "elements": "str", "default": []},
                },
            }
        },
        supports_check_mode=True,
    )
    differences = [place(module, file) for file in module.params["files"]]
    done = [difference for difference in differences if difference is not None]
    module.exit_json(changed=bool(done), written=[difference["after_header"] for difference in done], diff=done)


if __name__ == "__main__":
    main()
