#!/usr/bin/python
"""Ansible module: one call of `ratchet-host` on the host (two for a commit: stage, then confirm)."""

from __future__ import annotations

import json
import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: ratchet_host
short_description: Stage, confirm or roll back complete nginx configurations
description:
  - Hands complete configurations to C(ratchet-host), which tests them and makes nothing live that nginx refuses.
  - In a play the action plugin of the same name renders O(configurations) from role parameters.
options:
  operation:
    description: What to do.
    type: str
    required: true
    choices: [stage, commit, rollback]
  configurations:
    description: Complete nginx.conf texts by label; exactly one for V(commit).
    type: dict
    default: {}
  keep:
    description: How many configurations that are not in use stay on the host.
    type: int
    default: 20
  to:
    description: The id that a V(rollback) makes the baseline; empty for the confirmed one.
    type: str
    default: ""
  run:
    description: The controller's run that this belongs to; the host refuses it once the run has lost the host.
    type: str
    default: ""
  generation:
    description: Of that run's claim.
    type: str
    default: ""
author: Ratchet
"""

EXAMPLES = r"""
- name: Make this configuration the baseline
  ratchet_host:
    operation: commit
"""

RETURN = r"""
ratchet:
  description: The program's last answer (docs/architecture.md).
  returned: when the program is installed
  type: dict
"""

PROGRAM = "/usr/local/sbin/ratchet-host"


class Call:
    """Talks to the program, and turns its answers into the module's result."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.diffs: list[dict[str, str]] = []
        given = ((f"--{name}", module.params[name]) for name in ("run", "generation"))
        self.claim = [word for name, value in given if value for word in (name, value)]

    def program(self, *arguments: str, data: str | None = None) -> dict[str, Any]:
        code, out, err = self.module.run_command([PROGRAM, *arguments], data=data, binary_data=data is not None)
        try:
            document: dict[str, Any] = json.loads(out)
        except ValueError:
            self.module.fail_json(msg=f"{PROGRAM} {arguments[0]} ended with {code}: {(err or out).strip()[-500:]}")
        if not isinstance(document, dict):
            self.module.fail_json(msg=f"{PROGRAM} {arguments[0]} gave no document")
        return document

    def leave(self, document: dict[str, Any], *, changed: bool) -> None:
        """End the module with the program's answer."""
        result: dict[str, Any] = {"ratchet": document, "changed": changed}
        if self.module._diff:
            result["diff"] = self.diffs
        if not document.get("ok"):
            self.module.fail_json(msg=document.get("error") or "ratchet-host failed without a message", **result)
        self.module.exit_json(**result)

    def stage(self) -> dict[str, Any]:
        parameters = self.module.params
        check = ["--check"] if self.module.check_mode else []
        data = json.dumps({"configurations": parameters["configurations"], "keep": parameters["keep"]})
        document = self.program("stage", *self.claim, *check, data=data)
        for label, answer in document.get("configurations", {}).items():
            if answer["diff_from_live"]:
                self.diffs.append({"prepared": f"# {label}\n{answer['diff_from_live']}\n"})
        return document

    def commit(self) -> None:
        if len(self.module.params["configurations"]) != 1:
            self.module.fail_json(msg="commit takes exactly one configuration")
        staged = self.stage()
        if not staged.get("ok"):
            self.leave(staged, changed=False)
        (answer,) = staged["configurations"].values()
        if self.module.check_mode:
            self.leave(staged, changed=answer["id"] != staged["confirmed"] or answer["id"] != staged["live"])
        confirmed = self.program("confirm", *self.claim, answer["id"])
        self.leave(confirmed, changed=bool(staged["changed"] or confirmed.get("changed")))

    def rollback(self) -> None:
        to = self.module.params["to"]
        if self.module.check_mode:
            status = self.program("status")
            wanted = to or status.get("confirmed")
            self.leave(status, changed=status.get("live") != wanted or status.get("confirmed") != wanted)
        document = self.program("rollback", *self.claim, *(["--to", to] if to else []))
        self.leave(document, changed=bool(document.get("changed")))


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "operation": {"type": "str", "required": True, "choices": ["stage", "commit", "rollback"]},
            "configurations": {"type": "dict", "default": {}},
            "keep": {"type": "int", "default": 20},
            "to": {"type": "str", "default": ""},
            "run": {"type": "str", "default": ""},
            "generation": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    if not os.access(PROGRAM, os.X_OK):
        if module.check_mode:
            module.exit_json(changed=True, msg="ratchet-host is not installed yet")
        module.fail_json(msg=f"{PROGRAM} is not there: set the host up first (playbooks/site.yml)")
    call = Call(module)
    if module.params["operation"] == "commit":
        call.commit()
    elif module.params["operation"] == "rollback":
        call.rollback()
    else:
        document = call.stage()
        call.leave(document, changed=bool(document.get("changed")))


if __name__ == "__main__":
    main()
