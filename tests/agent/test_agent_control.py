"""How the probe starts, stops and fails: whatever happens, the baseline comes back and the reason is told."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ratchet_agent import record

pytestmark = pytest.mark.measures

AGENT = Path(__file__).resolve().parents[2] / "roles/probe/files/ratchet-agent"
SESSION = Path(__file__).resolve().with_name("session_double.py")
RESTORED = {"configuration": "base", "verified": True}


def test_the_end_of_input_stops_at_once_and_restores(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3, block_seconds=5))
    agent.until("ready")
    _wait_for(nginx, "metrics")
    time.sleep(0.3)
    left = time.monotonic()
    agent.stdin.close()
    end = agent.until("end")
    assert time.monotonic() - left < 3
    assert (end["reason"], end["restored"], end["csv"]["rows"]) == ("stopped", RESTORED, 0)
    assert nginx.log()[-1] == "restored"
    assert agent.process.wait(5) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_stops_at_once_and_restores(number: int, laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3, block_seconds=5))
    _wait_for(nginx, "metrics")
    agent.process.send_signal(number)
    end = agent.until("end")
    assert (end["reason"], end["restored"]) == ("stopped", RESTORED)


def test_a_killed_agent_leaves_its_finished_blocks_and_the_session_restores(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3))
    block = agent.until("block")["block"]
    agent.process.kill()
    deadline = time.monotonic() + 10
    while nginx.log()[-1] != "restored" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert nginx.log()[-1] == "restored"
    rows = (laboratory.root / "r-1/1.csv").read_text().splitlines()
    sidecar = json.loads((laboratory.root / "r-1/1.json").read_text())
    assert len(rows) >= 1 + block["requests"] + 20
    assert sidecar["complete"] is False
    assert sidecar["blocks"][0] == block


def test_stop_ends_after_the_block_under_way(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3))
    agent.until("block")
    agent.send({"command": "stop"})
    events = agent.rest()
    assert [event["event"] for event in events] == ["block", "end"]
    assert (events[-1]["reason"], events[-1]["restored"]) == ("stopped", RESTORED)
    assert laboratory.evidence().sidecar["complete"] is True


def test_a_verdict_ends_it_at_once_and_the_block_under_way_leaves_nothing(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3, block_seconds=5))
    block = agent.until("block")["block"]
    _wait_for(nginx, "metrics", times=3)
    began = time.monotonic()
    agent.send({"command": "conclude"})
    events = agent.rest()
    assert time.monotonic() - began < 4
    assert [event["event"] for event in events] == ["end"]
    assert (events[-1]["reason"], events[-1]["restored"]) == ("stopped", RESTORED)
    sidecar = laboratory.evidence().sidecar
    assert sidecar["complete"] is True
    assert sidecar["blocks"] == [block]
    assert {row["block"] for row in laboratory.evidence().rows} == {"1"}


def test_a_heartbeat_is_passed_on_to_the_lease_between_blocks(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port))
    agent.send({"command": "renew"})
    assert agent.rest()[-1]["reason"] == "complete"
    log = [json.loads(line)["command"] for line in nginx.log()[1:-1]]
    assert log.index("renew") in {0, 3}


def test_a_heartbeat_does_not_wait_for_the_end_of_a_block_that_outlasts_the_lease(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    agent = laboratory.start(plan_of(nginx.port, block_seconds=3, lease_seconds=1))
    _wait_for(nginx, "metrics")
    time.sleep(0.5)
    agent.send({"command": "renew"})
    _wait_for(nginx, "renew")
    assert [line for line in nginx.log() if "metrics" in line] == ['{"command": "metrics"}']
    agent.stdin.close()
    agent.until("end")


def test_the_agent_never_renews_the_lease_by_itself(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    laboratory.run(plan_of(nginx.port, lease_seconds=1))
    assert not [line for line in nginx.log() if "renew" in line]


def test_a_refused_switch_is_told_with_nginx_own_words(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    nginx.write_settings(refuse="switch")
    events = laboratory.run(plan_of(nginx.port))
    assert events[-1] == {
        "event": "error",
        "code": "switch",
        "message": "switch: nginx: [emerg] as the test wishes",
        "restored": RESTORED,
    }
    assert laboratory.agents[0].process.returncode == 1


def test_a_session_that_cannot_start_is_told_with_its_own_words(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    nginx.write_settings(refuse_start="another session holds the lock")
    error = laboratory.run(plan_of(nginx.port))[-1]
    assert (error["code"], error["restored"]) == ("session", None)
    assert "another session holds the lock" in error["message"]


def test_a_session_that_dies_within_a_trial_ends_it(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    nginx.write_settings(die_after="metrics")
    error = laboratory.run(plan_of(nginx.port, block_seconds=5))[-1]
    assert (error["code"], error["restored"]) == ("session", None)
    assert "the session ended" in error["message"]


@pytest.mark.parametrize("command", ["metrics", "renew"])
def test_a_session_that_hangs_ends_the_trial_within_seconds(
    laboratory: Any, nginx: Any, plan_of: Any, command: str
) -> None:
    """The controller lives, and must not wait for the lease: neither between the blocks nor within a long one."""
    nginx.write_settings(hang_at=command)
    agent = laboratory.start(plan_of(nginx.port, block_seconds=20, lease_seconds=1))
    _wait_for(nginx, "metrics")
    agent.send({"command": "renew"})
    _wait_for(nginx, "hangs as")
    hung = int(next(line for line in nginx.log() if "hangs as" in line).split()[-1])
    started = time.monotonic()
    try:
        error = agent.rest()[-1]
        assert time.monotonic() - started < 8
        assert (error["code"], error["restored"]) == ("session", None)
        assert error["message"] == f"the session did not answer '{command}' within 4 s"
    finally:
        # As the controller's rollback does; the double then restores, as its input has ended.
        os.kill(hung, signal.SIGCONT)
    _wait_for(nginx, "restored")


def test_a_run_s_session_says_for_whom_it_speaks_and_how_long_a_variant_may_be_live(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    laboratory.run(plan_of(nginx.port, bound_seconds=95, claim={"run": "r-9", "generation": 3}))
    assert nginx.log()[0] == "--lease 60 --design switchback --bound 95 --run r-9 --generation 3"


@pytest.mark.parametrize(
    ("bound", "switched"), [(3600, "light heavy light heavy"), (5, "light heavy base light heavy")]
)
def test_where_neither_arm_is_the_baseline_the_trial_goes_over_it_before_the_lease_is_spent(
    bound: int, switched: str, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    pairs = [("variant", "control")] * 2
    events = laboratory.run(
        plan_of(nginx.port, pairs=pairs, bound_seconds=bound, arms={"control": "heavy", "variant": "light"})
    )
    assert [event["event"] for event in events][-3:] == ["block", "block", "end"]
    told = [json.loads(line)["configuration"] for line in nginx.log() if '"switch"' in line]
    assert told == switched.split()


def test_a_lease_that_cannot_be_renewed_ends_the_trial(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    nginx.write_settings(refuse="renew")
    agent = laboratory.start(plan_of(nginx.port, pairs=3))
    agent.send({"command": "renew"})
    error = agent.rest()[-1]
    assert (error["code"], error["restored"]) == ("session", RESTORED)
    assert error["message"].startswith("the lease could not be renewed")


def test_a_missing_port_of_a_shadow_instance_says_what_to_correct(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    nginx.write_settings(ports={"a": {}, "b": {}})
    error = laboratory.run(plan_of(nginx.port, design="duet"))[-1]
    assert (error["code"], error["restored"]) == ("switch", RESTORED)
    assert f"does not listen on port {nginx.port}" in error["message"]


def test_what_is_no_command_ends_the_trial_and_restores(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3))
    agent.until("block")
    agent.send({"command": "format-disk"})
    error = agent.rest()[-1]
    assert (error["code"], error["restored"]) == ("plan", RESTORED)
    assert "format-disk" in error["message"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"not json\n", "the plan is not JSON"),
        (b"[" * 100_000 + b"\n", "the plan is not JSON"),
        (b'{"format": 2}\n', "plan.format: expected"),
        (b"", "stdin ended before"),
    ],
)
def test_a_bad_plan_is_one_clear_error_and_touches_nothing(
    line: bytes, words: str, laboratory: Any, nginx: Any
) -> None:
    agent = laboratory.start()
    agent.stdin.write(line)
    agent.stdin.close()
    events = agent.rest()
    assert [event["event"] for event in events] == ["error"]
    assert (events[0]["code"], events[0]["restored"]) == ("plan", None)
    assert words in events[0]["message"]
    assert agent.process.stderr.read() == b""
    assert agent.process.returncode == 1
    assert nginx.log() == [] and list(laboratory.root.iterdir()) == []


def test_a_plan_in_a_file_is_refused_since_its_end_would_mean_that_the_controller_is_gone(
    laboratory: Any, nginx: Any, plan_of: Any, tmp_path: Path
) -> None:
    (tmp_path / "plan.json").write_text(json.dumps(plan_of(nginx.port)) + "\n")
    with (tmp_path / "plan.json").open() as source:
        command = [sys.executable, str(AGENT), "--root", str(laboratory.root), "--session", "false", "run"]
        done = subprocess.run(command, stdin=source, capture_output=True, timeout=20, check=False)
    assert json.loads(done.stdout)["code"] == "plan"
    assert (done.returncode, done.stderr) == (1, b"")


def test_a_controller_that_does_not_read_any_more_is_gone(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=5))
    agent.until("block")
    agent.process.stdout.close()
    assert agent.process.wait(10) == 0
    assert nginx.log()[-1] == "restored"


# --- the disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(laboratory: Any) -> Iterator[Path]:
    """The probe's folder on a file system of 20 MB."""
    if os.geteuid() != 0:
        pytest.skip("mounting needs root")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", str(laboratory.root)], check=True)
    yield laboratory.root
    subprocess.run(["umount", "-l", str(laboratory.root)], check=True)


def test_a_trial_that_does_not_fit_on_the_disk_is_refused_before_anything_is_switched(
    small_disk: Path, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    (small_disk / "ballast").write_bytes(bytes(6 << 20))
    error = laboratory.run(plan_of(nginx.port))[-1]
    assert (error["code"], error["restored"]) == ("disk", None)
    assert "14 MiB are free, this trial may need 17" in error["message"]
    assert nginx.log() == []


def test_a_disk_that_fills_up_ends_the_trial_and_restores(
    small_disk: Path, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3))
    agent.until("block")
    with (small_disk / "ballast").open("wb") as file:
        try:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError:
            pass
    error = agent.rest()[-1]
    assert (error["code"], error["restored"]) == ("disk", RESTORED)
    assert "No space left on device" in error["message"]


def test_rows_that_nobody_could_foresee_leave_the_host_its_reserve(
    small_disk: Path, laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    agent = laboratory.start(plan_of(nginx.port, pairs=3))
    agent.until("block")
    (small_disk / "ballast").write_bytes(bytes(5 << 20))
    error = agent.rest()[-1]
    assert (error["code"], error["restored"]) == ("disk", RESTORED)
    assert "16 MiB for the host's own" in error["message"]
    assert shutil.disk_usage(small_disk).free > 14 << 20


def _limited(laboratory: Any, plan: dict[str, Any], setting: str) -> dict[str, Any]:
    """The last event of an agent of which one limit is another."""
    module, _, assignment = setting.partition(" ")
    started = (
        f"import sys, ratchet_agent.{module} as it, ratchet_agent.main as main; it.{assignment}; sys.exit(main.main())"
    )
    session = f"{sys.executable} {SESSION} {laboratory.session_folder} --lease {{lease}} --design {{design}}"
    agent = subprocess.Popen(
        [sys.executable, "-c", started, "--root", str(laboratory.root), "--session", session, "run"],
        env={**os.environ, "PYTHONPATH": str(AGENT)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert agent.stdin and agent.stdout
    agent.stdin.write(json.dumps(plan).encode() + b"\n")
    agent.stdin.flush()
    *_, last = map(json.loads, agent.stdout)
    agent.stdin.close()
    assert agent.wait(10) == 1
    event: dict[str, Any] = last
    return event


def test_a_trial_that_would_take_the_hosts_memory_ends_restores_and_says_so(
    laboratory: Any, nginx: Any, plan_of: Any
) -> None:
    grow = {"mode": "saturation", "connections_open": 64, "requests": [{"path": "/small.txt"}]}
    # What Python and its libraries have mapped, and a little.
    limit = "commands MEMORY_BYTES = (int(open('/proc/self/statm').read().split()[0]) * 4096) + (12 << 20)"
    error = _limited(laboratory, plan_of(nginx.port, block_seconds=60, workload=grow), limit)
    assert (error["event"], error["code"], error["restored"]) == ("error", "probe", RESTORED)
    assert "MiB of the host's memory; plan shorter blocks" in error["message"]


def test_a_saturation_of_endless_rows_is_ended_and_told(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    grow = {"mode": "saturation", "requests": [{"path": "/small.txt"}]}
    error = _limited(laboratory, plan_of(nginx.port, block_seconds=60, workload=grow), "rows MOST_ROWS = 1000")
    assert (error["code"], error["restored"]) == ("probe", RESTORED)
    assert "over 500 requests in one block of a saturation; plan shorter blocks" in error["message"]


def test_evidence_without_end_is_ended_and_told(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    error = _limited(laboratory, plan_of(nginx.port, pairs=3), "record MOST_BYTES = 5000")
    assert (error["code"], error["restored"]) == ("disk", RESTORED)
    assert "of rows in one trial; plan fewer or shorter pairs" in error["message"]


def test_the_session_is_not_under_the_agents_limit(laboratory: Any, nginx: Any, plan_of: Any) -> None:
    agent = laboratory.start(plan_of(nginx.port, block_seconds=2))
    agent.until("ready")
    wait_for(lambda: _limit(agent.process.pid) != "unlimited")
    assert _limit(agent.process.pid) == str(512 << 20)
    children = Path(f"/proc/{agent.process.pid}/task/{agent.process.pid}/children").read_text().split()
    assert [_limit(int(child)) for child in children] == ["unlimited"]


def _limit(pid: int) -> str:
    """Of its address space, the soft one."""
    (line,) = (line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "address space" in line)
    return line.split()[3]


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + 10
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_old_runs_are_removed_by_number_and_by_size_but_never_the_run_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(record, "KEEP_RUNS", 3)
    monkeypatch.setattr(record, "KEEP_BYTES", 3000)
    for age in range(8):
        folder = tmp_path / f"r-{age}"
        folder.mkdir()
        (folder / "1.csv.gz").write_bytes(bytes(1600 if age == 1 else 1000))
        os.utime(folder, (1000 - age, 1000 - age))
    (tmp_path / "link").symlink_to("/etc")
    record.prune(tmp_path, keep="r-7")
    assert {folder.name for folder in tmp_path.iterdir()} == {"r-0", "r-1", "r-7", "link"}


# --- read and ssh ---------------------------------------------------------------------------------------------------


def _ssh(root: Path, asked: str | None) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ["PATH"]} | ({} if asked is None else {"SSH_ORIGINAL_COMMAND": asked})
    return subprocess.run(
        [sys.executable, str(AGENT), "--root", str(root), "--session", "false", "ssh"],
        env=environment, input=b"", capture_output=True, timeout=20, check=False,
    )  # fmt: skip


def test_the_forced_command_reads_a_trials_files(tmp_path: Path) -> None:
    (tmp_path / "r-1").mkdir()
    (tmp_path / "r-1/3.csv.gz").write_bytes(b"\x1f\x8brows")
    (tmp_path / "r-1/3.json").write_bytes(b"{}")
    assert _ssh(tmp_path, "ratchet-agent read r-1 3 csv").stdout == b"\x1f\x8brows"
    assert _ssh(tmp_path, "/usr/local/bin/ratchet-agent read r-1 3 sidecar").stdout == b"{}"
    missing = _ssh(tmp_path, "ratchet-agent read r-1 4 csv")
    assert missing.returncode == 1
    assert missing.stderr.decode().endswith("4.csv.gz: No such file or directory\n")


def test_the_forced_command_runs_a_plan(tmp_path: Path) -> None:
    done = _ssh(tmp_path, "/usr/local/bin/ratchet-agent run")
    assert json.loads(done.stdout)["code"] == "plan"


@pytest.mark.parametrize(
    "asked",
    [
        None, "", "id", "sh -c id", "ratchet-agent", "ratchet-agent run --root /tmp", "ratchet-agent run; id",
        "ratchet-agent run\n", "ratchet-agent  run", " ratchet-agent run", "ratchet-agent read ../etc 1 csv",
        "ratchet-agent read r-1 0 csv", "ratchet-agent read r-1 1 csv sidecar", "ratchet-agent read r-1 1 ../x",
        "ratchet-agent read .. 1 csv", "ratchet-agent ssh", "/opt/ratchet-agent run", "ratchet-agent --session id run",
        "ratchet-agent read r-1/../r-2 1 csv", "scp -f /etc/passwd", "internal-sftp", "\udcff",
    ],
)  # fmt: skip
def test_the_forced_command_allows_nothing_else(asked: str | None, tmp_path: Path) -> None:
    done = _ssh(tmp_path, asked)
    assert done.returncode == 2
    assert done.stdout == b""
    assert b"this key allows exactly" in done.stderr


def _wait_for(nginx: Any, command: str, times: int = 1) -> None:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if sum(f'"{command}"' in line or line.startswith(command) for line in nginx.log()) >= times:
            return
        time.sleep(0.005)
    raise AssertionError(nginx.log())
