"""One call to the API: its errors by what a caller does about them, and patience for those that may pass."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

import requests
from hcloud import APIException, Client
from hcloud.actions import ActionException

from controller.adapters.hetzner.access import SOURCES
from controller.adapters.hetzner.domain import Unavailable
from controller.adapters.patience import spread
from controller.model.errors import BadInput, HostFailed, RatchetError, Transient

# The SDK retries timeouts, 502, 504, conflicts and the rate limit by itself; the rest waits this long, on average.
BACKOFF_SECONDS = (1.0, 3.0, 9.0)
SERVER_ERROR = 500
# What the SDK, and whoever reads its models, raise at an answer of another shape.
MALFORMED = (LookupError, TypeError, AttributeError, ValueError)

T = TypeVar("T")

log = logging.getLogger(__name__)


def log_answers(client: Client) -> None:
    """Log each answer that the client gets, those that the SDK tries again after too; never what was sent."""
    # No part of the SDK's interface: without it, calls go on, and a test fails.
    session = getattr(getattr(client, "_client", None), "_session", None)
    if isinstance(session, requests.Session):
        session.hooks["response"].append(_log_answer)


def _log_answer(answer: requests.Response, *_: Any, **__: Any) -> None:
    code = ""
    if not answer.ok:
        with suppress(*MALFORMED):
            code = f" {answer.json()['error']['code']}"
    seconds = answer.elapsed.total_seconds()
    request = answer.request
    log.info("%s %s: %d%s in %.2f s", request.method, request.path_url, answer.status_code, code, seconds)


def call(what: str, function: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """Call the API, again after a pause when the failure may pass by itself. `function` reads the answer, too.

    Raises BadInput for the token or the request, Unavailable when out of stock, HostFailed for the rest.
    """
    for pause in (*spread(BACKOFF_SECONDS), None):
        try:
            return function()
        except (APIException, ActionException, requests.RequestException, *MALFORMED) as error:
            failure = classify(what, error)
            again = "" if pause is None or not isinstance(failure, Transient) else f"; again in {pause:.1f} s"
            log.warning("%s%s", failure.what, again)
            if not isinstance(failure, Transient):
                raise failure from None
            if pause is None:
                raise HostFailed(
                    f"{failure.what} (tried {len(BACKOFF_SECONDS) + 1} times)", next_step=failure.next_step
                ) from None
            sleep(pause)
    raise AssertionError("unreachable")


def classify(what: str, error: Exception) -> RatchetError:
    """The error as ours; `what` is what was being done: `creating the firewall`."""
    if isinstance(error, requests.RequestException):
        return Transient(
            f"{what}: the API cannot be reached: {_reason(error)}",
            next_step="check the network and HCLOUD_ENDPOINT, then run the command again",
        )
    if isinstance(error, APIException):
        return _of_code(what, str(error.code), error)
    if isinstance(error, ActionException):
        told: Any = error.action.error
        failure: dict[str, Any] = told if isinstance(told, dict) else {}
        code, message = str(failure.get("code", "?")), str(failure.get("message", "no message"))
        if code in OUT_OF_STOCK:
            return Unavailable(f"{what}: {message}", next_step=STOCK_STEP)
        return HostFailed(f"{what}: the cloud reports: {message} ({code})", next_step="run the command again")
    return HostFailed(
        f"{what}: the API's answer is not as documented ({type(error).__name__}: {error})",
        next_step="is HCLOUD_ENDPOINT a Hetzner Cloud API?",
    )


OUT_OF_STOCK = {"resource_unavailable", "placement_error"}
STOCK_STEP = "add another type or location to `prefer` in ratchet.yml, or try later"


def _of_code(what: str, code: str, error: APIException) -> RatchetError:
    message = f"{what}: {error.message} ({code})"
    if code in {"unauthorized", "401"}:
        return BadInput(
            f"{what}: the API refuses the token", next_step=f"check the token in {SOURCES}: it may have been deleted"
        )
    if code in {"token_readonly", "forbidden", "403"}:
        return BadInput(
            f"{what}: the token may only read",
            next_step="create a token with read and write permission in the cloud console (Security, API tokens)",
        )
    if code in OUT_OF_STOCK:
        return Unavailable(message, next_step=STOCK_STEP)
    if code == "resource_limit_exceeded":
        return HostFailed(message, next_step="ask the provider for a higher limit, or lower `count` in ratchet.yml")
    if code == "protected":
        return HostFailed(message, next_step="lift its delete protection in the cloud console, then run it again")
    if code == "uniqueness_error":
        step = "rename or delete what has that name in the project, or give the fleet another name"
        return BadInput(message + _fields(error.details), next_step=step)
    if code in {"invalid_input", "json_error", "not_found", "unsupported_error"}:
        return BadInput(message + _fields(error.details), next_step="mend `servers` in the fleet's ratchet.yml")
    if code in {"rate_limit_exceeded", "conflict", "locked", "timeout", "unavailable", "service_error", "server_error"}:
        return Transient(message, next_step="the API is busy: run the command again in a while")
    if code == "resource_in_use" or (code.isdigit() and int(code) >= SERVER_ERROR) or code.endswith("_gateway"):
        return Transient(message, next_step="run the command again in a while")
    return HostFailed(message, next_step="run the command again; it goes on where it stopped")


def _fields(details: Any) -> str:
    """The fields that the API complains about."""
    fields = details.get("fields") if isinstance(details, dict) else None
    if not isinstance(fields, list):
        return ""
    texts = [_field(one) for one in fields if isinstance(one, dict)]
    return f": {'; '.join(texts)}" if texts else ""


def _field(one: dict[str, Any]) -> str:
    messages = one.get("messages")
    return f"{one.get('name')}: {', '.join(map(str, messages if isinstance(messages, list) else []))}"


def _reason(error: requests.RequestException) -> str:
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.SSLError):
        return "its certificate is not trusted"
    if isinstance(error, requests.ConnectionError):
        return "the connection is refused or broken"
    return type(error).__name__
