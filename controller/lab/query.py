"""What a request asks: its body; and of lists label selectors, filters, sorting, pages, as the API describes them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from controller.lab.replies import ApiError, invalid

Document = dict[str, Any]
Parameters = Mapping[str, list[str]]

_KEY = r"(?:[a-z0-9A-Z](?:[a-z0-9A-Z._-]{0,251}[a-z0-9A-Z])?/)?[a-z0-9A-Z](?:[a-z0-9A-Z._-]{0,61}[a-z0-9A-Z])?"
_VALUE = r"(?:[a-z0-9A-Z](?:[a-z0-9A-Z._-]{0,61}[a-z0-9A-Z])?)?"
KEY = re.compile(_KEY)
VALUE = re.compile(_VALUE)
_COMPARISON = re.compile(rf"({_KEY})\s*(==|=|!=)\s*({_VALUE})")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")
_MAX_PER_PAGE = 50


def check_labels(labels: object) -> dict[str, str]:
    """Labels of a request. Raises ApiError."""
    if not isinstance(labels, dict):
        raise invalid("labels", "must be an object")
    for key, value in labels.items():
        if not KEY.fullmatch(key) or not isinstance(value, str) or not VALUE.fullmatch(value):
            raise invalid("labels", f"{key}={value} is not a valid label")
    return labels


def selector(text: str) -> Callable[[Mapping[str, str]], bool]:
    """A label selector as a predicate: `k`, `!k`, `k=v`, `k==v`, `k!=v`, `k in (a,b)`, `k notin (a,b)`, by commas."""
    terms = [_term(part.strip()) for part in re.split(r",(?![^(]*\))", text)] if text.strip() else []
    return lambda labels: all(term(labels) for term in terms)


def _term(text: str) -> Callable[[Mapping[str, str]], bool]:
    if match := _COMPARISON.fullmatch(text):
        key, operator, value = match.groups()
        return (
            (lambda labels: labels.get(key) != value) if operator == "!=" else (lambda labels: labels.get(key) == value)
        )
    if match := _SET.fullmatch(text):
        key, operator, listed = match.groups()
        values = [value.strip() for value in listed.split(",")]
        if all(VALUE.fullmatch(value) for value in values):
            wanted = operator == "in"
            return lambda labels: (labels.get(key) in values) == wanted
    if match := _EXISTS.fullmatch(text):
        absent, key = match.groups()
        return lambda labels: (key in labels) != bool(absent)
    raise invalid("label_selector", f"invalid label selector: {text!r}")


def _number(parameters: Parameters, name: str, default: int) -> int:
    text = parameters.get(name, [str(default)])[-1]
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise invalid(name, "must be a positive number")
    return int(text)


def filtered(documents: Iterable[Document], parameters: Parameters, fields: Iterable[str]) -> list[Document]:
    """Documents that match every given parameter among `fields`, and the label selector."""
    chosen = list(documents)
    for field in fields:
        if wanted := parameters.get(field):
            chosen = [document for document in chosen if str(document.get(field)) in wanted]
    for text in parameters.get("label_selector", []):
        matches = selector(text)
        chosen = [document for document in chosen if matches(document.get("labels", {}))]
    return chosen


def ordered(documents: list[Document], parameters: Parameters, fields: Iterable[str]) -> list[Document]:
    """Sorted by each `sort=FIELD[:asc|:desc]`, the first one weighing most; by id otherwise."""
    allowed = set(fields)
    chosen = sorted(documents, key=lambda document: document["id"])
    for rule in reversed(parameters.get("sort", [])):
        field, _, direction = rule.partition(":")
        if field not in allowed or direction not in {"", "asc", "desc"}:
            raise invalid("sort", f"cannot sort by {rule!r}")
        chosen.sort(key=lambda document: document[field] or "", reverse=direction == "desc")
    return chosen


def page(documents: list[Document], parameters: Parameters) -> tuple[list[Document], dict[str, Any]]:
    """One page and its `meta`."""
    number, size = _number(parameters, "page", 1), _number(parameters, "per_page", 25)
    if size > _MAX_PER_PAGE:
        raise invalid("per_page", f"must be at most {_MAX_PER_PAGE}")
    last = max(1, -(-len(documents) // size))
    meta = {
        "page": number,
        "per_page": size,
        "previous_page": number - 1 if 1 < number <= last + 1 else None,
        "next_page": number + 1 if number < last else None,
        "last_page": last,
        "total_entries": len(documents),
    }
    return documents[(number - 1) * size : number * size], {"pagination": meta}


@dataclass(frozen=True)
class Call:
    """One request, authenticated and read. `path`: after /v1."""

    method: str
    path: str
    parameters: dict[str, list[str]]
    raw_body: bytes
    token: str

    @property
    def body(self) -> dict[str, Any]:
        """The JSON object of the request; empty without a body. Raises ApiError."""
        try:
            document = json.loads(self.raw_body or b"{}")
        except ValueError as error:
            raise ApiError("json_error", f"invalid JSON in the request body: {error}") from error
        if not isinstance(document, dict):
            raise ApiError("json_error", "the request body must be a JSON object")
        return document

    def name_and_labels(self) -> tuple[str | None, dict[str, str] | None]:
        """What a PUT may change."""
        body = self.body
        name, labels = body.get("name"), body.get("labels")
        if name is not None and not (isinstance(name, str) and name):
            raise invalid("name", "must be a string")
        return name, None if labels is None else check_labels(labels)
