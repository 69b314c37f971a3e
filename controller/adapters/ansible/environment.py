"""What Ansible's programs get of this process's environment: no secrets, a locale that exists, our ansible.cfg."""

from __future__ import annotations

import configparser
import os
import sys
from functools import lru_cache
from pathlib import Path

from controller.adapters.secrets import is_secret
from controller.model.errors import BadInput
from controller.model.project import Project, bundle

# It stands beside the hosts, and is for SSH.
KNOWN_HOSTS = "^known_hosts$"


def ansible_config(project: Project) -> Path:
    """The project's ansible.cfg, else the shipped one."""
    own = project.root / "ansible.cfg"
    return own if own.is_file() else bundle() / "ansible.cfg"


def configured(project: Project, variable: str, section: str, key: str) -> str:
    """A setting of Ansible: the environment's, else that of ansible.cfg; empty where neither is. Raises BadInput."""
    if variable and os.environ.get(variable):
        return os.environ[variable]
    path = ansible_config(project)
    try:
        return _parsed(path.read_text(encoding="utf-8")).get(section, key, fallback="")
    except (OSError, ValueError, configparser.Error) as error:
        what = str(error).replace("\n", " ")
        raise BadInput(
            f"cannot be read: {what}", where=str(path), next_step="mend it; ansible-config view shows it"
        ) from None


@lru_cache(maxsize=8)
def _parsed(text: str) -> configparser.ConfigParser:
    # As Ansible reads it.
    parser = configparser.ConfigParser(inline_comment_prefixes=(";",), interpolation=None)
    parser.read_string(text)
    return parser


def ignored_patterns(project: Project) -> list[str]:
    """Of names in an inventory's folder that are no inventory, beside those that Ansible passes over by itself."""
    said = configured(project, "ANSIBLE_INVENTORY_IGNORE_REGEX", "inventory", "ignore_patterns")
    said = said or configured(project, "", "defaults", "inventory_ignore_patterns")
    return list(dict.fromkeys(filter(None, [*(one.strip() for one in said.split(",")), KNOWN_HOSTS])))


def ansible_settings(project: Project) -> dict[str, str]:
    """The variables that every program of Ansible gets from us, whatever the operator's are. Raises BadInput."""
    return {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "ANSIBLE_CONFIG": str(ansible_config(project)),
        "ANSIBLE_ROLES_PATH": str(project.roles),
        "ANSIBLE_INVENTORY_IGNORE_REGEX": ",".join(ignored_patterns(project)),
        "ANSIBLE_HOST_KEY_CHECKING": "True",
        "ANSIBLE_RETRY_FILES_ENABLED": "False",
        "ANSIBLE_NOCOLOR": "1",
        # Ansible starts in no other encoding, and whatever the operator's is need not be installed.
        "LC_ALL": "C.UTF-8",
    }


def ansible_environment(project: Project) -> dict[str, str]:
    """The whole environment of a program of Ansible that is told its inventory. Raises BadInput."""
    passed = {name: value for name, value in os.environ.items() if not is_secret(name)}
    passed.pop("ANSIBLE_INVENTORY", None)
    return passed | ansible_settings(project)
