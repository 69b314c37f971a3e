"""The tournament as durable steps: the matches of a round are one step, each on hosts of its own."""

from __future__ import annotations

import dataclasses
import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

from pydantic import TypeAdapter

from controller.model.events import Event
from controller.model.experiment import Experiment
from controller.model.run import SearchSummary
from controller.model.trial import Stint, TrialPlan, TrialResult
from controller.search.ledger import Entry, Stop, seconds_spent
from controller.search.tournament import Entrants, Match, Played, Round, propose
from controller.workflow import engine
from controller.workflow.context import RunContext
from controller.workflow.planning import searched_trial
from controller.workflow.quarantine import hosts_left
from controller.workflow.searching import RUN_ENDS, Searched, Steps, result_of
from controller.workflow.stints import Question, recorded_plan, run_stint

_PROPOSAL: TypeAdapter[Round | Stop] = TypeAdapter(Round | Stop)


def run_tournament(steps: Steps, experiment: Experiment, *, first: int, candidates: int) -> Searched:
    """Play the tournament of one experiment; at most one variant is kept.

    Args:
        first: the number of its first match as a trial of the run.
        candidates: of the whole run: how many may be proven.
    """
    plans: dict[int, TrialPlan] = {}
    played: list[Played] = []
    start = len(steps.ledger)

    def plan_of(match: Match) -> TrialPlan:
        plan = searched_trial(
            steps.context.fleet, match.trial, experiment, match.challenger, seed=steps.plan.seed, variants=candidates
        )
        plans[match.trial] = plan.model_copy(update={"hosts": match.hosts})
        return plans[match.trial]

    template = searched_trial(
        steps.context.fleet, first, experiment, experiment.variants[0], seed=steps.plan.seed, variants=candidates
    )
    entrants = Entrants(
        variants=experiment.variants,
        hosts=hosts_left(steps.plan, template, steps.baseline).hosts,
        planned_pairs=template.timing.planned_pairs,
        seed=steps.plan.seed,
        first=first,
    )
    ended: Entry | None = None
    while True:
        proposal = _ask(steps, partial(propose, entrants, list(played)))
        if isinstance(proposal, Stop):
            break
        matches = proposal.matches
        entries = _play(steps, [(plan_of(match), match) for match in matches])
        steps.ledger.extend(entries)
        failed = [entry for entry in entries if entry.ended == "host-failed"]
        lost = {host: entry.note for entry in failed for host in entry.failed_hosts}
        goes_on = steps.goes_on(f"stint {entries[-1].stint.number}", lost)
        played += [
            Played(match=match, entry=entry)
            for match, entry in zip(matches, entries, strict=True)
            # One for the title is played again. One of the Swiss rounds scores for neither.
            if not (goes_on and entry in failed) or match.kind == "swiss"
        ]
        if goes_on:
            hosts = hosts_left(steps.plan, template, steps.baseline).hosts
            entrants = entrants.model_copy(update={"hosts": hosts})
            continue
        ended = next((entry for entry in entries if entry.ended in RUN_ENDS), None)
        if ended is not None:
            proposal = Stop(why=f"stint {ended.stint.number}: {ended.note or ended.ended}")
            break
    results = _results(steps, plans, played, proposal)
    # Where nothing is kept, what ended the tournament is settled, else its last match.
    decided = proposal.ranking[0] if proposal.ranking else (ended.trial if ended else played[-1].match.trial)
    at = decided - first
    steps.unsettled = lambda: results
    results[at] = steps.live(plans[decided], results[at])
    results[at], stop = steps.settle(recorded_plan(steps.run_directory, plans[decided]), results, at)
    return Searched(
        results=results,
        baseline=steps.baseline,
        summary=SearchSummary(
            experiment=experiment.name,
            stopped=proposal.why,
            tried=len({each.match.challenger.name for each in played} | {_champion(each) for each in played} - {""}),
            stints=len(played),
            seconds=round(seconds_spent(steps.ledger[start:]), 1),
            winner=results[at].variant if results[at].verdict == "KEEP" else "",
        ),
        stop=stop,
    )


def _ask(steps: Steps, ask: Callable[[], Round | Stop]) -> Round | Stop:
    name = f"propose stint {steps.stints + 1}"
    return _PROPOSAL.validate_python(engine.step(name, lambda: json.loads(ask().model_dump_json())))


def _champion(played: Played) -> str:
    return played.match.champion.name if played.match.champion else ""


def _play(steps: Steps, matches: Sequence[tuple[TrialPlan, Match]]) -> list[Entry]:
    """All matches of a round at once; one durable step."""
    questions = []
    for plan, match in matches:
        steps.stints += 1
        questions.append(
            Question(
                trial=plan,
                stint=Stint(number=steps.stints, alone=match.kind != "swiss", pairs_per_host=match.pairs_per_host),
                earlier=[],
                trials_in_run=match.trial,
                why=match.why,
                control=dict(match.champion.parameters) if match.champion else None,
            )
        )
    context = _one_at_a_time(steps.context)

    def play() -> list[dict[str, Any]]:
        with ThreadPoolExecutor(max_workers=len(questions)) as pool:
            stint = partial(run_stint, context, steps.plan.run_id, baseline=steps.baseline)
            return list(pool.map(stint, questions))

    numbers = [question.stint.number for question in questions]
    name = f"stint {numbers[0]}" if len(numbers) == 1 else f"stints {numbers[0]} to {numbers[-1]}"
    return [Entry.model_validate(document) for document in engine.step(name, play)]


def _one_at_a_time(context: RunContext) -> RunContext:
    """Matches that run at once tell of themselves one after the other."""
    shown, telling = context.observer, threading.Lock()

    def observe(event: Event) -> None:
        with telling:
            shown(event)

    return dataclasses.replace(context, observer=observe)


def _results(steps: Steps, plans: dict[int, TrialPlan], played: Sequence[Played], proposal: Stop) -> list[TrialResult]:
    """A result a match; who is proven in a match for the title is not kept for it."""
    results = []
    for each in played:
        trial = plans[each.match.trial]
        note = "a match of the Swiss rounds" if each.match.kind == "swiss" else proposal.why
        result = result_of(steps.context, steps.plan.run_id, trial, [each.entry], outdone=note, against=_champion(each))
        if result.verdict == "KEEP" and each.match.trial not in proposal.ranking:
            result = result.model_copy(
                update={"verdict": "REVERT", "reason": "outdone", "note": f"took the title; {proposal.why}"}
            )
        results.append(result)
    return results
