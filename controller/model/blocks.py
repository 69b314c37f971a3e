"""What the agent measured: one summary a block. The per-request rows stay in the CSV (docs/csv.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from controller.model.experiment import Frozen

Arm = Literal["control", "variant"]


class Limits(Frozen):
    """What a block must keep to count. The agent's plan tells them, and its sidecar says by which it went.

    Evidence cannot loosen them: a sidecar with wider ones is refused.
    """

    rate_kept: float = Field(default=0.95, ge=0.95, le=1, description="share of the asked rate")
    probe_busy_share: float = Field(
        default=0.5,
        ge=0,
        le=0.5,
        description="in a saturation: a probe that is busy for more of its turns would measure itself",
    )
    log_flush_seconds: float = Field(
        default=1.5,
        ge=0,
        le=60,
        description="with live traffic: until a request is in nginx's log, which is written after a second "
        "(`flush=1s`); the rest is for a busy disk and nginx's timers",
    )


LIMITS = Limits()


class SideMetrics(Frozen):
    """nginx and host figures over one block; None where the host does not tell.

    `error_log_lines`: lines of level error or worse in nginx's error log; `upstream_errors`: those of them that name an
    upstream.
    """

    cpu_us_per_request: float | None = None
    rss_bytes: int | None = None
    open_files: int | None = None
    active_connections: int | None = None
    retransmits: int | None = None
    psi_cpu_us: int | None = None
    psi_memory_us: int | None = None
    psi_io_us: int | None = None
    error_log_lines: int | None = None
    upstream_errors: int | None = None


class ClassFigures(Frozen):
    """The requests of one class of live traffic in one block, in microseconds."""

    requests: int
    p50_us: int
    p90_us: int
    p95_us: int
    p99_us: int
    mean_us: float


class Block(Frozen):
    """One stretch of probing one arm.

    Latencies are integer microseconds from the intended start: by the kernel's receive stamp where there is one,
    else by the user clock. A failed request enters with the workload's timeout. Quantiles are nearest-rank:
    the ceil(q*n)-th smallest. Rows with a negative `intended_us` (burn-in) do not count.
    `user_p99_us` is the p99 by the user clock. `mean_p50_us`: each request of the workload has a p50 of its own, this
    is their mean over all that were asked. `ttfb_p50_us`: p50 of the time from a request's last byte to the first of
    its response. Both are None in a saturation, with live traffic, and where an earlier agent did not tell them.
    `paired_gain` is told in a duet only, and the same in both blocks of a pair: the median over the request
    pairs of ln(control latency / variant latency), rounded to six decimals.
    With live traffic a request counts in the block in which it began, to the millisecond.
    In a saturation `achieved_rate` is what nginx answered a second in the arm's turns.
    """

    pair: int = Field(ge=1)
    block: int = Field(ge=1)
    arm: Arm
    configuration: str
    started_at: float = Field(description="seconds since the epoch, host clock")
    seconds: float
    requests: int
    errors: int
    error_classes: dict[str, int] = {}
    statuses: dict[str, int] = {}
    p50_us: int
    p90_us: int
    p95_us: int
    p99_us: int
    mean_us: float
    mean_p50_us: float | None = None
    ttfb_p50_us: int | None = None
    user_p99_us: int
    lag_p99_us: int
    achieved_rate: float
    probe_busy_share: float | None = Field(
        default=None,
        description="in a saturation: share of the arm's turns in which the probe did not wait for an answer",
    )
    bytes: int
    paired_gain: float | None = None
    ran: list[str | None] = Field(
        default=[],
        description="what nginx showed before and after the block; empty: not told; None: nothing that is staged, or "
        "by another nginx than the trial began with",
    )
    switch_seconds: float
    valid: bool
    invalid_reason: str = ""
    bodies: dict[str, str] = Field(default={}, description="METHOD path -> sha256 of the decoded body")
    metrics: SideMetrics = SideMetrics()
    classes: dict[str, ClassFigures] = Field(default={}, description="of live traffic, by the class of its path")

    @property
    def astray(self) -> bool:
        """Whether nginx is known to have run another configuration than the block is of."""
        return any(found != self.configuration for found in self.ran)
