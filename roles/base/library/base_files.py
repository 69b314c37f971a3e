#!/usr/bin/python
"""Ansible module: put several small files in place and into force with one call, each checked by its own program first.

A call costs most of a second on a small server whatever it does, so that one for six files is worth a module. No
handler brings a file into force: Ansible forgets it when a later role fails.
"""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.base_in_force import Firewall, Kernel, Service, Ssh
from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: base_files
short_description: Put several small files in place
description:
  - Each file is checked, written beside its place and moved there at once. The first one that is refused ends the call.
  - Whoever reads it is asked whether it is in force, whether this call has written it or an earlier one.
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
      service:
        description:
          - Who goes by it, if that is not whoever reads it when it is needed. V(ssh) must take its whole configuration
            with the file in it, and answer by it, or the file that was there comes back. V(kernel) has the values set.
          - V(firewall) gets its file in a place beside it, to be tried; RV(untried) tells so.
        type: str
        choices: [ssh, kernel, firewall]
author: Ratchet
"""

EXAMPLES = r"""
- name: Allow the account everything
  base_files:
    files:
      - {path: /etc/sudoers.d/admin, content: "admin ALL=(ALL) ALL\n", mode: "0440", check: [visudo, -cf, "%s"]}
"""

RETURN = r"""
untried:
  description: Whether there are rules of the firewall that are not in force, or were never tried.
  returned: always
  type: bool
"""

SERVICES: dict[str, type[Service]] = {"ssh": Ssh, "kernel": Kernel, "firewall": Firewall}


def wanted_text(file: dict[str, Any], current: str) -> str:
    content: str = file["content"]
    if not file["add"]:
        return content
    have = {line.strip() for line in current.splitlines()}
    missing = [line for line in content.splitlines() if line.strip() and line.strip() not in have]
    kept = current if not current or current.endswith("\n") else current + "\n"
    return kept + "".join(f"{line}\n" for line in missing)


def write(path: Path, text: str, mode: int, user: int, group: int) -> None:
    number, new = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    with os.fdopen(number, "w", encoding="utf-8", errors="surrogateescape") as sink:
        sink.write(text)
        os.fchown(number, user, group)
        os.fchmod(number, mode)
        sink.flush()
        os.fsync(number)
    Path(new).replace(path)


def told(text: str) -> str:
    """As Ansible can tell it."""
    return text.encode(errors="surrogateescape").decode(errors="replace")


class Placing:
    """One file, and whoever reads it."""

    def __init__(self, module: AnsibleModule, file: dict[str, Any]) -> None:
        self.module = module
        self.file = file
        self.path = Path(file["path"])
        self.found = self.path.stat() if self.path.is_file() else None
        # A key's comment may be in any encoding: other lines are kept as they are.
        self.before = self.path.read_text(encoding="utf-8", errors="surrogateescape") if self.found else ""
        self.text = wanted_text(file, self.before)
        self.service = SERVICES[file["service"]](self.path, self.text, self._run) if file["service"] else None
        self.untried = False

    def _run(self, command: list[str]) -> tuple[int, str, str]:
        """Its exit code, output and errors. In check mode it may not be installed yet."""
        if shutil.which(command[0]) is None:
            return 127, "", f"{command[0]} is not installed"
        code, out, err = self.module.run_command(command)
        return int(code), str(out), str(err)

    def bring(self) -> dict[str, Any] | None:
        """Bring the file to what it must be, and into force; returns the difference, None when there is none."""
        if isinstance(self.service, Firewall):
            return self._offer(self.service)
        right = self._right()
        in_force = right and (self.service is None or self.service.in_force())
        if not in_force:
            check(self.module, self.file, self.text)
            objection = self.service.objection() if self.service else ""
            if objection:
                self.module.fail_json(msg=f"{self.path} is {'not in force' if right else 'not written'}: {objection}")
            if not right:
                self._place()
            if self.service and not self.module.check_mode:
                self._load(self.service, right)
        for remark in self.service.remarks() if self.service else []:
            self.module.warn(remark)
        if in_force:
            return None
        return {"prepared": f"{self.path}: was there, but not in force\n"} if right else self._difference()

    def _offer(self, firewall: Firewall) -> dict[str, Any] | None:
        """Rules may shut Ansible out: they come into force later, in a way that undoes itself."""
        if firewall.in_force():
            return None
        check(self.module, self.file, self.text)
        self.untried = True
        if not self.module.check_mode:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write(firewall.candidate, self.text, 0o644, 0, 0)
        return self._difference()

    def _load(self, service: Service, right: bool) -> None:
        failure = service.load()
        if failure and not right:
            if self.found:
                write(self.path, self.before, self.found.st_mode & 0o7777, self.found.st_uid, self.found.st_gid)
            else:
                self.path.unlink()
            failure += f". {self.path} is as it was before; {service.recover()}".rstrip("; ")
        if failure:
            self.module.fail_json(msg=f"{self.path}: {failure}")

    def _account(self) -> pwd.struct_passwd | None:
        """Whose the file is; None in check mode, where there may be no account yet."""
        try:
            return pwd.getpwnam(self.file["owner"])
        except KeyError:
            if not self.module.check_mode:
                self.module.fail_json(msg=f"{self.path}: there is no account {self.file['owner']}")
            return None

    def _right(self) -> bool:
        account, found, folder_mode = self._account(), self.found, self.file["folder_mode"]
        if found is None or account is None or self.before != self.text:
            return False
        wanted = (int(self.file["mode"], 8), account.pw_uid, account.pw_gid)
        if (found.st_mode & 0o7777, found.st_uid, found.st_gid) != wanted:
            return False
        folder = self.path.parent.stat()
        return folder_mode is None or (folder.st_mode & 0o7777, folder.st_uid) == (int(folder_mode, 8), account.pw_uid)

    def _place(self) -> None:
        account, folder = self._account(), self.path.parent
        if self.module.check_mode or account is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        if self.file["folder_mode"] is not None:
            folder.chmod(int(self.file["folder_mode"], 8))
            os.chown(folder, account.pw_uid, account.pw_gid)
        write(self.path, self.text, int(self.file["mode"], 8), account.pw_uid, account.pw_gid)

    def _difference(self) -> dict[str, Any]:
        if self.before == self.text and self.untried:
            return {"prepared": f"{self.path}: was there, but not in force\n"}
        before, after = (told(text) for text in (self.before, self.text))
        return {"before_header": str(self.path), "after_header": str(self.path), "before": before, "after": after}


def check(module: AnsibleModule, file: dict[str, Any], text: str) -> None:
    """Fail unless the file's own program accepts it. In check mode the program may not be installed yet."""
    command = file["check"]
    if not command or (module.check_mode and shutil.which(command[0]) is None):
        return
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", errors="surrogateescape", prefix="ratchet-check-") as trial:
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
                    "service": {"type": "str", "choices": list(SERVICES)},
                },
            }
        },
        supports_check_mode=True,
    )
    files = [Placing(module, file) for file in module.params["files"]]
    differences = [difference for difference in [file.bring() for file in files] if difference is not None]
    module.exit_json(changed=bool(differences), untried=any(file.untried for file in files), diff=differences)


if __name__ == "__main__":
    main()
