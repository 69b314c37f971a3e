"""The plan of one JSON line, or the field at fault."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any, NoReturn

from ratchet_agent import PLAN_FORMAT, VERSION
from ratchet_agent.errors import AgentError
from ratchet_agent.plan import PAIRS_OF, Claim, Plan, Request

# However long a trial takes: root's program lets nothing unconfirmed be live for longer in one go.
LONGEST_BOUND = 3600


class _Fields:
    """Reads the fields of one JSON object; an AgentError names the field, what it holds and what was expected."""

    def __init__(self, where: str, value: object, known: str) -> None:
        if not isinstance(value, dict):
            raise AgentError("plan", f"{where}: expected an object")
        unknown = sorted(set(value) - set(known.split()))
        if unknown:
            raise AgentError("plan", f"{where}: unknown field {unknown[0]!r}; agent and controller differ in version")
        self._where = where
        self._values = value

    def _wrong(self, name: str, expected: str) -> NoReturn:
        held = f"got {self._values[name]!r:.80}" if name in self._values else "it is missing"
        raise AgentError("plan", f"{self._where}.{name}: expected {expected}, {held}")

    def integer(self, name: str, low: int, high: int, default: int | None = None) -> int:
        value = self._values.get(name, default)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._wrong(name, f"an integer from {low} to {high}")
        return value

    def number(self, name: str, low: float, high: float, default: float | None = None) -> float:
        value = self._values.get(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool) or not low <= value <= high:
            self._wrong(name, f"a number from {low:g} to {high:g}")
        return float(value)

    def text(self, name: str, pattern: str, default: str | None = None) -> str:
        value = self._values.get(name, default)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            self._wrong(name, f"text that matches {pattern}")
        return value

    def items(self, name: str, low: int, high: int) -> list[Any]:
        value = self._values.get(name)
        if not isinstance(value, list) or not low <= len(value) <= high:
            self._wrong(name, f"a list of {low} to {high}")
        return value

    def strings(self, name: str) -> dict[str, str]:
        value = self._values.get(name, {})
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            self._wrong(name, "an object of texts")
        return value

    def value(self, name: str) -> object:
        return self._values.get(name)


def parse_plan(line: bytes) -> Plan:
    """The plan of one JSON line. Raises AgentError("plan") with the field at fault."""
    try:
        document = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise AgentError("plan", f"the plan is not JSON: {error}") from None
    plan = _Fields(
        "plan",
        document,
        "format run trial host design workload arms block_seconds burn_in_seconds lease_seconds pairs seed body_sample "
        "source minimum_requests pair_seconds bound_seconds claim limits",
    )
    plan.integer("format", PLAN_FORMAT, PLAN_FORMAT)
    arms = _Fields("plan.arms", plan.value("arms"), "control variant")
    design = plan.text("design", "switchback|duet|soak|fleet", "switchback")
    pairs = [tuple(pair) if isinstance(pair, list) else () for pair in plan.items("pairs", 1, 10_000)]
    for number, pair in enumerate(pairs):
        # Not a set: what came may not be hashable.
        if pair not in PAIRS_OF[design]:
            raise AgentError("plan", f"plan.pairs[{number}]: not the arms of a pair in the design {design}")
    workload = _Fields(
        "plan.workload",
        plan.value("workload"),
        "rate requests scheme port host connections timeout_ms mode connections_open",
    )
    rate = workload.number("rate", 0.01, 3000)
    scheme = workload.text("scheme", "http|https", "http")
    port = workload.integer("port", 0, 65535, 0) or (443 if scheme == "https" else 80)
    server_name = workload.text("host", r"[A-Za-z0-9.-]{1,253}", "localhost")
    if scheme == "https" and not all(0 < len(label) < 64 for label in server_name.split(".")):
        raise AgentError("plan", f"plan.workload.host: {server_name!r:.80} cannot be a TLS server name")
    keepalive = workload.text("connections", "keepalive|fresh", "keepalive") == "keepalive"
    usual_port = port == (443 if scheme == "https" else 80)
    authority = server_name if usual_port else f"{server_name}:{port}"
    asked = [
        _parse_request(f"plan.workload.requests[{number}]", value, authority, keepalive)
        for number, value in enumerate(workload.items("requests", 1, 50))
    ]
    limits = _Fields("plan.limits", plan.value("limits"), "rate_kept probe_busy_share log_flush_seconds")
    source = plan.text("source", "probe|live", "probe")
    if source == "live" and design != "switchback":
        raise AgentError("plan", "plan.design: no user meets a shadow instance; live traffic is for a switchback")
    return Plan(
        document=document,
        design=design,
        run=plan.text("run", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"),
        trial=plan.integer("trial", 1, 999_999),
        host=plan.text("host", r"[A-Za-z0-9][A-Za-z0-9._-]{0,252}"),
        arms={arm: arms.text(arm, r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}") for arm in ("control", "variant")},
        pairs=pairs,
        block_seconds=plan.number("block_seconds", 0.1, 600),
        burn_in_seconds=plan.number("burn_in_seconds", 0, 60),
        lease_seconds=plan.integer("lease_seconds", 1, 86_400),
        seed=plan.integer("seed", -(2**63), 2**64),
        body_sample=plan.integer("body_sample", 0, 10, 1),
        rate=rate,
        scheme=scheme,
        port=port,
        server_name=server_name,
        keepalive=keepalive,
        timeout_us=workload.integer("timeout_ms", 10, 60_000, 2000) * 1000,
        requests=_name_apart([request for request, _ in asked]),
        weights=[weight for _, weight in asked],
        source=source,
        minimum_requests=plan.integer("minimum_requests", 1, 1_000_000, 50),
        saturation=workload.text("mode", "steady|saturation", "steady") == "saturation",
        connections_open=workload.integer("connections_open", 1, 256, 8),
        pair_seconds=plan.number("pair_seconds", 0, 3600, 0),
        bound_seconds=plan.integer("bound_seconds", 5, LONGEST_BOUND, LONGEST_BOUND),
        rate_kept=limits.number("rate_kept", 0, 1),
        probe_busy_share=limits.number("probe_busy_share", 0, 1),
        log_flush_seconds=limits.number("log_flush_seconds", 0, 60),
        claim=_parse_claim(plan.value("claim")),
    )


def _parse_claim(value: object) -> Claim | None:
    """None for a plan of a person, who claims no host."""
    if value is None:
        return None
    claim = _Fields("plan.claim", value, "run generation")
    return Claim(
        claim.text("run", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"), claim.integer("generation", 0, 999_999_999_999_999)
    )


def _parse_request(where: str, value: object, authority: str, keepalive: bool) -> tuple[Request, int]:
    fields = _Fields(where, value, "path weight method headers body expect_status")
    path = fields.text("path", r"/[\x21-\x7e]{0,2000}")
    method = fields.text("method", "GET|HEAD|POST", "GET")
    body = fields.text("body", r"(?s:.{0,65536})", "").encode("utf-8", errors="replace")
    headers = {"Host": authority, "User-Agent": f"ratchet-agent/{VERSION}", "Accept": "*/*"}
    for name, text in fields.strings("headers").items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}", name) or not re.fullmatch(r"[\t\x20-\x7e]*", text):
            raise AgentError("plan", f"{where}.headers: {name!r:.80} is not a header that can be sent")
        if name.lower() in {"connection", "content-length", "transfer-encoding", "upgrade", "expect"}:
            raise AgentError("plan", f"{where}.headers: {name} is the probe's own; leave it out")
        same = next((known for known in headers if known.lower() == name.lower()), name)
        headers[same] = text
    if not keepalive:
        headers["Connection"] = "close"
    if method == "POST":
        headers["Content-Length"] = str(len(body))
    elif body:
        raise AgentError("plan", f"{where}.body: only a POST has a body")
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items()), "", ""]
    request = Request(
        name=f"{method} {path}",
        method=method,
        wire="\r\n".join(lines).encode("ascii") + body,
        expect_status=fields.integer("expect_status", 100, 599, 200),
    )
    return request, fields.integer("weight", 1, 1000, 1)


def _name_apart(requests: list[Request]) -> list[Request]:
    """Number the requests that share method and path, so that each has a name of its own."""
    seen: Counter[str] = Counter()
    named = []
    for request in requests:
        seen[request.name] += 1
        times = seen[request.name]
        name = request.name if times == 1 else f"{request.name} #{times}"
        named.append(Request(name, request.method, request.wire, request.expect_status))
    return named
