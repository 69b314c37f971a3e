"""Numbers and reason codes in plain words."""

from __future__ import annotations

from typing import get_args

import pytest

from controller.model.calibration import BlockLength, Calibration
from controller.model.experiment import Guardrails
from controller.model.trial import Effect, ReasonCode
from controller.report.words import (
    agreement_words,
    calibration_words,
    compact,
    duration_words,
    effect_words,
    evidence_words,
    percent,
    sentence,
    time_words,
    value_words,
)


@pytest.mark.parametrize("code", get_args(ReasonCode))
def test_every_reason_code_is_one_plain_sentence(code: ReasonCode) -> None:
    for guardrails in (None, Guardrails()):
        words = sentence(code, guardrails=guardrails)
        assert words
        assert "{" not in words
        assert not words.endswith(".")
        assert "-" not in code or code not in words


def test_a_reduction_reads_as_lower_with_its_interval() -> None:
    assert effect_words(Effect(estimate=0.382, low=0.351, high=0.41), "p50") == "p50 38.2 % lower (35.1 to 41.0 %)"


def test_harm_reads_as_higher_and_its_interval_follows_that_direction() -> None:
    assert effect_words(Effect(estimate=-0.04, low=-0.09, high=0.01), "p99") == "p99 4.0 % higher (-1.0 to 9.0 %)"


def test_nothing_measured_says_so() -> None:
    assert effect_words(None, "cpu_per_request") == "CPU per request not measured"


def test_a_guardrail_names_its_limit_when_it_is_known() -> None:
    assert "more than twice the control's" in sentence("guardrail-p99", guardrails=Guardrails())
    assert "more than 1.5 times the control's memory" in sentence("guardrail-memory", guardrails=Guardrails())
    assert "0.1 %" in sentence("guardrail-errors", guardrails=Guardrails())
    assert "twice" not in sentence("guardrail-p99")


def test_the_first_line_of_a_note_follows_where_it_tells_more() -> None:
    note = 'unknown directive "gzpi" in nginx.conf:12\nsecond line'
    assert sentence("rejected-by-nginx", note) == f"nginx refused the configuration: {note.splitlines()[0]}"
    assert "second" not in sentence("host-failed", note)
    assert sentence("futile", "whatever") == sentence("futile")


def test_a_long_note_is_cut() -> None:
    assert len(sentence("host-failed", "x" * 5000)) < 400


def test_evidence_is_told_against_its_threshold() -> None:
    assert evidence_words(143.4, 100) == "143 of 100"
    assert evidence_words(0.0, 0.0) == "-"
    assert compact(2.14e9) == "2.1e+09"
    assert compact(0.031) == "0.031"
    assert percent(-0.5) == "50.0 %"
    assert percent(12.0) == "1,200 %"


def test_durations_and_times_read_as_people_say_them() -> None:
    assert [duration_words(value) for value in (0.4, 48, 725, 7380)] == ["0 s", "48 s", "12 min 5 s", "2 h 3 min"]
    assert time_words("2026-11-23T20:15:00Z") == "2026-11-23 20:15 UTC"
    assert time_words("<now>") == "<now>"


def test_a_parameter_reads_as_in_its_file() -> None:
    assert [value_words(value) for value in ("8k", 4, True, ["a"])] == ["8k", "4", "true", '["a"]']


def test_what_a_host_says_cannot_steer_the_terminal() -> None:
    words = sentence("host-failed", "web-1: \x1b]0;pwned\x07 and \u202edenrut")
    assert words.isprintable()
    assert "\\x1b" in words


DUET = Effect(estimate=0.1, low=0.08, high=0.12)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0.05, 0.2, "it agrees with the duet, and is a gain by itself"),
        (-0.1, 0.2, "it agrees with the duet, but is too wide to show a gain by itself"),
        (-0.1, 0.09, "it overlaps with the duet's interval, but does not hold its estimate"),
        (-0.1, 0.07, "the designs disagree: that is less than the duet shows"),
        (0.13, 0.4, "the designs disagree: that is more than the duet shows"),
    ],
)
def test_the_live_instances_interval_is_held_against_the_duets(low: float, high: float, words: str) -> None:
    assert agreement_words(Effect(estimate=(low + high) / 2, low=low, high=high), DUET) == words


def test_a_calibration_tells_what_the_minimum_effect_costs_where_it_can_be_told() -> None:
    def words(cost: BlockLength, note: str = "") -> str:
        return calibration_words(
            Calibration(
                open=["block_seconds"],
                trial=1,
                hosts=["lab-1"],
                steps=[],
                rate=60.0,
                block_seconds=1.0,
                burn_in_seconds=0.3,
                noise=0.02,
                lengths=[cost],
                sound=True,
                note=note,
            )
        )

    known = BlockLength(block_seconds=1.0, noise=0.02, pairs=24.4, seconds=30.2)
    assert ", about 24 pairs and 30 s for the minimum effect" in words(known)
    never = BlockLength(block_seconds=1.0, noise=0.9, pairs=None, seconds=None)
    assert words(never, "it would drown").endswith("in 0 pairs (it would drown)")
