"""The experiments that the faults break: short blocks, and variants that can be seen from outside."""

from __future__ import annotations

from typing import Any

QUICK = {"block_seconds": 0.5, "burn_in_seconds": 0.1}
# Nothing but the fault may end it: the guardrails are wide, and the variant shows its version in a header.
WIDE = {"p99_ratio": 100, "cpu_ratio": 100, "memory_ratio": 100, "open_files_ratio": 100}
ENDLESS = {"minimum_pairs": 400, "maximum_pairs": 400}

SOME = {"minimum_pairs": 14, "maximum_pairs": 14}

GZIP = {"Accept-Encoding": "gzip"}
# Seldom, so that a busy machine's probe is not late.
QUIET = {"rate": 4, "requests": [{"path": "/data/catalogue.json", "headers": GZIP}]}

VERSION_SHOWN = {"version-shown": {"nginx_server_tokens": True}}
# Far faster too, so that no chance gives it up before the fault, and not to be kept before so many pairs.
SHOWN_AND_PLAIN = {"version-shown": {"nginx_server_tokens": True, "nginx_gzip": False}}
LONG = {"allow_service_reduction": True, "timing": QUICK | ENDLESS, "guardrails": WIDE}

# No response of the upstream has a head that fits in 64 bytes: 502, at once.
TOO_SMALL = {"tiny-head": {"nginx_proxy_buffer_size": "64"}}
PROXIED = {"rate": 6, "requests": [{"path": "/api/list?size=2000"}]}
# Memory for so many connections is taken and touched when a worker starts.
HUNGRY = {"connections": {"nginx_worker_connections": 524288}}
# Documents come sooner, and what cannot be compressed much later.
EAGER = {"eager": {"nginx_gzip_comp_level": 1, "nginx_gzip_types": ["application/json", "application/octet-stream"]}}
MIXED = {
    "rate": 10,
    "requests": [
        {"path": "/data/catalogue.json", "headers": GZIP, "weight": 9},
        {"path": "/media/1m.bin", "headers": GZIP},
    ],
}

# name -> (variants, further fields of the experiment)
EXPERIMENTS: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "long": (SHOWN_AND_PLAIN, LONG | {"design": "switchback"}),
    "long-duet": (SHOWN_AND_PLAIN, LONG),
    # Proven, checked on the live instance and committed: a run with every step.
    "keep": ({"level-1": {"nginx_gzip_comp_level": 1}}, {"timing": QUICK | {"confirm_pairs": 3}, "guardrails": WIDE}),
    # Runs that end by themselves, soon, and change nothing.
    "brief": (VERSION_SHOWN, {"timing": QUICK | {"minimum_pairs": 5, "maximum_pairs": 5}, "guardrails": WIDE}),
    "short": (VERSION_SHOWN, {"design": "switchback", "timing": QUICK | SOME, "guardrails": WIDE}),
    "short-duet": (VERSION_SHOWN, {"timing": QUICK | SOME, "guardrails": WIDE}),
    # The fleet's baseline has no IPv6: this one listens on [::]:80 too, and is committed without having been live.
    "second-listener": (
        {"ipv6": {"nginx_ipv6": True, "nginx_gzip_comp_level": 1}},
        {"timing": QUICK | {"confirm_pairs": 3}, "guardrails": WIDE},
    ),
    "bad-gateway": (TOO_SMALL, {"design": "switchback", "timing": QUICK, "workload": PROXIED}),
    "bad-gateway-duet": (TOO_SMALL, {"timing": QUICK, "workload": PROXIED}),
    "hungry": (HUNGRY, {"design": "switchback", "timing": QUICK}),
    "hungry-duet": (HUNGRY, {"timing": QUICK}),
    "worse-tail": (
        EAGER,
        {"timing": QUICK | {"block_seconds": 1.0}, "workload": MIXED, "guardrails": WIDE | {"p99_ratio": 1.5}},
    ),
    "silent": ({"no-log": {"nginx_access_log": False}}, {"timing": QUICK}),
}
