"""Why a trial ends before its time."""

from __future__ import annotations


class AgentError(Exception):
    """Ends the trial with an error event; `code` is one of plan, session, switch, probe, disk."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
