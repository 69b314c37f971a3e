"""Carry out one fault: a run, the fault at its moment, and the same checks for all."""

from __future__ import annotations

import json
import random
import re
import time
from concurrent.futures import ThreadPoolExecutor

from tests.faults.agreement import disagreements
from tests.faults.bay import Bay, BrokenHost
from tests.faults.fault import KILLED, PATIENCE, Fault, Outcome, Scene
from tests.faults.host_state import Baseline
from tests.faults.live_run import LiveRun
from tests.faults.secrets import ArgumentSampler, leaked_here, leaked_on_hosts, planted

MOMENT_SECONDS = 120.0
# How long to go on looking after the limit has passed, so that the true time can be told.
GRACE_SECONDS = 30.0
POLL_SECONDS = 0.15
# The controller could not reach a host, or is gone: what its next command would tidy up is still there.
LEFT_TO_ITSELF = {5, KILLED}


def exercise(bay: Bay, fault: Fault, rng: random.Random) -> Outcome:
    """Inject once. Never raises for what the fault did: that is in the outcome's problems."""
    secrets = planted(bay)
    sampler = ArgumentSampler(secrets)
    sampler.start()
    unfinished = bay.unfinished() if fault.goes_on else []
    if not unfinished:
        bay.reset()
    fault.prepare(bay)
    scene = Scene(bay, _start(bay, fault, unfinished), rng)
    problems: list[str] = []
    seconds: float | None = None
    try:
        if not _wait_for(fault, scene.run):
            return Outcome(fault.name, fault.group, [f"the moment never came: {scene.run.said[-600:]}"], None, False)
        scene.restart_clock()
        fault.inject(scene)
        if fault.seconds is not None:
            seconds, late = _wait_until_back(scene, fault.seconds, alone=fault.alone, edited=fault.edited)
            problems += late
        problems += _explained(bay, fault, scene.run)
    except Exception as error:  # the harness itself failed: say so, and go on with the next fault
        problems.append(f"{type(error).__name__}: {error}")
    finally:
        if not scene.run.ended:
            problems.append("the run did not end")
            scene.run.kill()
        try:
            fault.mend(scene)
        except Exception as error:
            problems.append(f"not mended: {error}")
    if fault.agrees:
        problems += disagreements(bay, scene.run)
    problems += [f"{host}: {what}" for host, found in verified(bay, scene.run).items() for what in found]
    problems += sampler.stop() + leaked_here(bay, secrets) + leaked_on_hosts(bay, secrets)
    problems += _nothing_lost(bay, scene.run)
    return Outcome(fault.name, fault.group, problems, seconds)


def _start(bay: Bay, fault: Fault, unfinished: list[str]) -> LiveRun:
    if unfinished:
        return bay.start("resume", unfinished[0], run_id=unfinished[0])
    if fault.rolls_back:
        return bay.start("rollback", "--fleet", bay.name, "--before", "last")
    return bay.start("optimize", "--fleet", bay.name, "--experiment", fault.experiment, "--seed", "7")


def _wait_for(fault: Fault, run: LiveRun) -> bool:
    deadline = time.monotonic() + MOMENT_SECONDS
    while not fault.moment.reached(run):
        if run.ended or time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return not run.ended


def allowed(bay: Bay, host: str, run: LiveRun) -> set[str]:
    """The configurations that may be the host's baseline now: the one it had, and a variant whose commit has begun."""
    found = {bay.baselines[host].configuration, *([bay.kept[host]] if host in bay.kept else [])}
    if run.has_begun("committing"):
        for plan in run.folder.glob("trials/*/plan.json"):
            found.add(json.loads(plan.read_text())["variant_ids"].get(host, ""))
    return found


def _wait_until_back(scene: Scene, limit: float, *, alone: bool, edited: bool) -> tuple[float, list[str]]:
    """(seconds until the last host was on its baseline, what is wrong with that)."""

    def back(host: BrokenHost) -> tuple[float, list[str]]:
        while True:
            state = host.state()
            taken = time.monotonic() - scene.since
            problems = state.problems(edited=edited, unasked=True)
            if not problems and state.running.configuration in allowed(scene.bay, host.name, scene.run):
                return taken, []
            if taken > limit + GRACE_SECONDS:
                return taken, problems or [f"its baseline is {state.running.configuration}"]
            time.sleep(POLL_SECONDS)

    hosts = [scene.host] if alone else scene.bay.hosts
    with ThreadPoolExecutor(max_workers=len(hosts)) as pool:
        results = list(pool.map(back, hosts))
    problems = [
        f"{host.name}: after {taken:.0f} s: {what}"
        for host, (taken, found) in zip(hosts, results, strict=True)
        for what in found
    ]
    longest = max(taken for taken, _ in results)
    if longest > limit and not problems:
        problems.append(f"back after {longest:.1f} s, the limit is {limit:.0f} s")
    return longest, problems


def verified(bay: Bay, run: LiveRun) -> dict[str, list[str]]:
    """Host -> what is wrong with it, asked over OpenSSH."""
    found: dict[str, list[str]] = {}
    for host, state in bay.states().items():
        found[host] = state.problems(unasked=run.process.returncode in LEFT_TO_ITSELF)
        if state.keeper != "running":
            found[host].append(f"its keeper is {state.keeper}")
        first: Baseline = bay.baselines[host]
        if state.running.configuration == first.configuration and state.running != first:
            found[host].append(f"its baseline is not what it was: {state.running}, not {first}")
        if state.running.configuration not in allowed(bay, host, run):
            found[host].append(f"its baseline is {state.running.configuration}, which no run has confirmed")
    return found


def _explained(bay: Bay, fault: Fault, run: LiveRun) -> list[str]:
    """Exit code, and one sentence about what happened; no traceback anywhere."""
    code = run.wait(fault.patience)
    problems = [] if code in fault.exits else [f"exit code {code}, not {sorted(fault.exits)}: {run.said[-500:]}"]
    text = run.said
    result = run.result()
    text += "\n" + str(result.get("message", ""))
    text += "".join(f"\n{trial['verdict']} {trial['reason']}: {trial['note']}" for trial in result.get("trials", []))
    if code == KILLED and not fault.rolls_back:
        text += bay.controller("runs").stdout
    if not re.search(fault.says, text):
        problems.append(f"not explained: expected {fault.says!r} in {text[-700:]!r}")
    if "Traceback" in text:
        problems.append(f"a traceback: {text[-1500:]}")
    return problems


def _nothing_lost(bay: Bay, run: LiveRun) -> list[str]:
    """The audit chain is whole; a sealed run's verdicts can be recomputed from its evidence."""
    problems = []
    audit = bay.controller("audit", "verify")
    if audit.returncode:
        problems.append(f"the audit log is not whole: {audit.stdout}{audit.stderr}")
    if run.result().get("trials") and (run.folder / "plan.json").exists():
        again = bay.controller("verify", run.run_id or "")
        if again.returncode:
            problems.append(f"the verdict cannot be recomputed: {again.stdout}{again.stderr}")
    return problems


def finish(bay: Bay) -> list[str]:
    """At the end of a group: everything broken off is resumed to its end, and an ordinary run is possible.

    A resumed trial without an end is stopped after its first pair: the question is only whether it ends well.
    """
    problems: list[str] = []
    for run_id in bay.unfinished():
        run = bay.start("resume", run_id, run_id=run_id)
        while not run.ended and not any(event.get("event") == "pair" for event in run.events()):
            time.sleep(0.05)
        endless = '"keep"' not in (run.folder / "request.json").read_text()
        if not run.ended and endless:
            run.process.terminate()
        code = run.wait(PATIENCE)
        # A trial that had lost its evidence to a full disk before the run was broken off has failed all the same.
        if code not in {0, 130} and not (code == 3 and run.result() and "No space left" in run.said):
            problems.append(f"resume of {run_id} ended with {code}: {run.said[-800:]}")
        if not run.result():
            problems.append(f"{run_id} is not sealed after it was resumed")
        problems += _nothing_lost(bay, run)
        problems += [f"{host}: {what}" for host, found in verified(bay, run).items() for what in found]
        # What this one has kept is nothing that the next one has confirmed.
        bay.reset()
    left = bay.unfinished()
    if left:
        problems.append(f"unfinished after resume: {left}")
    bay.reset()
    brief = bay.start("optimize", "--fleet", bay.name, "--experiment", "brief")
    code = brief.wait(PATIENCE)
    if code != 0:
        problems.append(f"an ordinary run afterwards ended with {code}: {brief.said[-800:]}")
    problems += [f"{host}: {what}" for host, found in verified(bay, brief).items() for what in found]
    return [problem for problem in problems if problem]
