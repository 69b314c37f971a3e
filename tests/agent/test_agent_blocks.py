"""What the probe measures, on a real nginx."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import os
import signal
import statistics
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from controller.judge.summary import recompute
from ratchet_agent import prober
from ratchet_agent.clock import clock_offset
from ratchet_agent.lane import Lane
from ratchet_agent.loop import Loop
from ratchet_agent.plan_parsing import parse_plan
from ratchet_agent.rows import Rows
from ratchet_agent.schedule import Mix
from ratchet_agent.side_metrics import active_connections
from ratchet_agent.summary import summarise

pytestmark = pytest.mark.measures

GZIP = {"Accept-Encoding": "gzip"}
MIX = [
    {"path": "/small.txt", "weight": 3},
    {"path": "/data.json", "headers": GZIP},
    {"path": "/posted", "method": "POST", "body": "a=1", "expect_status": 201},
    {"path": "/missing", "weight": 2, "expect_status": 404},
    {"path": "/data.json", "method": "HEAD"},
]


@pytest.mark.parametrize("design", ["switchback", "duet"])
def test_the_judge_recomputes_exactly_the_summaries_that_came_live(
    design: str, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    # One request of the mix is answered otherwise than expected, so that errors are recomputed too.
    requests = [*MIX, {"path": "/small.txt", "expect_status": 206}]
    live = laboratory.blocks(plan_of(nginx.port, pairs=3, design=design, workload={"requests": requests}))
    evidence = laboratory.evidence()
    recomputed = [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)]
    assert recomputed == live
    assert len(live) == 6
    assert all(block["error_classes"].keys() == {"status"} for block in live)
    assert all((block["paired_gain"] is not None) == (design == "duet") for block in live)


def test_a_host_of_a_fleet_begins_each_period_on_control_and_waits_for_the_next(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    pairs = [["control", "variant"], ["control", "control"]]
    plan = plan_of(nginx.port, pairs=pairs, design="fleet", pair_seconds=4.0)
    live = laboratory.blocks(plan)
    evidence = laboratory.evidence()
    recomputed = recompute(evidence.text, evidence.sidecar)
    assert [block.model_dump(mode="json") for block in recomputed] == live
    assert [(block.arm, block.configuration) for block in recomputed] == [
        ("control", "base"), ("variant", "light"), ("control", "base"), ("control", "base"),
    ]  # fmt: skip
    assert live[2]["started_at"] - live[0]["started_at"] == pytest.approx(4.0, abs=0.5)
    # Control after control is switched to as well, so that both arms are equally old.
    assert nginx.log()[0].endswith("--design switchback --bound 3600")
    assert sum('"switch"' in line for line in nginx.log()) == 4


def test_a_fleets_host_that_would_not_begin_on_control_is_refused(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    error = laboratory.run(plan_of(nginx.port, pairs=[["variant", "control"]], design="fleet"))[-1]
    assert (error["event"], error["code"]) == ("error", "plan")


def test_a_duet_tells_the_cheaper_arm_by_pairs_of_requests(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    plan = plan_of(
        nginx.port,
        pairs=2,
        design="duet",
        arms={"control": "heavy", "variant": "light"},
        workload={"requests": [{"path": "/data.json", "headers": GZIP}], "rate": 100},
    )
    blocks = laboratory.blocks(plan)
    assert all(block["paired_gain"] > 0.1 for block in blocks)
    assert {block["configuration"] for block in blocks if block["arm"] == "variant"} == {"light"}
    assert len({block["bodies"]["GET /data.json"] for block in blocks}) == 1


def test_a_duets_rows_alternate_between_the_arms_in_an_order_that_is_drawn(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    laboratory.blocks(plan_of(nginx.port, design="duet", block_seconds=1))
    rows = laboratory.evidence().rows
    slots = [(first, second) for first, second in zip(rows[::2], rows[1::2], strict=True)]
    assert all(first["seq"] == second["seq"] and first["arm"] != second["arm"] for first, second in slots)
    assert all(int(second["intended_us"]) - int(first["intended_us"]) == 2500 for first, second in slots)
    leading = Counter(first["arm"] for first, _ in slots)
    assert min(leading.values()) > len(slots) / 4


def test_a_soak_switches_once_and_probes_the_variant_alone(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    live = laboratory.blocks(plan_of(nginx.port, design="soak", pairs=[["variant"]] * 4, burn_in_seconds=0))
    assert [(block["pair"], block["block"], block["arm"]) for block in live] == [
        (n, n, "variant") for n in (1, 2, 3, 4)
    ]
    switches = [json.loads(line) for line in nginx.log() if '"switch"' in line]
    assert [switch["configuration"] for switch in switches] == ["light"]
    evidence = laboratory.evidence()
    recomputed = [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)]
    assert recomputed == live


def test_a_stall_of_the_server_is_seen_whole(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, block_seconds=2, workload={"rate": 200}))
    agent.until("block")
    _wait_for_switches(nginx, 2)
    time.sleep(0.9)
    workers = nginx.workers()
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    stopped = time.monotonic()
    time.sleep(0.3)
    for worker in workers:
        os.kill(worker, signal.SIGCONT)
    stall_ms = (time.monotonic() - stopped) * 1000
    agent.until("end")
    block = laboratory.evidence().sidecar["blocks"][1]
    rows = [row for row in laboratory.evidence().counted() if row["block"] == "2"]
    waited = [int(row["kernel_us"] or row["latency_us"]) / 1000 for row in rows]
    assert block["errors"] == 0
    assert max(waited) == pytest.approx(stall_ms, rel=0.1)
    # Every request that fell due in the stall waited for what was left of it: as many as the schedule has, not one.
    stalled = [ms for ms in waited if ms > 20]
    assert len(stalled) == pytest.approx((stall_ms - 20) / 5, rel=0.1)
    assert statistics.mean(stalled) == pytest.approx((stall_ms + 20) / 2, rel=0.1)


def test_a_reload_within_a_block_gives_no_false_error(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, block_seconds=1.5, workload={"rate": 400}))
    _wait_for_switches(nginx, 1)
    for _ in range(4):
        time.sleep(0.3)
        nginx.reload()
    assert agent.rest()[-1]["reason"] == "complete"
    blocks = laboratory.evidence().sidecar["blocks"]
    assert [block["errors"] for block in blocks] == [0, 0]
    assert [block["requests"] for block in blocks] == [600, 600]


def test_tls_on_fresh_connections_resumes_sessions(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    workload = {"scheme": "https", "connections": "fresh", "rate": 100}
    blocks = laboratory.blocks(plan_of(nginx.tls, workload=workload))
    evidence = laboratory.evidence()
    assert [block["errors"] for block in blocks] == [0, 0]
    for counts in evidence.sidecar["connections"].values():
        assert counts["opened"] == 60
        assert counts["tls_full"] + counts["tls_resumed"] == 60
        assert counts["tls_resumed"] >= 55
    assert {row["reused"] for row in evidence.rows} == {"0"}


def test_tls_on_kept_connections_shakes_hands_once_each(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    blocks = laboratory.blocks(plan_of(nginx.tls, workload={"scheme": "https"}))
    evidence = laboratory.evidence()
    assert [block["errors"] for block in blocks] == [0, 0]
    for counts in evidence.sidecar["connections"].values():
        assert counts["tls_full"] == counts["opened"] < 60
    stamped = [row for row in evidence.counted() if row["kernel_us"]]
    assert len(stamped) > 0.9 * len(evidence.counted())


def test_a_weighted_mix_is_asked_for_in_its_proportions_and_alike_in_both_arms(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    blocks = laboratory.blocks(plan_of(nginx.port, workload={"requests": MIX, "rate": 160}))
    assert [block["errors"] for block in blocks] == [0, 0]
    assert blocks[0]["statuses"] == blocks[1]["statuses"] == {"200": 50, "201": 10, "404": 20}
    evidence = laboratory.evidence()
    by_arm = [[row["status"] for row in evidence.rows if row["arm"] == arm] for arm in "cv"]
    assert by_arm[0] == by_arm[1]
    mix = evidence.sidecar["schedule"]["mix"]
    for block in blocks:
        took: dict[int, list[int]] = {}
        for row in evidence.counted():
            if row["block"] == str(block["block"]):
                request = mix["cycle"][(mix["offsets"][0] + int(row["seq"])) % len(mix["cycle"])]
                took.setdefault(request, []).append(int(row["kernel_us"] or row["latency_us"]))
        assert [len(took[request]) for request in range(len(MIX))] == [80 * each.get("weight", 1) // 8 for each in MIX]
        p50s = {request: statistics.median_low(each) for request, each in took.items()}
        assert block["mean_p50_us"] == round(sum(p50s[request] * len(took[request]) for request in took) / 80, 1)
    assert [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)] == blocks


def test_an_unexpected_status_is_an_error_that_counts_as_the_timeout(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    blocks = laboratory.blocks(plan_of(nginx.port, arms={"control": "base", "variant": "broken"}))
    variant = next(block for block in blocks if block["arm"] == "variant")
    assert variant["error_classes"] == {"status": 100}
    assert variant["statuses"] == {"503": 100}
    assert variant["p50_us"] == variant["user_p99_us"] == 1_000_000
    assert variant["bodies"] == {"GET /small.txt": "error:status"}
    assert variant["valid"]


def test_the_hash_of_a_compressed_body_is_that_of_the_plain_one(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    requests = [{"path": "/data.json", "headers": GZIP}, {"path": "/data.json"}]
    arms = {"control": "heavy", "variant": "base"}
    blocks = laboratory.blocks(plan_of(nginx.port, arms=arms, workload={"requests": requests, "rate": 50}))
    plain = hashlib.sha256((nginx.folder / "site/data.json").read_bytes()).hexdigest()
    for block in blocks:
        assert block["bodies"] == {"GET /data.json": plain, "GET /data.json #2": plain}
    assert blocks[0]["bytes"] != blocks[1]["bytes"]


def test_the_session_tells_nginx_cpu_memory_and_open_files(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    for design in ("switchback", "duet"):
        for block in laboratory.blocks(plan_of(nginx.port, design=design)):
            metrics = block["metrics"]
            assert metrics["cpu_us_per_request"] >= 0
            assert metrics["rss_bytes"] > 1 << 20
            assert metrics["open_files"] > 5
            assert metrics["retransmits"] >= 0
            assert metrics["psi_cpu_us"] is None or metrics["psi_cpu_us"] >= 0


def test_open_connections_are_told_by_stub_status(nginx: Any) -> None:
    assert active_connections(nginx.status) == 1
    assert active_connections(1) is None
    assert active_connections(nginx.port) is None


def test_rows_are_short_and_the_file_compresses_well(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    laboratory.blocks(plan_of(nginx.port, pairs=2, workload={"rate": 500}))
    evidence = laboratory.evidence()
    assert evidence.text.startswith("pair,block,arm,seq,intended_us,lag_us,latency_us,kernel_us,status,bytes,conn,")
    lines = evidence.text.splitlines(keepends=True)[1:]
    assert sum(map(len, lines)) / len(lines) <= 50
    packed = (laboratory.root / "r-1/1.csv.gz").read_bytes()
    assert len(packed) / len(lines) <= 20
    csv = evidence.sidecar["csv"]
    raw = gzip.decompress(packed)
    assert (csv["rows"], csv["bytes"]) == (len(lines), len(raw))
    assert csv["sha256"] == hashlib.sha256(raw).hexdigest()
    assert evidence.sidecar["complete"] is True


# With TLS a dozen megabytes of it are pages of OpenSSL's libraries, which other programs share.
@pytest.mark.parametrize(("scheme", "megabytes"), [("http", 25), ("https", 32)])
def test_memory_stays_small(scheme: str, megabytes: int, laboratory: Any, nginx: Any, plan_of: Any) -> None:
    port = nginx.tls if scheme == "https" else nginx.port
    agent = laboratory.start(plan_of(port, design="duet", pairs=2, workload={"scheme": scheme, "rate": 300}))
    peak = 0
    while (event := agent.event()) is not None:
        if event["event"] == "block":
            status = Path(f"/proc/{agent.process.pid}/status").read_text()
            peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
    assert 0 < peak * 1024 <= megabytes * 1_000_000


def test_a_block_in_which_the_probe_lagged_is_marked_invalid(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, block_seconds=1, workload={"rate": 200}))
    agent.until("block")
    _wait_for_switches(nginx, 2)
    time.sleep(0.4)
    agent.process.send_signal(signal.SIGSTOP)
    time.sleep(0.15)
    agent.process.send_signal(signal.SIGCONT)
    block = agent.until("block")["block"]
    assert not block["valid"]
    assert block["invalid_reason"].startswith("the probe lagged")
    agent.until("end")
    evidence = laboratory.evidence()
    assert not recompute(evidence.text, evidence.sidecar)[1].valid


@pytest.mark.parametrize(
    ("instead", "told"), [("base", "nginx ran base after"), (None, "was restarted, or ran what nobody staged, after")]
)
def test_a_block_in_which_somebody_else_reloaded_nginx_is_invalid_and_says_what_ran(
    instead: str | None, told: str, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    agent = laboratory.start(plan_of(nginx.port, design="soak", pairs=[["variant"]] * 2, block_seconds=1))
    _wait_for_switches(nginx, 1)
    time.sleep(0.4)
    folder = nginx.folder / "live"
    somebodys = (folder / "frame.conf").read_text().replace("@HTTP@", "" if instead else "gzip on;")
    (folder / "nginx.conf").write_text(somebodys)
    nginx.reload()
    during, later = agent.until("block")["block"], agent.until("block")["block"]
    assert (during["ran"], later["ran"]) == (["light", instead], [instead, instead])
    assert not during["valid"] and told in during["invalid_reason"]
    assert not later["valid"] and "before this block, not light" in later["invalid_reason"]
    agent.until("end")
    evidence = laboratory.evidence()
    assert [block.astray for block in recompute(evidence.text, evidence.sidecar)] == [True, True]


@pytest.mark.parametrize("design", ["switchback", "duet", "fleet"])
def test_each_block_tells_what_nginx_ran(design: str, laboratory: Any, nginx: Any, plan_of: Any) -> None:
    plan = plan_of(nginx.port, pairs=[("control", "variant")], design=design)
    for block in laboratory.blocks(plan):
        assert block["ran"] == [block["configuration"]] * 2
        assert "nginx ran" not in block["invalid_reason"]


def test_what_a_session_does_not_tell_is_held_against_no_block(bare_laboratory: Any, plan_of: Any) -> None:
    block = bare_laboratory.blocks(plan_of(1, workload={"rate": 20}))[0]
    assert block["ran"] == [] and "nginx ran" not in block["invalid_reason"]


def test_a_clock_that_is_set_within_a_block_takes_its_stamps_away(
    nginx: Any, plan_of: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = []
    for step_ns in (0, 200_000_000):
        offsets = iter([clock_offset(), clock_offset() + step_ns])
        with monkeypatch.context() as patch:
            patch.setattr(prober, "clock_offset", lambda offsets=offsets: next(offsets))
            rows, stretch = _probe_once(plan_of(nginx.port))
        block = summarise(rows, rows._plan, itertools.repeat(0), achieved=200.0, clock_set=stretch.clock_set)
        blocks.append((block, sum(stamp >= 0 for stamp in rows.kernel)))
    (steady, stamps), (jumped, no_stamps) = blocks
    assert "clock" not in steady["invalid_reason"] and stamps > 100
    assert not jumped["valid"] and no_stamps == 0
    assert "the host's clock was set" in jumped["invalid_reason"]


def _probe_once(document: dict[str, Any]) -> tuple[Any, Any]:
    plan = parse_plan(json.dumps(document).encode())
    rows = Rows(plan, 1, 1, "control")
    lane = Lane(rows, "base", plan.port, None, None)
    stretch = prober.Prober(Loop(), plan, Mix(plan), lambda: False).probe([lane], 1)
    lane.close()
    return rows, stretch


def test_latency_counts_from_the_intended_start_while_requests_queue_for_a_connection(
    bare_laboratory: Any, plan_of: Any, raw_server: Any
) -> None:
    """A server that takes 50 ms a request, 40 a second: the pool grows instead of waiting its turn."""

    def slow(connection: Any) -> None:
        while connection.recv(4096):
            time.sleep(0.05)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    blocks = bare_laboratory.blocks(plan_of(raw_server(slow).port, workload={"rate": 40}))
    assert all(block["errors"] == 0 for block in blocks)
    assert all(50_000 <= block["p50_us"] < 60_000 for block in blocks)
    assert max(int(row["conn"]) for row in bare_laboratory.evidence().rows) >= 2


ANSWERS = {
    "timeout": [None],
    "eof": [b""],
    "truncated": [b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"],
    "protocol": [b"SSH-2.0-OpenSSH_9.2\r\n\r\n"],
    "status": [b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"],
    "": [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", b"3;x=y\r\nyes\r", b"\n0\r\n\r\n"],
}


@pytest.mark.parametrize("error", ANSWERS)
def test_what_a_server_does_wrong_is_told_apart(
    error: str, bare_laboratory: Any, plan_of: Any, raw_server: Any
) -> None:
    released = threading.Event()

    def answer(connection: Any) -> None:
        connection.recv(4096)
        for part in ANSWERS[error]:
            if part is None:
                released.wait(5)
            else:
                connection.sendall(part)
                time.sleep(0.01)

    workload = {"rate": 20, "timeout_ms": 500}
    blocks = bare_laboratory.blocks(plan_of(raw_server(answer).port, body_sample=0, workload=workload))
    released.set()
    for block in blocks:
        assert block["error_classes"] == ({error: 10} if error else {})
        if error:
            assert block["p50_us"] == block["p99_us"] == 500_000
    evidence = bare_laboratory.evidence()
    assert [block.model_dump(mode="json") for block in recompute(evidence.text, evidence.sidecar)] == blocks


def test_a_refused_connection_is_an_error_of_the_server_not_of_the_probe(bare_laboratory: Any, plan_of: Any) -> None:
    blocks = bare_laboratory.blocks(plan_of(1, workload={"rate": 20}))
    assert all(block["error_classes"] == {"connect": 10} and block["valid"] for block in blocks)
    assert {row["status"] for row in bare_laboratory.evidence().rows} == {"0"}


def test_a_post_on_a_connection_that_was_closed_is_not_sent_twice(
    bare_laboratory: Any, plan_of: Any, raw_server: Any
) -> None:
    served: list[bytes] = []

    def once_then_close(connection: Any) -> None:
        served.append(connection.recv(4096))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        served.append(connection.recv(4096))

    requests = [{"path": "/", "method": "POST", "body": "x"}]
    plan = plan_of(raw_server(once_then_close).port, body_sample=0, workload={"rate": 20, "requests": requests})
    blocks = bare_laboratory.blocks(plan)
    assert all(block["error_classes"] == {"stale": 5} for block in blocks)
    # 2 blocks of 12 requests, each sent exactly once; the others are the ends of connections.
    assert len([data for data in served if data]) == 24


def test_a_get_on_a_connection_that_was_closed_is_sent_once_more(
    bare_laboratory: Any, plan_of: Any, raw_server: Any
) -> None:
    def once_then_close(connection: Any) -> None:
        connection.recv(4096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        connection.recv(4096)

    blocks = bare_laboratory.blocks(plan_of(raw_server(once_then_close).port, workload={"rate": 20}))
    assert all(block["errors"] == 0 for block in blocks)
    evidence = bare_laboratory.evidence()
    assert {row["reused"] for row in evidence.rows} == {"0", "2"}
    assert all(counts["stale"] >= 5 for counts in evidence.sidecar["connections"].values())


def test_a_duets_rate_is_told_right_when_it_is_low(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    blocks = laboratory.blocks(plan_of(nginx.port, design="duet", block_seconds=1, workload={"rate": 7}))
    assert [block["requests"] for block in blocks] == [7, 7]
    assert blocks[0]["achieved_rate"] == blocks[1]["achieved_rate"] == pytest.approx(7, rel=0.03)


def _wait_for_switches(nginx: Any, count: int) -> None:
    """Wait until the session has been told to switch so many times and the block's metrics were asked for."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        asked = [line for line in nginx.log() if '"metrics"' in line]
        if len(asked) >= 2 * count - 1:
            return
        time.sleep(0.005)
    raise AssertionError(nginx.log())
