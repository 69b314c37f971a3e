"""A host as Ansible would connect to it: the variables, settings and arguments that count, in Ansible's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from controller.adapters.ansible.environment import configured
from controller.adapters.inventory.ssh_client import Route, route, split
from controller.adapters.inventory.templates import Unfit
from controller.model.project import Project

MAXIMUM_PORT = 65535
SSH = {"ssh", "ansible.builtin.ssh", "smart"}


@dataclass(frozen=True)
class Setting:
    """An option of Ansible's connection.

    Attributes:
        variables: the last one that is set counts.
        variable: of the environment, where no variable of the host is set.
        place: section and key of ansible.cfg, where neither is.
    """

    variables: tuple[str, ...]
    variable: str = ""
    place: tuple[str, str] = ("", "")


ADDRESS = Setting(("ansible_host", "ansible_ssh_host"))
PORT = Setting(("ansible_port", "ansible_ssh_port"), "ANSIBLE_REMOTE_PORT", ("defaults", "remote_port"))
USER = Setting(("ansible_user", "ansible_ssh_user"), "ANSIBLE_REMOTE_USER", ("defaults", "remote_user"))
KEY = Setting(
    ("ansible_private_key_file", "ansible_ssh_private_key_file"),
    "ANSIBLE_PRIVATE_KEY_FILE",
    ("defaults", "private_key_file"),
)
CONNECTION = Setting(("ansible_connection",), "ANSIBLE_TRANSPORT", ("defaults", "transport"))
PROGRAM = Setting(("ansible_ssh_executable",), "ANSIBLE_SSH_EXECUTABLE", ("ssh_connection", "ssh_executable"))
# In front of Ansible's own options, and behind them: of two the first counts.
FIRST_ARGUMENTS = Setting(("ansible_ssh_args",), "ANSIBLE_SSH_ARGS", ("ssh_connection", "ssh_args"))
LAST_ARGUMENTS = [
    Setting(("ansible_ssh_common_args",), "ANSIBLE_SSH_COMMON_ARGS", ("ssh_connection", "ssh_common_args")),
    Setting(("ansible_ssh_extra_args",), "ANSIBLE_SSH_EXTRA_ARGS", ("ssh_connection", "ssh_extra_args")),
]
# The controller logs in with a key in a file, and with nothing else.
REFUSED = {
    "ansible_password": "a password",
    "ansible_ssh_pass": "a password",
    "ansible_ssh_password": "a password",
    "ansible_private_key": "a key that is no file",
    "ansible_ssh_private_key": "a key that is no file",
    "ansible_ssh_pkcs11_provider": "a key on a smartcard",
}


class UnfitVariable(Exception):
    """`variable`, or what it is set by, and why it cannot be used."""

    def __init__(self, variable: str, why: str) -> None:
        super().__init__(why)
        self.variable = variable
        self.why = why


def connection(
    project: Project, name: str, variables: Mapping[str, Any], environment: Mapping[str, str]
) -> tuple[Route, str]:
    """How a host is reached, and the key's file as it is written (empty: the fleet's own). Raises UnfitVariable."""
    of_host = _OfHost(project, variables)
    of_host.check_kind()
    first = of_host.arguments(FIRST_ARGUMENTS)
    last = [word for setting in LAST_ARGUMENTS for word in of_host.arguments(setting)]
    port, user, key = of_host.port(), of_host.text(USER), of_host.text(KEY)
    options = [f"-oPort={port}"] if port else []
    options += [f'-oUser="{user}"'] if user else []
    try:
        found = route([*first, *options, *last], of_host.address(name), folder=project.root, environment=environment)
    except Unfit as error:
        blamed = of_host.blamed([*LAST_ARGUMENTS, FIRST_ARGUMENTS])
        raise UnfitVariable(blamed, f"(or what ssh is configured to do here) {error}") from None
    return found, key or found.key_file


class _OfHost:
    def __init__(self, project: Project, variables: Mapping[str, Any]) -> None:
        self._project = project
        self._variables = variables

    def check_kind(self) -> None:
        kind, program = self.text(CONNECTION), self.text(PROGRAM)
        if kind and kind not in SSH:
            raise UnfitVariable(self.blamed([CONNECTION]), f"is {kind}: the controller reaches hosts over ssh only")
        if program and Path(program).name != "ssh":
            raise UnfitVariable(self.blamed([PROGRAM]), f"is {program}: the controller knows OpenSSH's `ssh` only")
        for variable, what in REFUSED.items():
            if variable in self._variables:
                raise UnfitVariable(variable, f"is {what}: the controller logs in with a key in a file only")

    def address(self, name: str) -> str:
        address = self.text(ADDRESS) or name
        try:
            address.encode("idna")
        except UnicodeError:
            raise UnfitVariable(
                "ansible_host", f"is neither an address nor a name that DNS can have: {address}"
            ) from None
        return address

    def port(self) -> int | None:
        value, variable = self._value(PORT)
        if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 5:
            value = int(value)
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAXIMUM_PORT:
            raise UnfitVariable(variable, f"must be a port, 1 to {MAXIMUM_PORT}")
        return value

    def arguments(self, setting: Setting) -> list[str]:
        value, variable = self._value(setting)
        if not isinstance(value or "", str):
            raise UnfitVariable(variable, "must be text")
        try:
            return split(value or "")
        except Unfit as error:
            raise UnfitVariable(variable, str(error)) from None

    def text(self, setting: Setting) -> str:
        """Empty where nothing sets it."""
        value, variable = self._value(setting)
        if value is None:
            return ""
        if not isinstance(value, str) or (not value and setting in {ADDRESS, USER}):
            raise UnfitVariable(variable, "must be text")
        if any(ord(character) < 32 for character in value):
            raise UnfitVariable(variable, "holds a control character")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise UnfitVariable(variable, "holds half a character")
        return value

    def blamed(self, settings: list[Setting]) -> str:
        """Of the first of these that is set: the variable, or where it is set otherwise."""
        for setting in settings:
            for variable in reversed(setting.variables):
                if variable in self._variables:
                    return variable
            if configured(self._project, setting.variable, *setting.place):
                return f"{'.'.join(setting.place)} (ansible.cfg, {setting.variable})"
        return settings[0].variables[-1]

    def _value(self, setting: Setting) -> tuple[Any, str]:
        for variable in reversed(setting.variables):
            if variable in self._variables:
                try:
                    value = self._variables[variable]
                except Unfit as error:
                    raise UnfitVariable(variable, str(error)) from None
                if value is not None:
                    return value, variable
        if not setting.variable:
            return None, setting.variables[0]
        return configured(self._project, setting.variable, *setting.place) or None, self.blamed([setting])
