"""The controller's half of `ratchet_host`: render each arm's configuration here, then make one module call.

Parameters of arms come from experiments, so they are data: this reads them as they were given, never as templates, and
lays them over the host's variables for the one template of role nginx. Inventory values are templates as usual.
"""

from __future__ import annotations

import difflib
import fcntl
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from ansible.constants import DEFAULT_LOCAL_TMP
from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template

TEMPLATE = Path(__file__).resolve().parents[2] / "nginx" / "templates" / "nginx.conf.j2"
PARAMETER = re.compile(r"nginx_[a-z0-9_]{1,60}", re.ASCII)
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
TEMPLATE_MARKS = ("{{", "{%", "{#")


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """`operation`: stage reads `variant_arms`, commit reads `variant_parameters`, rollback reads `variant_to`.

    All read `variant_run` and `variant_generation`, by which the host refuses a run that has lost it meanwhile.
    """

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        operation = str(self._task.args.get("operation", ""))
        arguments: dict[str, Any] = {"operation": operation} | claim_of(
            self._templar.template(variables.get("variant_run", "")),
            self._templar.template(variables.get("variant_generation", "")),
        )
        if operation == "stage":
            arms = arms_of(variables.get("variant_arms"))
        elif operation == "commit":
            arms = {"baseline": parameters_of("variant_parameters", variables.get("variant_parameters", {}))}
        elif operation == "rollback":
            target = target_of(self._templar.template(variables.get("variant_to", "")))
            return self._call_module(arguments | {"to": target}, variables)
        else:
            raise AnsibleActionFail("operation: expected stage, commit or rollback")
        arguments["configurations"] = self._render_once(arms, variables)
        arguments["keep"] = int(self._templar.template(variables.get("variant_keep", 20)))
        return self._call_module(arguments, variables)

    def _call_module(self, arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        result: dict[str, Any] = self._execute_module("ratchet_host", arguments, task_vars=variables)
        return result

    def _render_once(self, arms: dict[str, dict[str, Any]], variables: dict[str, Any]) -> dict[str, str]:
        """The configuration of each arm; hosts with the same parameters share one rendering, which is what takes time.

        Ansible forks a process for each host: they meet in the folder that Ansible removes when the play ends.
        """
        given = {name: value for name, value in variables.items() if PARAMETER.fullmatch(name)}
        key = key_of([given, arms])
        if key is None:
            return self._render_all(arms, variables)
        with (Path(DEFAULT_LOCAL_TMP) / f"ratchet-{key}").open("a+", encoding="utf-8") as shared:
            fcntl.flock(shared, fcntl.LOCK_EX)
            shared.seek(0)
            known = shared.read()
            texts: dict[str, str] = json.loads(known) if known else self._render_all(arms, variables)
            if not known:
                shared.write(json.dumps(texts))
        return texts

    def _render_all(self, arms: dict[str, dict[str, Any]], variables: dict[str, Any]) -> dict[str, str]:
        source = trust_as_template(TEMPLATE.read_text(encoding="utf-8"))
        return {name: self._render(source, name, parameters, variables) for name, parameters in arms.items()}

    def _render(self, source: str, arm: str, parameters: dict[str, Any], variables: dict[str, Any]) -> str:
        """The configuration of one arm. Raises AnsibleActionFail naming the arm and the parameter."""
        for parameter in parameters:
            if parameter not in variables:
                known = [name for name in variables if PARAMETER.fullmatch(name)]
                close = difflib.get_close_matches(parameter, known, n=1)
                hint = f"; did you mean {close[0]}?" if close else ""
                raise AnsibleActionFail(f"{arm}: role nginx has no parameter {parameter}{hint}")
        templar = self._templar.copy_with_new_env(available_variables={**variables, **parameters})
        try:
            return str(templar.template(source))
        except AnsibleError as error:
            raise AnsibleActionFail(f"{arm}: {error.message}") from None


def key_of(given: object) -> str | None:
    """Names what a rendering depends on; None when a value is a template, which may differ from host to host."""
    try:
        text = json.dumps(given, sort_keys=True)
    except TypeError:
        return None
    if any(mark in text for mark in TEMPLATE_MARKS):
        return None
    return hashlib.sha256(text.encode()).hexdigest()


def arms_of(value: object) -> dict[str, dict[str, Any]]:
    """Arm's name -> its parameters. Raises AnsibleActionFail."""
    if not isinstance(value, list) or not value:
        raise AnsibleActionFail("variant_arms: expected a list of {name, parameters}; see roles/variant/README.md")
    arms: dict[str, dict[str, Any]] = {}
    for number, arm in enumerate(value):
        where = f"variant_arms[{number}]"
        if not isinstance(arm, dict) or set(arm) - {"name", "parameters"}:
            raise AnsibleActionFail(f"{where}: expected name and parameters, nothing else")
        name = plain(where, arm.get("name"))
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in arms:
            raise AnsibleActionFail(f"{where}.name: expected a name of its own for each arm")
        arms[name] = parameters_of(f"{where}.parameters", arm.get("parameters", {}))
    return arms


def parameters_of(where: str, value: object) -> dict[str, Any]:
    """Parameters as plain data. Raises AnsibleActionFail."""
    if not isinstance(value, dict):
        raise AnsibleActionFail(f"{where}: expected a mapping of nginx_* parameters")
    parameters: dict[str, Any] = {}
    for key, inner in value.items():
        name = plain(where, key)
        if not isinstance(name, str) or not PARAMETER.fullmatch(name):
            raise AnsibleActionFail(f"{where}: {name!r:.80} is not a parameter of role nginx")
        parameters[name] = plain(f"{where}.{name}", inner)
    return parameters


def target_of(target: object) -> str:
    """The id to roll back to, an operator's word; empty for the confirmed one. Raises AnsibleActionFail."""
    if not isinstance(target, str) or not re.fullmatch(r"|[0-9a-f]{16}|original", target, re.ASCII):
        raise AnsibleActionFail("variant_to: expected the 16 hex digits of a configuration's id, or `original`")
    return target


def claim_of(run: object, generation: object) -> dict[str, Any]:
    """For which run this speaks; nothing for a person, whom no host asks. Raises AnsibleActionFail."""
    if not isinstance(run, str) or (run and not NAME.fullmatch(run)):
        raise AnsibleActionFail("variant_run: expected the name of a run, or nothing")
    if not re.fullmatch(r"|[0-9]{1,15}", str(generation), re.ASCII):
        raise AnsibleActionFail("variant_generation: expected a number, or nothing")
    return {"run": run, "generation": str(generation)} if run else {}


def plain(where: str, value: object) -> Any:
    """A copy that Ansible does not take for templates: exact built-in types, without its tags of trust.

    Raises AnsibleActionFail for text that looks like a template: it would stay as it is, which nobody means.
    """
    if isinstance(value, str):
        if any(mark in value for mark in TEMPLATE_MARKS):
            raise AnsibleActionFail(f"{where}: template expressions are not evaluated here; write the value itself")
        return "".join(list(value))
    if isinstance(value, bool):
        return bool(value)
    if isinstance(value, int):
        return int(value) + 0
    if isinstance(value, float):
        return float(value) + 0.0
    if isinstance(value, dict):
        return {plain(where, key): plain(where, inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(where, inner) for inner in value]
    raise AnsibleActionFail(f"{where}: a value of this kind is not a parameter")
