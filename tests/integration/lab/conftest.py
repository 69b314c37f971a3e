"""Validates answers of the lab against the published description of the Hetzner Cloud API."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import requests

# Lies beside a checkout of the project.
DESCRIPTION = Path(__file__).parents[4] / "shared" / "hcloud-openapi.json"
# Still in the description, gone from the API.
REMOVED = {"server": ["datacenter"]}


def _as_json_schema(node: Any) -> Any:
    """OpenAPI 3.0 knows `nullable`, JSON Schema does not."""
    if isinstance(node, list):
        return [_as_json_schema(item) for item in node]
    if not isinstance(node, dict):
        return node
    schema = {key: _as_json_schema(value) for key, value in node.items() if key not in {"nullable", "example"}}
    if node.get("nullable") is True:
        return {"anyOf": [{"type": "null"}, schema]}
    return schema


@cache
def description() -> dict[str, Any]:
    document: dict[str, Any] = _as_json_schema(json.loads(DESCRIPTION.read_text(encoding="utf-8")))
    for name, fields in REMOVED.items():
        schema = document["components"]["schemas"][name]
        schema["required"] = [field for field in schema["required"] if field not in fields]
    return document


@cache
def _paths() -> list[tuple[re.Pattern[str], dict[str, Any]]]:
    """Described paths, those without parameters first."""
    paths = sorted(description()["paths"].items(), key=lambda item: item[0].count("{"))
    return [(re.compile(re.sub(r"\{[^}]*\}", "[^/]+", path)), methods) for path, methods in paths]


class ContractClient:
    """Requests whose every answer must be as described; remembers what was asked."""

    def __init__(self, endpoint: str, token: str) -> None:
        self._endpoint = endpoint
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {token}"
        self.seen: set[tuple[str, str]] = set()

    def ask(self, method: str, path: str, body: Any = None, *, expect: int | None = None, **parameters: Any) -> Any:
        """The answer's document (None without content). Raises AssertionError when it breaks the contract."""
        answer = self._session.request(method, self._endpoint + path, json=body, params=parameters, timeout=60)
        if expect is not None:
            assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        pattern, responses = self._described(method, path)
        self.seen.add((method, pattern))
        response = responses.get(str(answer.status_code)) or responses.get(f"{answer.status_code // 100}xx")
        assert response is not None, f"{method} {path}: {answer.status_code} is not described"
        if answer.status_code == 204:
            return None
        schema = response["content"]["application/json"]["schema"]
        validator = jsonschema.Draft202012Validator(
            {**schema, "components": description()["components"]},
            format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER,
        )
        document = answer.json()
        problems = [f"{error.json_path}: {error.message[:200]}" for error in validator.iter_errors(document)]
        assert not problems, f"{method} {path} {answer.status_code}: {problems[:5]}"
        if answer.status_code != 401:
            assert all(f"RateLimit-{name}" in answer.headers for name in ("Limit", "Remaining", "Reset"))
        return document

    def _described(self, method: str, path: str) -> tuple[str, dict[str, Any]]:
        for pattern, methods in _paths():
            if pattern.fullmatch(path) and method.lower() in methods:
                return pattern.pattern, methods[method.lower()]["responses"]
        raise AssertionError(f"{method} {path} is not described")


@pytest.fixture(scope="session")
def contract_client(lab_session: Any) -> Callable[..., ContractClient]:
    """contract_client(token=...) asks the lab and holds every answer against the description."""
    if not DESCRIPTION.exists():
        pytest.skip("the API's description does not lie beside this checkout")
    return lambda token=lab_session.token: ContractClient(lab_session.endpoint, token)
