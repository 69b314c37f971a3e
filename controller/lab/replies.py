"""The API's error envelope and its codes."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

STATUS = {
    "unauthorized": 401,
    "token_readonly": 403,
    "forbidden": 403,
    "not_found": 404,
    "method_not_allowed": 405,
    "uniqueness_error": 409,
    "conflict": 409,
    "resource_in_use": 409,
    "server_already_attached": 409,
    "deprecated_api_endpoint": 410,
    "resource_unavailable": 412,
    "placement_error": 412,
    "json_error": 400,
    "invalid_input": 422,
    "unsupported_error": 422,
    "firewall_already_applied": 422,
    "firewall_already_removed": 422,
    "locked": 423,
    "protected": 423,
    "rate_limit_exceeded": 429,
    "resource_limit_exceeded": 403,
    "service_error": 500,
    "server_error": 500,
    "maintenance": 503,
    "unavailable": 503,
    "timeout": 504,
}


class ApiError(Exception):
    """Answered to the client as `{"error": {"code", "message", "details"}}` with the code's HTTP status."""

    def __init__(
        self, code: str, message: str, details: dict[str, Any] | None = None, *, status: int | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status or STATUS[code]

    def body(self) -> dict[str, Any]:
        return {"error": {"code": self.code, "message": self.message, "details": self.details}}


def invalid(field: str, message: str) -> ApiError:
    return ApiError(
        "invalid_input", f"invalid input in field '{field}'", {"fields": [{"name": field, "messages": [message]}]}
    )


def not_unique(field: str) -> ApiError:
    return ApiError("uniqueness_error", f"{field} is already used", {"fields": [{"name": field}]})


def not_found(kind: str, identity: object) -> ApiError:
    return ApiError("not_found", f"{kind.replace('_', ' ')} with ID '{identity}' not found")


def timestamp() -> str:
    """Now, as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
