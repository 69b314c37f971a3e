"""The experiments that the faults break: short blocks, and variants that can be seen from outside."""

from __future__ import annotations

from typing import Any

QUICK = {"block_seconds": 0.5, "burn_in_seconds": 0.1}
# Nothing but the fault may end it: the variant only shows its version in a header, and the guardrails are wide.
WIDE = {"p99_ratio": 100, "cpu_ratio": 100, "memory_ratio": 100, "open_files_ratio": 100}
ENDLESS = {"minimum_pairs": 400, "maximum_pairs": 400}

VERSION_SHOWN = {"version-shown": {"nginx_server_tokens": True}}

# name -> (variants, further fields of the experiment)
EXPERIMENTS: dict[str, tuple[dict[str, dict[str, Any]], dict[str, Any]]] = {
    "long": (VERSION_SHOWN, {"design": "switchback", "timing": QUICK | ENDLESS, "guardrails": WIDE}),
    "long-duet": (VERSION_SHOWN, {"timing": QUICK | ENDLESS, "guardrails": WIDE}),
    # Proven, checked on the live instance and committed: a run with every step.
    "keep": ({"level-1": {"nginx_gzip_comp_level": 1}}, {"timing": QUICK | {"confirm_pairs": 3}, "guardrails": WIDE}),
    # A run that ends by itself, soon, and changes nothing.
    "brief": (VERSION_SHOWN, {"timing": QUICK | {"minimum_pairs": 5, "maximum_pairs": 5}, "guardrails": WIDE}),
}
