"""Live traffic, on a real nginx: what users did comes from its log, block by block, and nothing is lost or made up."""

from __future__ import annotations

import http.server
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.judge.gain import gain
from controller.judge.summary import recompute
from controller.model.trial import Pair
from ratchet_agent.errors import AgentError
from ratchet_agent.live_log import LiveLog, parse_logged
from tests.traffic import Traffic

pytestmark = pytest.mark.measures

RATE = 60
PATHS = ["/api/items?name=somebody", "/small.txt", "/api/others"]


class Upstream(http.server.BaseHTTPRequestHandler):
    """Takes as many milliseconds as the first part of the path says; answers 503 to /broken."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        time.sleep(int(self.path.split("/")[1]) / 1000)
        self.send_response(503 if self.path.endswith("/broken") else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.fixture
def live(nginx: Any, upstream: int) -> Any:
    """nginx with a live log; the control's API takes 24 ms, the variant's 8."""
    log = nginx.folder / "live.log"
    log.unlink(missing_ok=True)
    log.touch()
    writes = f"access_log {log} ratchet_live buffer=64k flush=1s;"
    nginx.write_settings(
        configurations={
            "base": "",
            **{
                name: f"{writes} location /api/ {{ proxy_pass http://127.0.0.1:{upstream}/{delay}/; }}"
                for name, delay in (("slow", 24), ("quick", 8))
            },
        }
    )
    return nginx


def live_plan(plan_of: Any, port: int, **changed: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "source": "live",
        "minimum_requests": 20,
        "arms": {"control": "slow", "variant": "quick"},
        "block_seconds": 1.0,
        "burn_in_seconds": 0.2,
    }
    plan: dict[str, Any] = plan_of(port, **(values | {"workload": {"timeout_ms": 400}} | changed))
    return plan


def test_what_users_did_is_told_by_block_and_class_and_can_be_recomputed(
    laboratory: Any, live: Any, plan_of: Any
) -> None:
    with Traffic("127.0.0.1", live.port, PATHS, rate=RATE):
        told = laboratory.blocks(live_plan(plan_of, live.port, pairs=2))
    evidence = laboratory.evidence()
    blocks = recompute(evidence.text, evidence.sidecar)
    assert [block.model_dump(mode="json") for block in blocks] == told
    assert [block.valid for block in blocks] == [True] * 4
    for block in blocks:
        assert block.requests == pytest.approx(RATE, rel=0.1)
        assert block.classes["api"].requests == pytest.approx(2 * RATE / 3, rel=0.1)
        assert block.classes["api"].mean_us == pytest.approx(24_000 if block.arm == "control" else 8_000, rel=0.4)
        assert block.errors == 0
        assert block.metrics.cpu_us_per_request is not None
    pairs = [
        Pair(host="here", number=block.pair, **{each.arm: each for each in (block, blocks[2 * block.pair - 1])})
        for block in blocks[::2]
    ]
    # Two in three requests gain ln(24/8); the rest, static ones, are below what the log can tell.
    assert [gain(pair, "mean", "switchback") for pair in pairs] == [pytest.approx(0.7, abs=0.2)] * 2


def test_the_rows_hold_no_path_and_no_request_of_the_probe(laboratory: Any, live: Any, plan_of: Any) -> None:
    with Traffic("127.0.0.1", live.port, PATHS, rate=RATE):
        laboratory.blocks(live_plan(plan_of, live.port, workload={"requests": [{"path": "/api/probe"}]}))
    evidence = laboratory.evidence()
    assert "somebody" not in evidence.text
    assert "somebody" not in (live.folder / "live.log").read_text()
    assert {row["class"] for row in evidence.rows} == {"api", "other"}
    assert {row["intended_us"].startswith("-") for row in evidence.rows} == {True, False}
    # The hash of its body was taken before the burn-in, so its time is in no row.
    assert evidence.sidecar["blocks"][0]["bodies"].keys() == {"GET /api/probe"}
    assert all(int(row["intended_us"]) >= -200_000 for row in evidence.rows)


def test_a_fast_failure_counts_as_the_timeout(laboratory: Any, live: Any, plan_of: Any) -> None:
    with Traffic("127.0.0.1", live.port, ["/api/a", "/api/broken"], rate=RATE):
        blocks = laboratory.blocks(live_plan(plan_of, live.port, workload={"timeout_ms": 900}))
    for block in blocks:
        assert block["errors"] == pytest.approx(RATE / 2, rel=0.2)
        assert block["error_classes"].keys() == {"status"}
        assert block["p99_us"] == 900_000


def test_a_rotation_of_the_log_within_a_block_loses_nothing(laboratory: Any, live: Any, plan_of: Any) -> None:
    with Traffic("127.0.0.1", live.port, PATHS, rate=RATE):
        agent = laboratory.start(live_plan(plan_of, live.port, block_seconds=3.0))
        agent.until("ready")
        time.sleep(2)
        log: Path = live.folder / "live.log"
        log.rename(live.folder / "live.log.1")
        log.touch()
        live.reopen()
        events = agent.rest()
    assert events[-1]["reason"] == "complete"
    blocks = [event["block"] for event in events if event["event"] == "block"]
    assert [block["valid"] for block in blocks] == [True, True]
    assert [block["requests"] for block in blocks] == [pytest.approx(3 * RATE, rel=0.05)] * 2
    assert log.stat().st_size > 0


def _rotate(live: Any, number: int) -> None:
    """As logrotate does, but for what it tells nginx."""
    log: Path = live.folder / "live.log"
    log.rename(live.folder / f"live.log.{number}")
    log.touch()


def _measured_over(laboratory: Any, plan: dict[str, Any], rotations: list[tuple[float, Any]]) -> list[dict[str, Any]]:
    """The blocks of an agent while at each of these seconds something is done with the log."""
    agent = laboratory.start(plan)
    agent.until("ready")
    begun = time.monotonic()
    for second, rotation in rotations:
        time.sleep(max(0.0, begun + second - time.monotonic()))
        rotation()
    events = agent.rest()
    assert events[-1]["reason"] == "complete"
    return [event["block"] for event in events if event["event"] == "block"]


def test_several_rotations_within_a_block_lose_nothing_though_one_old_file_is_kept(
    laboratory: Any, live: Any, plan_of: Any
) -> None:
    def rotate() -> None:
        _rotate(live, 1)
        live.reopen()

    with Traffic("127.0.0.1", live.port, PATHS, rate=RATE):
        plan = live_plan(plan_of, live.port, block_seconds=6.0)
        blocks = _measured_over(laboratory, plan, [(1.5, rotate), (3.0, rotate), (4.5, rotate)])
    assert [block["valid"] for block in blocks] == [True, True]
    assert [block["requests"] for block in blocks] == [pytest.approx(6 * RATE, rel=0.05)] * 2


def test_lines_that_come_to_a_rotated_file_are_read_as_well_after_the_next_beginning(tmp_path: Path) -> None:
    path = tmp_path / "live.log"
    old = path.open("wb", buffering=0)
    log = LiveLog(path)
    old.write(b"one\ntw")
    path.rename(tmp_path / "live.log.1")
    path.touch()
    assert list(log.lines()) == [b"one"]
    old.write(b"o\n")
    assert list(log.lines()) == [b"two"]
    log.skip()
    old.write(b"three\n")
    path.write_bytes(b"four\n")
    assert list(log.lines()) == [b"three", b"four"]


def test_a_block_of_more_than_it_may_be_is_ended_before_it_fills_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratchet_agent.live_log.MAX_LOG_BYTES", 1000)
    path = tmp_path / "live.log"
    path.touch()
    log = LiveLog(path)
    log.skip()
    path.write_bytes(b"x" * 600)
    log.keep_up()
    # What is held open takes its space of the disk, whatever logrotate has removed.
    path.unlink()
    path.write_bytes(b"x" * 600)
    with pytest.raises(AgentError, match="in one block; plan shorter blocks"):
        log.keep_up()


def test_a_log_that_is_cut_makes_the_block_invalid(laboratory: Any, live: Any, plan_of: Any) -> None:
    with Traffic("127.0.0.1", live.port, PATHS, rate=RATE):
        # So much that what the block adds does not hide it.
        (live.folder / "live.log").write_text("x" * 200_000 + "\n")
        agent = laboratory.start(live_plan(plan_of, live.port, minimum_requests=1))
        agent.until("ready")
        time.sleep(1)
        (live.folder / "live.log").write_text("")
        first = agent.until("block")["block"]
        agent.rest()
    assert not first["valid"]
    assert "the live log was cut" in first["invalid_reason"]
    evidence = laboratory.evidence()
    assert not recompute(evidence.text, evidence.sidecar)[0].valid


def test_too_little_traffic_is_no_evidence_and_is_told(laboratory: Any, live: Any, plan_of: Any) -> None:
    with Traffic("127.0.0.1", live.port, ["/small.txt"], rate=5):
        blocks = laboratory.blocks(live_plan(plan_of, live.port))
    for block in blocks:
        assert not block["valid"]
        assert f"{block['requests']} requests in 1 s of live traffic" in block["invalid_reason"]
    evidence = laboratory.evidence()
    assert [block.valid for block in recompute(evidence.text, evidence.sidecar)] == [False, False]


def test_without_any_traffic_the_blocks_are_empty(laboratory: Any, live: Any, plan_of: Any) -> None:
    blocks = laboratory.blocks(live_plan(plan_of, live.port))
    assert [(block["requests"], block["valid"], block["classes"]) for block in blocks] == [(0, False, {})] * 2
    evidence = laboratory.evidence()
    assert [block.requests for block in recompute(evidence.text, evidence.sidecar)] == [0, 0]


def test_without_the_log_nothing_is_measured_and_the_baseline_is_back(laboratory: Any, live: Any, plan_of: Any) -> None:
    (live.folder / "live.log").unlink()
    error = laboratory.run(live_plan(plan_of, live.port))[-1]
    assert (error["event"], error["code"]) == ("error", "probe")
    assert "nginx_live_log" in error["message"]
    assert error["restored"] == {"configuration": "base", "verified": True}


def test_a_duet_of_live_traffic_is_refused(laboratory: Any, live: Any, plan_of: Any) -> None:
    error = laboratory.run(live_plan(plan_of, live.port, design="duet"))[-1]
    assert (error["event"], error["code"]) == ("error", "plan")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b'1700000000.123 0.004 200 512 1 api',
        b'1700000000.123 0.004 200 512 1 Api "-"',
        b'1700000000 0.004 200 512 1 api "-"',
        b'1700000000.123 0.004 200 512 1 api "-" 10.0.0.1',
        b'{"time": 1}',
    ],
)  # fmt: skip
def test_what_is_no_line_of_the_log_is_not_taken_for_one(line: bytes) -> None:
    assert parse_logged(line) is None


def test_a_request_began_when_it_ended_less_what_it_took() -> None:
    logged = parse_logged(b'1700000001.005 1.250 000 512 3 api "0.001, 1.240"')
    assert (logged.begun_ms, logged.took_ms, logged.status) == (1_699_999_999_755, 1250, 0)
    assert (logged.size, logged.reused, logged.label) == (512, True, "api")
