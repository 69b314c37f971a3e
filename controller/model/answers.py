"""What a host wrote, before anything is made of it: a host may be broken, or somebody's else."""

from __future__ import annotations

import json
from typing import Any


def read_object(text: str) -> dict[str, Any]:
    """The JSON object that a host wrote. Raises ValueError where it is none, whatever it is."""
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None
    if not isinstance(document, dict):
        raise ValueError(f"expected a JSON object, not {text[:40]!r}")
    return document
