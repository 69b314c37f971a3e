"""Why something was not done."""

from __future__ import annotations


class Refused(Exception):
    """Not done, and said why; what was live before is live still, unless the message says otherwise."""


def explain(error: BaseException) -> str:
    """An error as one line for people."""
    if isinstance(error, OSError):
        name = f"{error.filename}: " if error.filename else ""
        return f"{name}{error.strerror or error}"
    return str(error)
