"""The HTTP face: authentication, rate limit, faults, error envelope, and one table of routes."""

from __future__ import annotations

import contextlib
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from typing import Any
from urllib.parse import parse_qs

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controller.lab.faults import Fault
from controller.lab.limits import RateLimit, authenticate, check_permission
from controller.lab.query import Call
from controller.lab.replies import ApiError, invalid
from controller.lab.resources import Cloud, routes
from controller.model.errors import RatchetError

log = logging.getLogger("ratchet.lab")
MAX_BODY_BYTES = 1 << 20
METHODS = ["GET", "POST", "PUT", "DELETE"]


Handler = Callable[..., tuple[int, Any]]


class Api:
    """Dispatches requests to the cloud."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._limits = RateLimit()
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = [
            (method, re.compile(pattern.replace("{id}", "([0-9]{1,18})")), handler)
            for method, pattern, handler in routes(cloud)
        ]

    def application(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self._cloud.open()
            yield
            self._cloud.close()

        return Starlette(
            routes=[
                Route("/v1/{path:path}", self._endpoint, methods=METHODS),
                Route("/_lab/{path:path}", self._endpoint, methods=METHODS),
            ],
            lifespan=lifespan,
            exception_handlers={404: _no_such_path, 405: _no_such_path},
        )

    async def _endpoint(self, request: Request) -> Response:
        body = await request.body()
        return await run_in_threadpool(self._answer, request, body)

    def _answer(self, request: Request, body: bytes) -> Response:
        headers: dict[str, str] = {}
        try:
            if request.url.path == "/_lab/health":
                return JSONResponse({"lab": self._cloud.lab})
            token = authenticate(request.headers.get("authorization"))
            if len(body) > MAX_BODY_BYTES:
                raise invalid("body", "is too large")
            call = Call(request.method, request.url.path, parse_qs(request.url.query, keep_blank_values=True), body)
            if call.path.startswith("/_lab/"):
                return self._tests_ask(call, token)
            headers, allowed = self._limits.take(token)
            if not allowed:
                raise ApiError("rate_limit_exceeded", "limit of 3600 requests per hour reached")
            check_permission(token, call.method)
            status, document = self._dispatch(call)
        except ApiError as error:
            status, document = error.status, error.body()
        except ValidationError as error:
            refusal = _refusal(error)
            status, document = refusal.status, refusal.body()
        except RatchetError as error:
            log.error("%s %s: %s", request.method, request.url.path, error)
            status, document = 500, ApiError("server_error", error.what).body()
        except Exception:
            log.exception("%s %s", request.method, request.url.path)
            status, document = 500, ApiError("server_error", "an internal error occurred").body()
        if status == 204:
            return Response(status_code=204, headers=headers)
        return JSONResponse(document, status_code=status, headers=headers)

    def _dispatch(self, call: Call) -> tuple[int, Any]:
        path = call.path.removeprefix("/v1").rstrip("/")
        wait, failure = self._cloud.faults.request(call.method, path)
        if wait:
            time.sleep(wait)
        if failure is not None:
            raise failure
        methods = set()
        for method, pattern, handler in self._routes:
            if match := pattern.fullmatch(path):
                if method == call.method:
                    answer = handler(call, *(int(identity) for identity in match.groups()))
                    if lost := self._cloud.faults.answer(call.method, path):
                        raise lost
                    return answer
                methods.add(method)
        if methods:
            raise ApiError("method_not_allowed", f"{path} takes {', '.join(sorted(methods))}")
        raise ApiError("not_found", "endpoint not found")

    def _tests_ask(self, call: Call, token: str) -> Response:
        """Faults and the rate limit, under /_lab/."""
        faults = self._cloud.faults
        if call.path == "/_lab/faults":
            if call.method == "POST":
                return JSONResponse({"fault": faults.add(Fault.model_validate(call.body))}, status_code=201)
            if call.method == "DELETE":
                faults.clear()
                return Response(status_code=204)
            return JSONResponse({"faults": faults.all()})
        if call.path == "/_lab/rate-limit" and call.method == "POST":
            self._limits.set_remaining(token, int(call.body.get("remaining", 0)))
            return Response(status_code=204)
        raise ApiError("not_found", "endpoint not found")


def _refusal(error: ValidationError) -> ApiError:
    fields = [
        {"name": ".".join(map(str, problem["loc"])) or "body", "messages": [problem["msg"]]}
        for problem in error.errors()
    ]
    return ApiError("invalid_input", f"invalid input in field '{fields[0]['name']}'", {"fields": fields})


def _no_such_path(_: Request, __: Exception) -> Response:
    error = ApiError("not_found", "endpoint not found")
    return JSONResponse(error.body(), status_code=error.status)
