"""The tournament: champion against challenger, and the title goes only to who proves itself.

The first champion is the baseline. On a fleet of several hosts the candidates first play short Swiss rounds: each round
pairs those with the same score, different matches on different hosts at once, and each says only who of two looks
better. Then one candidate after the other, the best score first, challenges the champion on all hosts together: a whole
trial, proof at `m/alpha` and fresh pairs, against the champion as concurrent control. Whoever is proven takes over.
The last champion meets the baseline once more on fresh pairs, and only that can be kept.

A candidate has one title match, so `m/alpha` bounds the chance that any of `m` takes the title without being better;
nothing that was seen before the final counts in it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence

from controller.judge.evidence import log_gain
from controller.model.experiment import Frozen, Variant
from controller.search.ledger import Entry, Stop

BASELINE = ""
# Pairs of a match of the Swiss rounds, over all its hosts: enough to see a gain of the minimum effect, not to prove it.
SWISS_PAIRS = 6
# With fewer candidates, or on one host, every candidate challenges the champion at once.
FEWEST_FOR_SWISS = 3


class Match(Frozen):
    """A duet of two candidates, or of one and the champion or the baseline (both: an empty name)."""

    trial: int
    challenger: Variant
    champion: Variant | None
    hosts: list[str]
    pairs_per_host: int
    kind: str = "swiss"
    why: str


class Round(Frozen):
    """Matches to be played at once, each on hosts of its own."""

    matches: list[Match]


class Played(Frozen):
    """A match and its entry in the ledger."""

    match: Match
    entry: Entry


class Entrants(Frozen):
    """What the draw depends on, beside the matches played.

    `planned_pairs`: what a whole trial may take. `first`: the number of the first match as a trial of the run.
    """

    variants: list[Variant]
    hosts: list[str]
    planned_pairs: int
    seed: int
    first: int = 1


def propose(entrants: Entrants, played: Sequence[Played]) -> Round | Stop:
    """The matches that are due, or that the tournament has ended; `ranking` holds the final's trial if it was proven.

    A pure function of its arguments: a prefix of what was played gives what was due then, on as many hosts.
    """
    swiss = [each for each in played if each.match.kind == "swiss"]
    number = entrants.first + len(played)
    order: list[Variant] | Round = list(entrants.variants)
    if len(entrants.variants) >= FEWEST_FOR_SWISS and (swiss or len(entrants.hosts) > 1):
        order = _swiss(entrants, swiss, number)
    if isinstance(order, Round):
        return order
    champion: Variant | None = None
    titles = [each for each in played if each.match.kind == "title"]
    for place, challenger in enumerate(order):
        if place >= len(titles):
            why = f"for the title of {champion.name if champion else 'the baseline'}"
            return _on_all_hosts(entrants, number, challenger, champion, kind="title", why=why)
        if titles[place].entry.ended == "proven-gain":
            champion = challenger
    if champion is None:
        return Stop(why="no candidate took the title from the baseline")
    final = next((each for each in played if each.match.kind == "final"), None)
    if final is None:
        why = "the champion against the baseline, on fresh pairs"
        return _on_all_hosts(entrants, number, champion, None, kind="final", why=why)
    if final.entry.ended == "proven-gain":
        return Stop(ranking=[final.match.trial], why=f"{champion.name} is the champion")
    return Stop(why=f"{champion.name} took the title, but was not proven against the baseline")


def _on_all_hosts(
    entrants: Entrants, number: int, challenger: Variant, champion: Variant | None, *, kind: str, why: str
) -> Round:
    return Round(
        matches=[
            Match(
                trial=number,
                challenger=challenger,
                champion=champion,
                hosts=entrants.hosts,
                pairs_per_host=entrants.planned_pairs,
                kind=kind,
                why=why,
            )
        ]
    )


def _swiss(entrants: Entrants, played: Sequence[Played], number: int) -> list[Variant] | Round:
    """The matches of the round under way, or who may challenge the champion, the best first."""
    by_name = {variant.name: variant for variant in entrants.variants}
    points = dict.fromkeys(by_name, 0.0)
    margins = dict.fromkeys(by_name, 0.0)
    met: set[frozenset[str]] = set()
    rest = list(played)
    rounds = math.ceil(math.log2(len(by_name)))
    for turn in range(1, rounds + 1):
        pairing, bye = _pairing(points, margins, met, entrants.seed)
        at_once = min(len(pairing), len(entrants.hosts))
        for start in range(0, len(pairing), at_once):
            due = pairing[start : start + at_once]
            groups = _groups(entrants.hosts, len(due))
            if not rest:
                return Round(
                    matches=[
                        Match(
                            trial=number + place,
                            challenger=by_name[one],
                            champion=by_name[other],
                            hosts=group,
                            pairs_per_host=math.ceil(SWISS_PAIRS / len(group)),
                            why=f"round {turn} of {rounds}, against {other}",
                        )
                        for place, ((one, other), group) in enumerate(zip(due, groups, strict=True))
                    ]
                )
            for result in rest[: len(due)]:
                _score(result, points, margins)
            rest = rest[len(due) :]
        met |= {frozenset(pair) for pair in pairing}
        if bye:
            points[bye] += 1.0
    ranked = sorted(by_name, key=lambda name: (-points[name], -margins[name], _lot(entrants.seed, name)))
    return [by_name[name] for name in ranked[: max(2, math.ceil(len(ranked) / 2))]]


def _pairing(
    points: Mapping[str, float], margins: Mapping[str, float], met: set[frozenset[str]], seed: int
) -> tuple[list[tuple[str, str]], str]:
    """Neighbours by score who have not met yet, as far as there are any; and who is left over."""
    waiting = sorted(points, key=lambda name: (-points[name], -margins[name], _lot(seed, name)))
    pairing = []
    while len(waiting) > 1:
        one = waiting.pop(0)
        fresh = [name for name in waiting if frozenset((one, name)) not in met]
        other = (fresh or waiting)[0]
        waiting.remove(other)
        pairing.append((one, other))
    return pairing, waiting[0] if waiting else ""


def _score(played: Played, points: dict[str, float], margins: dict[str, float]) -> None:
    """A point for who looks better. A match that a guardrail or nginx ended says nothing: it blames neither."""
    champion = played.match.champion
    judgement = played.entry.judgement
    if champion is None or judgement is None or judgement.effect is None:
        return
    if played.entry.ended not in {None, "futile", "slower", "undecided"}:
        return
    gain = log_gain(min(judgement.effect.estimate, 0.999999))
    winner = played.match.challenger.name if gain > 0 else champion.name
    points[winner] += 1.0
    margins[played.match.challenger.name] += gain
    margins[champion.name] -= gain


def _groups(hosts: Sequence[str], count: int) -> list[list[str]]:
    """The fleet split into `count` groups that differ by one host at most."""
    edges = [len(hosts) * place // count for place in range(count + 1)]
    return [list(hosts[edges[place] : edges[place + 1]]) for place in range(count)]


def _lot(seed: int, name: str) -> bytes:
    """Ties are drawn by a hash: anyone can repeat it."""
    return hashlib.sha256(f"{seed}/tournament/{name}".encode()).digest()
