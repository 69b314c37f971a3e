"""The HTTP face: authentication, rate limit, faults, error envelope, and one table of routes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable
from urllib.parse import parse_qs

from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.convertors import IntegerConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from controller.lab.faults import Fault
from controller.lab.limits import RateLimit, authenticate, check_permission
from controller.lab.query import Call
from controller.lab.replies import ApiError, invalid
from controller.lab.resources import Answer, Cloud, Handler, routes
from controller.model.errors import RatchetError

log = logging.getLogger("ratchet.lab")
MAX_BODY_BYTES = 1 << 20


class _Identity(IntegerConvertor):
    # Longer ones fit no column of the lab's database.
    regex = "[0-9]{1,18}"


register_url_convertor("id", _Identity())


class Api:
    """Answers requests with what the cloud does."""

    def __init__(self, cloud: Cloud) -> None:
        self._cloud = cloud
        self._limits = RateLimit()

    def application(self) -> Starlette:
        @contextlib.asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            self._cloud.open()
            yield
            self._cloud.close()

        async def health(_: Request) -> Response:
            return JSONResponse({"lab": self._cloud.lab})

        paths: dict[str, dict[str, Handler]] = {}
        for method, path, handler in routes(self._cloud):
            paths.setdefault(f"/v1{path}", {})[method] = handler
        paths |= self._for_tests()
        return Starlette(
            routes=[Route("/_lab/health", health), *(self._route(path, paths[path]) for path in paths)],
            lifespan=lifespan,
            exception_handlers={404: _no_such_path, 405: _no_such_method},
        )

    def _for_tests(self) -> dict[str, dict[str, Handler]]:
        """Path -> method -> handler: faults and the rate limit."""
        faults = self._cloud.faults

        def clear(_: Call) -> Answer:
            faults.clear()
            return 204, None

        def limit(call: Call) -> Answer:
            self._limits.set_remaining(call.token, int(call.body.get("remaining", 0)))
            return 204, None

        return {
            "/_lab/faults": {
                "GET": lambda _: (200, {"faults": faults.all()}),
                "POST": lambda call: (201, {"fault": faults.add(Fault.model_validate(call.body))}),
                "DELETE": clear,
            },
            "/_lab/rate-limit": {"POST": limit},
        }

    def _route(self, path: str, handlers: dict[str, Handler]) -> Route:
        async def endpoint(request: Request) -> Response:
            handler = handlers["GET" if request.method == "HEAD" else request.method]
            return await run_in_threadpool(self._answer, request, await request.body(), handler)

        return Route(path, endpoint, methods=list(handlers))

    def _answer(self, request: Request, body: bytes, handler: Handler) -> Response:
        headers: dict[str, str] = {}
        path = request.url.path
        try:
            token = authenticate(request.headers.get("authorization"))
            if len(body) > MAX_BODY_BYTES:
                raise invalid("body", "is too large")
            parameters = parse_qs(request.url.query, keep_blank_values=True)
            call = Call(request.method, path.removeprefix("/v1"), parameters, body, token)
            if path.startswith("/_lab/"):
                status, document = handler(call)
            else:
                headers, allowed = self._limits.take(token)
                if not allowed:
                    raise ApiError("rate_limit_exceeded", "limit of 3600 requests per hour reached")
                check_permission(token, call.method)
                status, document = self._with_faults(call, lambda: handler(call, *request.path_params.values()))
        except ApiError as error:
            status, document = error.status, error.body()
        except ValidationError as error:
            refusal = _refusal(error)
            status, document = refusal.status, refusal.body()
        except RatchetError as error:
            log.error("%s %s: %s", request.method, path, error)
            status, document = 500, ApiError("server_error", error.what).body()
        except Exception:
            log.exception("%s %s", request.method, path)
            status, document = 500, ApiError("server_error", "an internal error occurred").body()
        if status == 204:
            return Response(status_code=204, headers=headers)
        return JSONResponse(document, status_code=status, headers=headers)

    def _with_faults(self, call: Call, carry_out: Callable[[], Answer]) -> Answer:
        wait, failure = self._cloud.faults.request(call.method, call.path)
        if wait:
            time.sleep(wait)
        if failure is not None:
            raise failure
        answer = carry_out()
        if lost := self._cloud.faults.answer(call.method, call.path):
            raise lost
        return answer


def _refusal(error: ValidationError) -> ApiError:
    fields = [
        {"name": ".".join(map(str, problem["loc"])) or "body", "messages": [problem["msg"]]}
        for problem in error.errors()
    ]
    return ApiError("invalid_input", f"invalid input in field '{fields[0]['name']}'", {"fields": fields})


def _no_such_path(_: Request, __: Exception) -> Response:
    error = ApiError("not_found", "endpoint not found")
    return JSONResponse(error.body(), status_code=error.status)


def _no_such_method(request: Request, refusal: Exception) -> Response:
    headers = refusal.headers or {} if isinstance(refusal, HTTPException) else {}
    allowed = ", ".join(sorted(headers.get("Allow", "").split(", ")))
    error = ApiError("method_not_allowed", f"{request.url.path.removeprefix('/v1')} takes {allowed}")
    return JSONResponse(error.body(), status_code=error.status, headers=headers)
