"""Seal a run: its verdict, report and index entry, and the dashboards on the hosts.

No step of the workflow: a disk that is full is no outcome of a run. Whoever resumes it seals it again.
"""

from __future__ import annotations

from datetime import datetime

from jinja2 import TemplateError

from controller.adapters.ansible import run_playbook
from controller.adapters.files.atomic import write_atomically
from controller.adapters.files.kept import read_kept
from controller.adapters.files.runs import recorded_trials, trial_times
from controller.adapters.notify import alert
from controller.adapters.store import recent_results, record_result
from controller.model.errors import BadInput, HostFailed, RatchetError
from controller.model.events import Notice, StepStarted
from controller.model.run import RunPlan, RunResult
from controller.model.steps import RunEnded
from controller.model.trial import Pair, TrialPlan
from controller.report.page import report_page
from controller.report.state import dashboard_state
from controller.workflow.context import RunContext
from controller.workflow.fleet.hosts import on_each_host, read_status
from controller.workflow.fleet.quarantine import tell_left_out
from controller.workflow.trial import evidence
from controller.workflow.trial.batch import read_stints
from controller.workflow.trial.phases import trial_directory

RUNS_ON_DASHBOARD = 10
SEAL_AGAIN = "mend that, then: controller resume"


def seal(context: RunContext, ended: RunEnded) -> RunResult:
    """Write `verdict.json` and `report.html`, refresh the dashboards, alert, record the run. It may happen twice.

    What cannot be rendered or refreshed is a notice: the verdicts stand without
    it. Raises HostFailed when the verdict cannot be written; the run is unfinished then.
    """
    try:
        return _seal(context, ended.result, ended.left, ended.kept)
    except HostFailed as error:
        raise HostFailed(
            f"the run has ended, but it is not sealed: {error.what}", where=error.where, next_step=SEAL_AGAIN
        ) from None


def _seal(context: RunContext, result: RunResult, left: dict[str, str], kept: str) -> RunResult:
    started = datetime.fromisoformat(result.started_at)
    statuses, _ = on_each_host(context.fleet.hosts, read_status)
    result = result.model_copy(
        update={
            "seconds": round((context.clock() - started).total_seconds(), 1),
            # As the run left them: who seals it late may find another run's. Whom it left out, it has left nothing.
            "baseline_after": dict(sorted(left.items())),
        }
    )
    result = tell_left_out(context, result, left, statuses)
    folder = context.run_directory(result.run_id)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise HostFailed(f"cannot be made: {error.strerror}", where=str(folder)) from None
    write_atomically(folder / "kept.after.yml", kept)
    write_atomically(folder / "verdict.json", result.model_dump_json(indent=1) + "\n")
    _write_report(context, result)
    if result.status != "taken-over":
        # Else the hosts are another run's, which may be measuring.
        refresh_dashboards(context, result, result.baseline_before | left)
    tell(context, result)
    # Last: until then a controller that is killed leaves an unfinished run, whose resumption seals it again.
    record_result(context.store, result, trial_times(context.project, result.run_id))
    return result


def tell(context: RunContext, result: RunResult) -> None:
    """Run the fleet's alert command when the run ended badly; its failure is a notice."""
    command = context.fleet.settings.trials.alert
    if not command or (result.status in {"completed", "interrupted"} and not result.quarantined):
        return
    document = {
        "run": result.run_id,
        "fleet": result.fleet,
        "status": result.status,
        "message": result.message,
        "quarantined": result.quarantined,
    }
    try:
        alert(command, document)
    except RatchetError as error:
        context.observer(Notice(level="warning", text=str(error)))


def _write_report(context: RunContext, result: RunResult) -> None:
    folder = context.run_directory(result.run_id)
    if not (folder / "plan.json").is_file():
        return  # the run ended before it had a plan
    try:
        plan = RunPlan.model_validate_json((folder / "plan.json").read_text())
        trials = recorded_trials(context.project, plan, [trial.trial for trial in result.trials])
        plan = plan.model_copy(update={"trials": trials})
        write_atomically(folder / "report.html", report_page(plan, result, judged_pairs(context, result)))
    except (OSError, ValueError, TemplateError, RatchetError) as error:
        context.observer(Notice(level="warning", text=f"report.html not written: {error}"))


def judged_pairs(context: RunContext, result: RunResult) -> dict[int, list[Pair]]:
    """Trial number -> its judged pairs, for the trials whose evidence is whole."""
    found: dict[int, list[Pair]] = {}
    for trial in result.trials:
        folder = trial_directory(context.run_directory(result.run_id), trial.trial)
        try:
            plan = TrialPlan.model_validate_json((folder / "plan.json").read_text())
            if trial.stints:
                stints = read_stints(context.run_directory(result.run_id), plan, trial.stints)
                found[trial.trial] = [pair for _, pairs in stints for pair in pairs]
            else:
                _, found[trial.trial] = evidence.judge_again(plan, folder, trial.sequence, None)
        except (OSError, ValueError, evidence.EvidenceInvalid):
            continue
    return found


def refresh_dashboards(context: RunContext, result: RunResult, configurations: dict[str, str]) -> None:
    """Regenerate every host's dashboard through its role, with this run and those before; failures are notices."""
    context.observer(StepStarted(text="refreshing the dashboards"))
    try:
        earlier = recent_results(context.store, context.fleet.name, RUNS_ON_DASHBOARD)
        kept = read_kept(context.project, context.fleet.name)
    except (BadInput, HostFailed) as error:
        context.observer(Notice(level="warning", text=f"dashboards not refreshed: {error}"))
        return
    recent = [result, *(run for run in earlier if run.run_id != result.run_id)]
    states = {
        host: dashboard_state(
            fleet=context.fleet.name,
            host=host,
            configuration=configuration,
            parameters_kept=kept,
            runs=recent[:RUNS_ON_DASHBOARD],
            generated_at=context.now(),
        )
        for host, configuration in configurations.items()
    }
    try:
        played = run_playbook(
            context.project,
            context.fleet.name,
            "dashboard.yml",
            limit=sorted(configurations),
            extra_vars={"dashboard_states": states},
        )
        for host, message in played.failures().items():
            context.observer(Notice(level="warning", host=host, text=f"dashboard not refreshed: {message}"))
    except RatchetError as error:
        context.observer(Notice(level="warning", text=f"dashboards not refreshed: {error.what}"))
