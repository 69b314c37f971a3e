"""What a host wrote, before anything is made of it: a host may be broken, or somebody's else."""

from __future__ import annotations

import json
import re
from typing import Any

# Half a character: a host's file name that is no UTF-8, which no file of ours could be written with.
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_object(text: str) -> dict[str, Any]:
    """The JSON object that a host wrote, in words that can be written. Raises ValueError where it is none."""
    try:
        document = writable(json.loads(text))
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, not {text[:40]!r}")
    return document


def writable(value: Any) -> Any:
    """A JSON value whose texts are whole characters: what is none is written as its escape."""
    match value:
        case str():
            return _SURROGATE.sub(lambda found: f"\\x{ord(found[0]) & 0xFF:02x}", value)
        case dict():
            return {writable(key): writable(each) for key, each in value.items()}
        case list():
            return [writable(each) for each in value]
        case _:
            return value
