"""Lay a parsed document against a model: each complaint names file, line, field, and what was expected."""

from __future__ import annotations

import typing
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from controller.adapters.files.documents import Document, Place
from controller.adapters.files.suggestions import did_you_mean
from controller.model.errors import BadInput

Model = TypeVar("Model", bound=BaseModel)

SHOWN_COMPLAINTS = 5
SHOWN_CHARACTERS = 60


def validate(model: type[Model], document: Document, *, place: Place = (), value: Any = None) -> Model:
    """The document's value at `place` as `model`.

    Args:
        value: what to validate instead of the value at `place`, when the caller has added to it.

    Raises BadInput naming the first few complaints.
    """
    if value is None:
        value = document.value
        for step in place:
            value = value[step]
    if not isinstance(value, dict):
        raise BadInput(
            f"{field_words(place)} must be a mapping, found {found_words(value)}",
            where=document.where(place),
            next_step="the fields are described in docs/, and by example in the shipped files",
        )
    try:
        return model.model_validate(value, strict=True)
    except ValidationError as error:
        raise _bad_input(model, document, place, error) from None


def _bad_input(model: type[BaseModel], document: Document, place: Place, error: ValidationError) -> BadInput:
    """pydantic tells one error for each member of a union; those of one place are one complaint."""
    grouped: dict[Place, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        grouped.setdefault(_place_in_document(document, place, details), []).append(details)
    complaints = [(at, _complaint(model, place, at, details)) for at, details in grouped.items()]
    (first, (what, step)), rest = complaints[0], complaints[1:]
    for at, (text, _) in rest[: SHOWN_COMPLAINTS - 1]:
        what += f"\n  {document.where(at)}: {text}"
    if len(rest) >= SHOWN_COMPLAINTS:
        what += f"\n  and {len(rest) - SHOWN_COMPLAINTS + 1} more"
    return BadInput(what, where=document.where(first), next_step=step or "mend the field, then run the command again")


def _place_in_document(document: Document, place: Place, details: ErrorDetails) -> Place:
    full = _without_tags(document, place, details["loc"])
    if details["type"] in {"missing", "extra_forbidden"}:
        return full
    if full and full[-1] == "[key]":
        return full[:-1]
    while len(full) > len(place) and document.positions and not document.holds(full):
        full = full[:-1]
    return full


def _without_tags(document: Document, place: Place, steps: Place) -> Place:
    """pydantic names the member of a union that it tried as a step of its own, which no document holds."""
    full = place
    for index, step in enumerate(steps):
        last = index == len(steps) - 1
        if last or isinstance(step, int) or not document.positions or document.holds((*full, step)):
            full = (*full, step)
    return full


def _complaint(model: type[BaseModel], root: Place, at: Place, details: list[ErrorDetails]) -> tuple[str, str]:
    """(what is wrong, next step or empty)."""
    kind = details[0]["type"]
    if kind == "missing":
        return f"{field_words(at)} is missing", f"add {at[-1]}"
    if kind == "extra_forbidden":
        known = fields_at(model, at[len(root) : -1])
        step = did_you_mean(str(at[-1]), known, what="field") if known else ""
        return f"unknown field {field_words(at)}", step
    first, *others = dict.fromkeys(_expected(one["msg"]) for one in details)
    expected = " or ".join([first, *(text.removeprefix("expected ") for text in others)])
    if details[0]["loc"][-1:] == ("[key]",):
        return f"the name {str(at[-1])[:SHOWN_CHARACTERS]!r}: {expected}", ""
    return f"{field_words(at)}: {expected}, found {found_words(details[0]['input'])}", ""


def _expected(message: str) -> str:
    text = message.removeprefix("Input should be ").removeprefix("Value error, ")
    return f"expected {text}" if text != message and message.startswith("Input") else text[:1].lower() + text[1:]


def field_words(place: Place) -> str:
    """`variants[0].name`, or `the document`."""
    text = ""
    for step in place:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return f"`{text.removeprefix('.')}`" if text else "the document"


def found_words(value: Any) -> str:
    """The value as the operator wrote it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    try:
        text = repr(value) if not isinstance(value, bool) else str(value).lower()
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return "a number without end"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[: SHOWN_CHARACTERS - 3]}..."


def fields_at(model: type[BaseModel], place: Place) -> list[str]:
    """Names of the fields that the model knows at a place; empty where any are allowed."""
    current = [model]
    for step in place:
        if not isinstance(step, int):
            annotations = [each.model_fields[step].annotation for each in current if step in each.model_fields]
            current = [found for annotation in annotations for found in _inner_models(annotation)]
    return sorted({name for each in current for name in each.model_fields})


def _inner_models(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field may hold: several, where it is a union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for argument in typing.get_args(annotation) for found in _inner_models(argument)]
