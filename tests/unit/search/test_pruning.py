"""A winner loses every parameter whose removal costs nothing that can be shown."""

from __future__ import annotations

from controller.model.experiment import Experiment, ParameterValue
from controller.model.run import Importance
from controller.model.trial import Effect, ReasonCode, TrialResult
from controller.search.pruning import Removal, answer, concluded, holds, larger, next_removal

EXPERIMENT = Experiment.model_validate(
    {
        "name": "tune",
        "question": "Which settings are best?",
        "why": "to prune them",
        "risk": {"level": "low", "note": "none"},
        "sources": ["a test"],
        "workload": {"rate": 10, "requests": [{"path": "/"}]},
        "ranges": {
            "nginx_gzip_comp_level": {"kind": "integer", "low": 1, "high": 9},
            "nginx_open_file_cache": {"kind": "choice", "values": [False, True]},
            "nginx_open_file_cache_max": {
                "kind": "integer",
                "low": 10,
                "high": 1000,
                "when": {"nginx_open_file_cache": True},
            },
        },
    }
)
WINNER: dict[str, ParameterValue] = {
    "nginx_gzip_comp_level": 3,
    "nginx_open_file_cache": True,
    "nginx_open_file_cache_max": 500,
}


def result(reason: ReasonCode, effect: Effect | None) -> TrialResult:
    return TrialResult(
        trial=9,
        experiment="tune",
        variant="without",
        hosts=["h"],
        verdict="REVERT",
        reason=reason,
        objective="p50",
        design="duet",
        effect=effect,
        confirmed_effect=None,
        evidence=1.0,
        threshold=100.0,
        pairs=12,
        requests=100,
        errors=0,
        seconds=1.0,
        probing_seconds=1.0,
    )


def ask(answers: list[Importance]) -> Removal:
    asked = next_removal(EXPERIMENT, WINNER, answers)
    assert isinstance(asked, Removal)
    return asked


def test_dependants_are_asked_about_before_their_switch_and_go_with_it() -> None:
    first = ask([])
    assert first.parameter == "nginx_open_file_cache_max"
    assert "nginx_open_file_cache_max" not in first.variant
    needed = answer(EXPERIMENT, first, result("slower", Effect(estimate=-0.05, low=-0.06, high=-0.04)))
    assert needed.kept
    assert needed.loss is not None
    assert (needed.loss.estimate, needed.loss.low, needed.loss.high) == (0.05, 0.04, 0.06)
    second = ask([needed])
    assert second.parameter == "nginx_open_file_cache"
    assert second.control == WINNER
    assert second.variant == {"nginx_gzip_comp_level": 3}


def test_what_shows_no_harm_goes_and_the_next_is_asked_of_what_is_left() -> None:
    first = ask([])
    gone = answer(EXPERIMENT, first, result("undecided", Effect(estimate=-0.001, low=-0.01, high=0.008)))
    assert not gone.kept
    second = ask([gone])
    assert second.control == {"nginx_gzip_comp_level": 3, "nginx_open_file_cache": True}
    same = answer(EXPERIMENT, second, result("no-difference", None))
    assert not same.kept
    # The last parameter stays: a winner without any is the baseline.
    assert next_removal(EXPERIMENT, WINNER, [gone, same]) == {"nginx_gzip_comp_level": 3}


def test_a_small_loss_that_the_interval_excludes_from_being_none_is_harm() -> None:
    small = answer(EXPERIMENT, ask([]), result("undecided", Effect(estimate=-0.01, low=-0.015, high=-0.004)))
    assert small.kept


def test_a_guardrail_or_no_measurement_keeps_the_parameter() -> None:
    for reason, effect in (
        ("guardrail-memory", Effect(estimate=0.0, low=-0.1, high=0.1)),
        ("rejected-by-nginx", None),
    ):
        assert answer(EXPERIMENT, ask([]), result(reason, effect)).kept  # type: ignore[arg-type]


def test_what_is_left_holds_the_gain_when_it_seems_to_lose_little_of_the_minimum_effect() -> None:
    assert holds(result("no-difference", None), 0.03)
    assert holds(result("undecided", Effect(estimate=-0.014, low=-0.1, high=0.1)), 0.03)
    # What may be noise may be a loss too: the estimate decides, not the interval.
    assert not holds(result("undecided", Effect(estimate=-0.016, low=-0.1, high=0.1)), 0.03)
    assert not holds(result("undecided", None), 0.03)
    for reason in ("slower", "futile", "guardrail-memory", "rejected-by-nginx"):
        assert not holds(result(reason, Effect(estimate=0.1, low=0.0, high=0.2)), 0.03)  # type: ignore[arg-type]


def lost(parameter: str, loss: float | None) -> Importance:
    effect = None if loss is None else Effect(estimate=loss, low=loss - 0.1, high=loss + 0.1)
    return Importance(experiment="tune", parameter=parameter, value=1, trial=9, loss=effect, kept=False)


def test_the_dearer_half_comes_back_until_the_winner_is_whole() -> None:
    cheap_and_dear = [
        lost("nginx_open_file_cache_max", None),
        lost("nginx_open_file_cache", 0.01),
        lost("nginx_gzip_comp_level", 0.02),
    ]
    once = larger(EXPERIMENT, WINNER, {}, cheap_and_dear)
    assert once == {"nginx_gzip_comp_level": 3, "nginx_open_file_cache": True}
    assert larger(EXPERIMENT, WINNER, once, cheap_and_dear) == WINNER


def test_what_depends_on_another_comes_back_with_it() -> None:
    answers = [lost("nginx_open_file_cache_max", 0.02), lost("nginx_open_file_cache", 0.01)]
    assert larger(EXPERIMENT, WINNER, {"nginx_gzip_comp_level": 3}, answers) == WINNER


def test_a_parameter_that_came_back_is_told_as_kept_and_why() -> None:
    answers = [lost("nginx_open_file_cache", 0.01), lost("nginx_gzip_comp_level", 0.02)]
    gone, back = concluded(answers, {}, {"nginx_gzip_comp_level": 3}, experiment="tune", trial=7)
    assert (gone.kept, gone.note) == (False, "")
    assert (back.kept, back.note) == (True, "without it and others the gain was not held")


def test_what_no_question_was_about_is_kept_and_told_too() -> None:
    pruned: dict[str, ParameterValue] = {"nginx_gzip_comp_level": 3}
    answers = [lost("nginx_open_file_cache", 0.01)]
    (_, last) = concluded(answers, pruned, pruned, experiment="tune", trial=7)
    assert (last.parameter, last.value, last.trial, last.kept) == ("nginx_gzip_comp_level", 3, 7, True)
    assert last.note == "all that pruning left of the gain"
    # Its dependant went with the switch, unasked, and came back with it; the last that was left was never left out.
    notes = {each.parameter: each.note for each in concluded(answers, pruned, WINNER, experiment="tune", trial=7)}
    assert notes == {
        "nginx_open_file_cache": "without it and others the gain was not held",
        "nginx_open_file_cache_max": "without it and others the gain was not held",
        "nginx_gzip_comp_level": "all that pruning left of the gain",
    }
