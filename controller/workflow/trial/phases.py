"""The phases of a trial: each probes a plan that is made of the trial's, and has its name, folder, order and outcome.

To whoever probes, brings evidence home or verifies, a phase is a trial like any other.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from controller.judge.soak import soak_blocks
from controller.model.calibration import Look
from controller.model.events import PhaseName
from controller.model.experiment import AnyObjective, Experiment, GoalsObjective, Objective, WeightedObjective
from controller.model.metrics import METRICS, Metric
from controller.model.trial import Action, Stint, TrialPlan, TrialTiming


@dataclass(frozen=True)
class Phase:
    """One kind of probing in a trial.

    Args:
        passed: what its judge says when nothing is against the variant.
        folder: of its evidence, under the trial's; a trial's own where it is empty.
        suffix: of the run's id: under both the hosts keep its evidence.
        order: added to the trial's seed: its pairs have an order of their own.
    """

    name: PhaseName
    passed: Action
    folder: str = ""
    suffix: str = ""
    order: int = 0

    def host_run_id(self, run_id: str) -> str:
        """The name under which the hosts keep its evidence."""
        return run_id + self.suffix

    def directory(self, run_directory: Path, trial: int, part: int | None = None) -> Path:
        """Where its evidence is; `part`: the number of the stint or look."""
        folder = trial_directory(run_directory, trial) / self.folder
        return folder if part is None else folder / str(part)

    def seed(self, trial: TrialPlan) -> int:
        return trial.seed + self.order


TRIAL = Phase("trial", "keep")
LIVE_CHECK = Phase("live check", "no-harm", folder="live", suffix=".live", order=1)
SOAK = Phase("soak", "healthy", folder="soak", suffix=".soak", order=1)
STINT = Phase("stint", "keep", folder="stints", suffix=".stints", order=2)
CALIBRATION = Phase("calibration", "keep", folder="calibration", suffix=".calibration", order=3)


def trial_directory(run_directory: Path, number: int) -> Path:
    return run_directory / "trials" / str(number)


def recorded_plan(run_directory: Path, trial: TrialPlan) -> TrialPlan:
    """The plan with the configurations that its stints recorded; as it is when it was never measured."""
    path = trial_directory(run_directory, trial.number) / "plan.json"
    return TrialPlan.model_validate_json(path.read_text()) if path.is_file() else trial


# Valid pairs over all hosts together, too few to prove a gain, enough to see harm, and at least one a host; and how
# many times as many may be tried, where pairs are spoilt or those few look like harm.
LIVE_PAIRS = 6
LIVE_PAIRS_AT_MOST = 3


def live_timing(hosts: int) -> TrialTiming:
    """The timing of a live check on so many hosts."""
    pairs = max(LIVE_PAIRS, hosts)
    return TrialTiming(
        block_seconds=2.0,
        burn_in_seconds=0.3,
        minimum_pairs=pairs,
        maximum_pairs=LIVE_PAIRS_AT_MOST * pairs,
        confirm_pairs=0,
    )


def live_plan(trial: TrialPlan) -> TrialPlan:
    """The live check of a trial, as a trial: the same arms in a switchback, with an order of its own."""
    experiment = _steady(trial.experiment).model_copy(
        update={"objective": live_objective(trial.experiment.objective), "source": "probe"}
    )
    return trial.model_copy(
        update={
            "design": "switchback",
            "timing": live_timing(len(trial.hosts)),
            "seed": LIVE_CHECK.seed(trial),
            "experiment": experiment,
        }
    )


def _steady(experiment: Experiment) -> Experiment:
    """The probe's requests at the workload's rate: saturating the live instance would harm whom this is to protect."""
    return _asking(experiment, mode="steady")


def live_objective(objective: AnyObjective) -> AnyObjective:
    """What the live instance is asked: of several goals the first, and latency at the workload's rate for throughput.

    Six noisy pairs cannot tell several goals apart; the first one matters most, and the guardrails hold.
    """
    match objective:
        case GoalsObjective():
            return Objective(metric=_unsaturated(objective.goals[0].metric))
        case WeightedObjective():
            goals = [goal.model_copy(update={"metric": _unsaturated(goal.metric)}) for goal in objective.goals]
            return objective.model_copy(update={"goals": goals})
        case Objective():
            return objective.model_copy(update={"metric": _unsaturated(objective.metric)})


def _unsaturated(metric: Metric) -> Metric:
    return METRICS[metric].at_rate or metric


def soak_plan(trial: TrialPlan) -> TrialPlan:
    """The soak of a trial, as a trial: block after block of the variant, without a switch between them.

    The probe asks its workload, also where live traffic was judged.
    """
    blocks, seconds = soak_blocks(trial.soak_seconds)
    timing = TrialTiming(
        block_seconds=seconds, burn_in_seconds=0.0, minimum_pairs=blocks, maximum_pairs=blocks, confirm_pairs=0
    )
    experiment = _steady(trial.experiment).model_copy(update={"source": "probe"})
    return trial.model_copy(
        update={"design": "soak", "timing": timing, "seed": SOAK.seed(trial), "experiment": experiment}
    )


def stint_plan(trial: TrialPlan, stint: Stint) -> TrialPlan:
    """A stint as a trial of its hosts: numbered by the stint, with an order of its own."""
    timing = trial.timing.model_copy(update={"maximum_pairs": stint.pairs_per_host, "confirm_pairs": 0})
    hosts = stint.hosts or trial.hosts
    return trial.model_copy(
        update={"number": stint.number, "hosts": hosts, "timing": timing, "seed": STINT.seed(trial)}
    )


def look_plan(trial: TrialPlan, look: Look) -> TrialPlan:
    """A look as a trial of the host: the baseline in both arms, an order and a number of its own."""
    timing = TrialTiming(
        block_seconds=look.block_seconds,
        burn_in_seconds=0.0,
        minimum_pairs=1,
        maximum_pairs=look.pairs_per_host,
        confirm_pairs=0,
    )
    return trial.model_copy(
        update={
            "number": 100 * trial.number + look.number,
            "seed": CALIBRATION.seed(trial),
            "experiment": at_rate(trial.experiment, look.rate),
            "timing": timing,
            "variant_ids": trial.control_ids,
            "calibration": None,
        }
    )


def at_rate(experiment: Experiment, rate: float | None) -> Experiment:
    return _asking(experiment, rate=rate)


def _asking(experiment: Experiment, **changes: object) -> Experiment:
    return experiment.model_copy(update={"workload": experiment.workload.model_copy(update=changes)})
