"""Turn one parameter into the text of a directive, or refuse it.

Every value in the configuration passes here, because parameters also come from experiments: what is not of the
declared type, a declared choice and within the declared bounds never reaches nginx, least of all a `;` or a newline.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleFilterError

META = Path(__file__).resolve().parent.parent / "meta"
WORDS = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@functools.cache
def _specification() -> tuple[dict[str, Any], dict[str, Any]]:
    """(options by name, bounds by name) of the role; a site's fields are named `nginx_sites.field`."""
    specs = yaml.safe_load((META / "argument_specs.yml").read_text(encoding="utf-8"))
    bounds = yaml.safe_load((META / "bounds.yml").read_text(encoding="utf-8"))
    options: dict[str, Any] = {}

    def collect(level: dict[str, Any], prefix: str) -> None:
        for name, option in level.items():
            options[prefix + name] = option
            collect(option.get("options", {}), f"{prefix}{name}.")

    collect(specs["argument_specs"]["main"]["options"], "")
    return options, bounds["parameters"]


def _refuse(name: str, value: Any, expected: str) -> AnsibleFilterError:
    try:
        told = f"{value!r:.200}"
    except ValueError:
        told = "a number without end"
    return AnsibleFilterError(f"{name}: {told} is not {expected}")


def _text(name: str, kind: str, value: Any) -> str:
    """The value as nginx writes it, when it is of the kind; else AnsibleFilterError."""
    if isinstance(value, int) and not abs(value) < 1 << 64:  # Python writes out no endless number
        raise _refuse(name, value, "a number that nginx knows")
    if kind == "bool":
        word = WORDS.get(str(value).lower()) if isinstance(value, bool | int | str) else None
        if word is None:
            raise _refuse(name, value, "true or false")
        return "on" if word else "off"
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _refuse(name, value, "a number" if kind == "int" else "text")
    text = str(value)
    if kind == "int" and not re.fullmatch(r"-?[0-9]{1,10}", text, re.ASCII):
        raise _refuse(name, value, "a whole number")
    return text


def nginx_value(value: Any, name: str) -> str:
    """The text of parameter `name` in the configuration: on or off, a number, a word; the items of a list by spaces.

    Raises AnsibleFilterError, naming the parameter, when the value is outside its specification.
    """
    options, bounds = _specification()
    if name not in options:
        raise AnsibleFilterError(f"{name}: the role has no such parameter")
    option, bound = options[name], bounds.get(name, {})
    if option["type"] == "list":
        if not isinstance(value, list | tuple) or not value:
            raise _refuse(name, value, "a list with at least one item")
        kind, items = option["elements"], list(value)
    else:
        kind, items = option["type"], [value]
    return " ".join(_checked(name, kind, item, option, bound) for item in items)


def _checked(name: str, kind: str, value: Any, option: dict[str, Any], bound: dict[str, Any]) -> str:
    text = _text(name, kind, value)
    if "choices" in option:
        if text not in option["choices"]:
            raise _refuse(name, value, "one of " + ", ".join(option["choices"]))
    elif kind == "int":
        if not bound["minimum"] <= int(text) <= bound["maximum"]:
            raise _refuse(name, value, f"between {bound['minimum']} and {bound['maximum']}")
    elif kind == "str" and not re.fullmatch(bound["pattern"], text, re.ASCII):
        raise _refuse(name, value, f"of the form {bound['pattern']}")
    return text


class FilterModule:
    """Ansible's way to find the filter."""

    def filters(self) -> dict[str, Any]:
        return {"nginx_value": nginx_value}
