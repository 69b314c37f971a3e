"""Check an experiment's parameters against the nginx role's own specification, before anything is rendered.

The role checks again when it renders (its filter `nginx_value`); this says it sooner, with file and line.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from controller.adapters.files.documents import Document, Place, read_json, read_yaml
from controller.adapters.files.experiments import META
from controller.adapters.files.suggestions import did_you_mean
from controller.adapters.files.validation import found_words
from controller.model.errors import BadInput
from controller.model.experiment import Experiment, ParameterValue
from controller.model.project import Project
from controller.model.ranges import amount, edges

KIND_WORDS = {"bool": "true or false", "int": "a whole number", "str": "text", "list": "a list of text"}


def check_parameters(project: Project, experiment: Experiment) -> None:
    """Raises BadInput, naming file, line and parameter, for the first that is unknown, outside its specification, or
    gains by serving less (unless the experiment says `allow_service_reduction`).
    """
    specification = _Specification(project)
    source = project.experiments / experiment.name / META
    document = read_json(source) if source.is_file() else Document(source, None)
    _check_ranges(specification, document, experiment)
    sets: list[tuple[Place, dict[str, ParameterValue]]] = [(("requires",), dict(experiment.requires))]
    for index, variant in enumerate(experiment.variants):
        sets.append((("variants", index, "parameters"), dict(variant.parameters)))
    for place, parameters in sets:
        for name, value in parameters.items():
            where = document.where((*place, name))
            specification.check(name, value, where)
            if not experiment.allow_service_reduction:
                specification.check_service(name, value, where)


def _check_ranges(specification: _Specification, document: Document, experiment: Experiment) -> None:
    """Both ends of a range, and every choice, must be allowed; constraints must be about parameters that exist."""
    for name, each in experiment.ranges.items():
        where = document.where(("ranges", name))
        for value in edges(each):
            specification.check(name, value, where)
            if not experiment.allow_service_reduction:
                specification.check_service(name, value, where)
    for index, constraint in enumerate(experiment.constraints):
        for at, name in enumerate(constraint.product):
            where = document.where(("constraints", index, "product", at))
            default = specification.default(name, where)
            values = edges(experiment.ranges[name]) if name in experiment.ranges else [default]
            for value in values:
                try:
                    amount(value, cpus=1)
                except ValueError:
                    raise BadInput(
                        f"`{name}` is no amount: {found_words(value)} cannot be multiplied",
                        where=where,
                        next_step="a constraint multiplies numbers, sizes such as 16k, counts of sizes such as 8 16k",
                    ) from None


def known_parameters(project: Project, hosts: Collection[Mapping[str, Any]]) -> dict[str, ParameterValue]:
    """The role's defaults with what all hosts' variables say over them: what a proposal is laid over, for arithmetic.

    Templates, and what hosts differ in, are left at the default.
    """
    found = _Specification(project).defaults()
    for name, default in found.items():
        said = [host.get(name, default) for host in hosts]
        same = bool(said) and all(type(one) is type(said[0]) and one == said[0] for one in said)
        if same and isinstance(said[0], bool | int | float | str) and "{{" not in str(said[0]):
            found[name] = said[0]
    return found


class _Specification:
    """`meta/argument_specs.yml` and `meta/bounds.yml` of the role. Raises BadInput when they are not as expected."""

    def __init__(self, project: Project) -> None:
        meta = project.roles / "nginx" / "meta"
        try:
            specs = read_yaml(meta / "argument_specs.yml").value
            self._options: dict[str, dict[str, Any]] = specs["argument_specs"]["main"]["options"]
            bounds = read_yaml(meta / "bounds.yml").value
            self._bounds: dict[str, dict[str, Any]] = bounds["parameters"]
            self._reducing: dict[str, list[Any]] = bounds["service_reducing"]
        except (KeyError, TypeError) as error:
            raise BadInput(
                f"the nginx role's specification is damaged: {error}",
                where=str(meta),
                next_step="restore roles/nginx, or reinstall",
            ) from None

    def defaults(self) -> dict[str, ParameterValue]:
        """Every parameter that an experiment may set, with its default."""
        return {
            name: option["default"]
            for name, option in self._options.items()
            if "default" in option and option.get("elements") != "dict"
        }

    def default(self, name: str, where: str) -> ParameterValue:
        """Raises BadInput when there is no such parameter."""
        value = self.defaults().get(name)
        if value is None:
            raise BadInput(
                f"unknown parameter `{name}`",
                where=where,
                next_step=did_you_mean(name, self._options, what="parameter"),
            )
        return value

    def check(self, name: str, value: ParameterValue, where: str) -> None:
        option = self._options.get(name)
        if option is None:
            raise BadInput(
                f"unknown parameter `{name}`",
                where=where,
                next_step=did_you_mean(name, self._options, what="parameter"),
            )
        if option["type"] == "list":
            if option.get("elements") == "dict":
                raise self._refuse(name, value, "set in the inventory: an experiment cannot vary it", where)
            if not isinstance(value, list) or not value:
                raise self._refuse(name, value, "a list with at least one item", where)
            for item in value:
                self._check_one(name, option["elements"], item, where)
        else:
            self._check_one(name, option["type"], value, where)

    def _check_one(self, name: str, kind: str, value: Any, where: str) -> None:
        option, bound = self._options[name], self._bounds.get(name, {})
        if not _is_kind(kind, value):
            raise self._refuse(name, value, KIND_WORDS.get(kind, kind), where)
        if "choices" in option:
            if str(value) not in option["choices"]:
                raise self._refuse(name, value, f"one of {', '.join(option['choices'])}", where)
        elif kind == "int" and not bound.get("minimum", value) <= value <= bound.get("maximum", value):
            raise self._refuse(name, value, f"between {bound['minimum']} and {bound['maximum']}", where)
        elif kind == "str" and not re.fullmatch(bound.get("pattern", r"[\x20-\x7e]*"), str(value), re.ASCII):
            raise self._refuse(name, value, f"of the form {bound.get('pattern', 'printable text')}", where)

    def check_service(self, name: str, value: ParameterValue, where: str) -> None:
        if any(type(value) is type(reducing) and value == reducing for reducing in self._reducing.get(name, [])):
            raise BadInput(
                f"`{name}` {found_words(value)} answers faster by serving less, which is no improvement",
                where=where,
                next_step="leave it out, or write `allow_service_reduction: true` in the experiment if it is meant",
            )

    def _refuse(self, name: str, value: Any, expected: str, where: str) -> BadInput:
        return BadInput(
            f"`{name}` must be {expected}, found {found_words(value)}",
            where=where,
            next_step="what each parameter allows is in roles/nginx/meta/argument_specs.yml and bounds.yml",
        )


def _is_kind(kind: str, value: Any) -> bool:
    if kind == "bool":
        return isinstance(value, bool)
    if isinstance(value, bool):
        return False
    # A number is as good as its text: `nginx_worker_processes: 2`.
    return isinstance(value, int) if kind == "int" else isinstance(value, str | int)
