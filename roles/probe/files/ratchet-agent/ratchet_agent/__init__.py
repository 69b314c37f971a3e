"""The probe: measures two nginx configurations, in alternating blocks or side by side, on the host itself.

`ratchet-agent run` reads a plan, then commands, from stdin, and writes events on stdout, all as JSON lines
(docs/architecture.md). Its rows are described in docs/csv.md. Standard library of Python 3.11 only, one thread.

How it measures:
* Open loop: request i is due at `t0 + i * interval`, whatever became of the ones before it, and its latency counts
  from then. A stall of the server is therefore seen whole (no coordinated omission). The pool of connections grows.
* Saturation, when the plan asks for it, is a closed loop: each of N connections sends again as soon as it is answered.
  The arms of a duet take short turns: at once, each would get what the other leaves, and both what one thread can ask.
* One epoll with a timerfd: `epoll.poll(timeout)` and asyncio have millisecond timers: more than a response takes.
* The time of a response is the kernel's receive stamp of its last segment (SO_TIMESTAMPNS), so that waking up late
  does not count as the server's latency. TLS runs in memory over the raw socket to keep those stamps.
* Live traffic (`"source": "live"`) is not asked for but read, block by block, from the log that nginx keeps of it.
* Whatever is not probing (switching, body hashes, side metrics, writing rows) happens between the timed stretches.

On a host all of it is one file, which an update may replace under a running trial: every room is loaded at the start,
none later. No room imports one that needs it; pyproject.toml has their order.
"""

VERSION = "1"
PLAN_FORMAT = 1
