"""Whatever a host answers, it is data: one that lies or is broken ends with an error that names it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from controller.model.answers import read_object
from controller.workflow.fleet import claims, hosts
from controller.workflow.trial import evidence
from controller.workflow.trial.evidence import EvidenceInvalid, read_host

DEEP = "[" * 200_000
STATUS: dict[str, Any] = {"ok": True, "confirmed": "a" * 16, "live": "a" * 16, "nginx": {"running": True}}


@pytest.mark.parametrize("text", [DEEP, '{"a":' * 200_000, "[1]", "null", '"x"', "", "{", '{"a":' + "9" * 5000 + "}"])
def test_what_is_no_json_object_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        read_object(text)


@pytest.mark.parametrize(
    "sidecar", [DEEP, "[]", "null", '{"csv":[1]}', '{"csv":7}', '{"csv":null}', '{"csv":{"sha256":[]}}', "{}"]
)
@pytest.mark.parametrize("expected", [None, [1], {}])
def test_a_sidecar_of_any_kind_is_invalid_evidence_of_that_host(tmp_path: Path, sidecar: str, expected: Any) -> None:
    (tmp_path / "web.json").write_text(sidecar)
    (tmp_path / "web.csv.gz").write_bytes(gzip.compress(b"x\n"))
    with pytest.raises(EvidenceInvalid, match=r"^web: "):
        read_host(tmp_path, "web", expected)


def test_a_csv_that_unpacks_beyond_every_trial_s_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "LARGEST_CSV_BYTES", 1 << 20)
    (tmp_path / "web.json").write_text("{}")
    (tmp_path / "web.csv.gz").write_bytes(gzip.compress(bytes(2 << 20)))
    with pytest.raises(EvidenceInvalid, match="unpacks to more than 1 MiB"):
        read_host(tmp_path, "web", None)


@pytest.mark.parametrize(
    "change", [{"confirmed": {"a": 1}}, {"confirmed": "../../x"}, {"live": "<script>"}, {"nginx": "x"}, {"nginx": None}]
)
def test_a_status_of_another_shape_is_refused(change: dict[str, Any]) -> None:
    assert hosts.check_status(dict(STATUS)) == STATUS
    assert hosts.check_status(STATUS | {"live": "original", "confirmed": None})
    with pytest.raises(ValueError, match=next(iter(change))):
        hosts.check_status(STATUS | change)


@pytest.mark.parametrize("said", [DEEP, '["ok"]', "{}", '{"ok":"yes"}', '{"ok":false,"claim":"x"}', "null"])
def test_an_answer_to_a_claim_of_another_shape_names_the_host(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    host = hosts.Host(name="web", address="127.0.0.1", key_file=Path("/x"), known_hosts=Path("/y"))
    monkeypatch.setattr(claims, "ask", lambda *_, **__: (0, said, ""))
    with pytest.raises(claims.HostFailed, match="gave no answer"):
        claims.ask_program(host, "claim")


def test_a_name_that_is_no_text_can_be_written_down_wherever_it_is_told() -> None:
    found = read_object(
        r'{"drift": {"conf.d/caf\udce9.conf": "was added"}, "saved": ["\ud83d\ude00", "a\ud800"], "ok": true}'
    )
    assert found == {"drift": {r"conf.d/caf\xe9.conf": "was added"}, "saved": ["\U0001f600", r"a\x00"], "ok": True}
    assert json.dumps(found, ensure_ascii=False).encode()
