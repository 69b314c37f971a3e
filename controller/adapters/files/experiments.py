"""Read experiments: `experiments/<name>/meta.json`, validated as model/experiment.py says."""

from __future__ import annotations

from pathlib import Path

from controller.adapters.files.documents import Document, read_json
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.files.validation import validate
from controller.model.designs import DESIGNS
from controller.model.errors import BadInput
from controller.model.experiment import CHANGES_SOCKETS, Choice, Experiment, GoalsObjective, NumberRange
from controller.model.metrics import METRICS
from controller.model.project import Project

META = "meta.json"
# What the probe says itself, about the connection and the body's length.
OWN_HEADERS = {"connection", "content-length", "transfer-encoding", "upgrade", "expect"}


def experiment_names(project: Project) -> list[str]:
    """Names of the project's experiments, sorted: the folders with a meta.json."""
    return _names_in(project.experiments)


def shipped_names(project: Project) -> list[str]:
    """Names of the experiments that ship with Ratchet and that the project has none of its own for, sorted."""
    own = set(experiment_names(project))
    return [name for name in _names_in(project.shipped_experiments) if name not in own]


def _names_in(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if (entry / META).is_file()) if folder.is_dir() else []


def load_experiments(project: Project, names: list[str] | None = None) -> list[Experiment]:
    """The named experiments in the order given, each once; all of the project's, sorted by name, when there are none.

    A shipped experiment may be named too. Raises BadInput with file, line and field.
    """
    own = experiment_names(project)
    folders = dict.fromkeys(shipped_names(project), project.shipped_experiments) | dict.fromkeys(
        own, project.experiments
    )
    wanted = own if not names else list(dict.fromkeys(names))
    if not wanted:
        raise BadInput(
            "there are no experiments", where=str(project.experiments), next_step="controller init DIR writes one"
        )
    for name in wanted:
        if name not in folders:
            raise BadInput(
                f"unknown experiment {name}",
                where=str(project.experiments),
                next_step=did_you_mean(name, sorted(folders), what="experiment"),
            )
    return [read_experiment(folders[name] / name / META) for name in wanted]


def read_experiment(path: Path) -> Experiment:
    """One experiment. Raises BadInput with file, line, field and what was expected."""
    document = read_json(path)
    value = document.value
    if isinstance(value, dict):
        value = {"name": path.parent.name} | value
        value.pop("$schema", None)
    experiment = validate(Experiment, document, value=value)
    if experiment.name != path.parent.name:
        raise BadInput(
            f"`name` is {experiment.name!r}, but the folder is {path.parent.name!r}",
            where=document.where(("name",)),
            next_step="give both the same name, or leave `name` out",
        )
    if bool(experiment.variants) == bool(experiment.ranges):
        raise BadInput(
            "an experiment has either `variants` or `ranges`, found " + ("both" if experiment.variants else "neither"),
            where=document.where(("ranges",) if experiment.ranges else ()),
            next_step="`variants` for first-winner and race, `ranges` for --strategy bayes",
        )
    design = None if experiment.design == "auto" else DESIGNS[experiment.design]
    if experiment.source == "live" and design is not None and design.not_live:
        raise BadInput(
            f"{design.not_live}: live traffic cannot be measured in the design {experiment.design}",
            where=document.where(("design",)),
            next_step="leave `design` out",
        )
    _check_sockets(document, experiment)
    _check_variants(document, experiment)
    _check_ranges(document, experiment)
    _check_timing(document, experiment)
    _check_workload(document, experiment)
    _check_metrics(document, experiment)
    return experiment


def _check_sockets(document: Document, experiment: Experiment) -> None:
    """What opens and closes sockets is not switched to and fro under users: each time it would reset connections."""
    if experiment.source == "live":
        place, way = ("source",), "live traffic is measured by switching the live instance"
    elif experiment.design != "auto" and not DESIGNS[experiment.design].at_once:
        place, way = ("design",), f"the design {experiment.design} switches the live instance"
    else:
        return
    varied = {name for variant in experiment.variants for name in variant.parameters} | experiment.ranges.keys()
    named = sorted(CHANGES_SOCKETS & varied)
    if named:
        raise BadInput(
            f"{way}, and `{named[0]}` opens and closes the sockets that users ask at: requests would be lost",
            where=document.where(place),
            next_step=f"leave `{place[0]}` out: it is measured in a duet, on shadow instances",
        )


def _check_variants(document: Document, experiment: Experiment) -> None:
    seen: dict[str, int] = {}
    for index, variant in enumerate(experiment.variants):
        if variant.name in seen:
            raise BadInput(
                f"two variants are called {variant.name!r}",
                where=document.where(("variants", index, "name")),
                next_step="a variant's name is what its verdict is told by: give each its own",
            )
        for earlier, at in seen.items():
            if experiment.variants[at].parameters == variant.parameters:
                raise BadInput(
                    f"the variants {earlier!r} and {variant.name!r} set the same parameters",
                    where=document.where(("variants", index, "parameters")),
                    next_step="leave one of them out: it would only cost evidence",
                )
        seen[variant.name] = index


def _check_ranges(document: Document, experiment: Experiment) -> None:
    if experiment.ranges and isinstance(experiment.objective, GoalsObjective):
        raise BadInput(
            "`ranges` are searched by one number, which goals that are each judged by themselves do not give",
            where=document.where(("objective", "combine")),
            next_step='`"combine": "weighted"`, or one metric',
        )
    known = dict(experiment.requires)
    for name, each in experiment.ranges.items():
        place = ("ranges", name)
        if name in experiment.requires:
            raise BadInput(
                f"`{name}` is both required and varied", where=document.where(place), next_step="leave one of them out"
            )
        if not isinstance(each, Choice) and each.low >= each.high:
            raise BadInput(
                f"`low` ({each.low}) must be below `high` ({each.high})",
                where=document.where((*place, "low")),
                next_step="a parameter with one value belongs in `requires`",
            )
        if isinstance(each, NumberRange):
            _check_decimals(document, name, each)
        if not isinstance(each, Choice) and each.log and (each.low <= 0 or getattr(each, "step", 1) != 1):
            raise BadInput(
                "a `log` range needs a `low` above 0, and no `step`",
                where=document.where((*place, "log")),
                next_step="begin the range at 1, or leave `log` out",
            )
        for condition in each.when:
            if condition not in known:
                raise BadInput(
                    f"the condition `{condition}` is neither an earlier range nor in `requires`",
                    where=document.where((*place, "when", condition)),
                    next_step=did_you_mean(condition, known, what="parameter"),
                )
        known[name] = True
    if experiment.constraints and not experiment.ranges:
        raise BadInput(
            "`constraints` are for `ranges`", where=document.where(("constraints",)), next_step="leave them out"
        )


def _check_decimals(document: Document, name: str, each: NumberRange) -> None:
    """Raise BadInput where rounding would take an end of the range beyond it."""
    for end, value in (("low", each.low), ("high", each.high)):
        if round(value, each.decimals) != value:
            raise BadInput(
                f"`{end}` ({value:g}) has more decimals than the {each.decimals} that values are rounded to",
                where=document.where(("ranges", name, end)),
                next_step="raise `decimals` (up to 6), or round the end",
            )


def _check_timing(document: Document, experiment: Experiment) -> None:
    timing = experiment.timing
    if timing.minimum_pairs > timing.maximum_pairs:
        raise BadInput(
            f"`timing.minimum_pairs` ({timing.minimum_pairs}) is above `timing.maximum_pairs` ({timing.maximum_pairs})",
            where=document.where(("timing", "minimum_pairs")),
            next_step="raise the maximum or lower the minimum",
        )


def _check_workload(document: Document, experiment: Experiment) -> None:
    """What the probe would refuse on the hosts, said before anything is sent there."""
    workload = experiment.workload
    if experiment.design != "auto" and DESIGNS[experiment.design].between_hosts and workload.rate is None:
        raise BadInput(
            f"the design {experiment.design} needs `workload.rate`: it is not calibrated where hosts are compared with "
            "hosts",
            where=document.where(("workload",)),
            next_step="say how many requests a second each host is asked",
        )
    if workload.scheme == "https" and not all(0 < len(label) < 64 for label in workload.host.split(".")):
        raise BadInput(
            f"`workload.host` {workload.host[:80]!r} cannot be a TLS server name",
            where=document.where(("workload", "host")),
            next_step="its labels, between the dots, have 1 to 63 characters",
        )
    for index, request in enumerate(workload.requests):
        place = ("workload", "requests", index)
        for name in request.headers:
            if name.lower() in OWN_HEADERS:
                raise BadInput(
                    f"the header {name} is the probe's own",
                    where=document.where((*place, "headers", name)),
                    next_step="leave it out; `workload.connections` says how connections are used",
                )
        if request.body and request.method != "POST":
            raise BadInput(
                f"a {request.method} has no body",
                where=document.where((*place, "body")),
                next_step="leave the body out, or make it a POST",
            )


def _check_metrics(document: Document, experiment: Experiment) -> None:
    """The objective is one that the workload can tell.

    At saturation latency only says how many connections are open; at a steady rate throughput is that rate.
    """
    if experiment.source == "live" and experiment.workload.mode == "saturation":
        raise BadInput(
            "real users cannot be asked for as much as nginx can answer",
            where=document.where(("workload", "mode")),
            next_step='leave `"source": "live"` or `"mode": "saturation"` out',
        )
    mode = experiment.workload.mode
    for metric in experiment.objective.weights:
        spec = METRICS[metric]
        if experiment.source == "live" and spec.not_live:
            raise BadInput(
                f"{metric} {spec.not_live}",
                where=document.where(("objective",)),
                next_step="ask for mean or p90: live traffic is compared class by class of its paths anyway",
            )
        if mode not in spec.modes:
            fit = ", ".join(sorted(name for name, each in METRICS.items() if mode in each.modes))
            raise BadInput(
                f"{metric} cannot be judged with the workload's mode `{mode}`",
                where=document.where(("objective",) if "objective" in document.value else ("workload",)),
                next_step='`"mode": "saturation"` in `workload`' if mode == "steady" else f"at saturation use {fit}",
            )
