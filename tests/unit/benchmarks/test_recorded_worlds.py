"""Traces are read as they were recorded and randomised anew: only the coin and the effect are not the host's."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy
import pytest

from benchmarks.decision_worlds import DUET_PAIRS, SECONDS, SWITCHBACK_PAIRS
from benchmarks.lab_fleet import CHECKOUT
from benchmarks.live_decisions import NEIGHBOUR
from benchmarks.record_traces import RATE, RECORDINGS, Recording, experiment, main, trace_of
from benchmarks.recorded_worlds import TRACES, RecordedWorld, recorded_world, recorded_worlds
from controller.adapters.files.experiments import read_experiment
from controller.adapters.files.parameters import check_parameters
from controller.model.project import Project

# Different in magnitude, so that each number tells its place.
GAINS = [0.001 * (index + 1) for index in range(100)]
FIRST = [7.0 + 0.001 * index for index in range(100)]
SECOND = [6.0] * 100


def written(folder: Path, **changes: Any) -> Path:
    documents = {
        "duet": {"pairs": 100, "gains": GAINS},
        "switchback": {
            "pairs": 100,
            "first": FIRST,
            "second": SECOND,
            "first_at": [5.0 * index for index in range(100)],
            "second_at": [5.0 * index + 2.5 for index in range(100)],
        },
    }
    for name, document in documents.items():
        told = document | {key: value for key, value in changes.items() if key in document}
        (folder / f"{name}.json").write_text(json.dumps(told))
    return folder


@pytest.fixture
def world(tmp_path: Path) -> RecordedWorld:
    return recorded_world(written(tmp_path))


def generator(seed: int = 1) -> numpy.random.Generator:
    return numpy.random.default_rng(seed)


def test_each_host_begins_at_a_place_of_its_own_and_goes_round_the_trace(world: RecordedWorld) -> None:
    hosts = world.hosts(generator(), 200)
    seen = numpy.abs(world.duet_gains(generator(2), hosts, 0.0))
    places = numpy.rint(seen / 0.001).astype(int) - 1
    assert seen.shape == (200, DUET_PAIRS)
    assert (places == (places[:, :1] + numpy.arange(DUET_PAIRS)) % 100).all()
    assert len(set(places[:, 0])) > 50
    assert world.switchback_gains(generator(2), hosts, 0.0).shape == (200, SWITCHBACK_PAIRS)


@pytest.mark.parametrize("design", ["duet_gains", "switchback_gains"])
def test_a_fair_coin_of_each_pair_decides_the_sign(world: RecordedWorld, design: str) -> None:
    hosts = numpy.zeros((400, 1))
    gains = getattr(world, design)(generator(), hosts, 0.0)
    up = gains > 0
    # Every recorded number is positive: the same hosts differ in signs alone.
    assert (numpy.abs(gains) == numpy.abs(gains[0])).all()
    assert (numpy.abs(up.mean(axis=0) - 0.5) < 0.15).all()
    assert up.mean() == pytest.approx(0.5, abs=0.02)
    assert (up[:, 1:] == up[:, :-1]).mean() == pytest.approx(0.5, abs=0.02)
    assert (getattr(world, design)(generator(9), hosts, 0.0) != gains).any()


@pytest.mark.parametrize("design", ["duet_gains", "switchback_gains"])
def test_a_true_effect_is_the_same_gain_in_every_pair_whichever_way_the_coin_falls(
    world: RecordedWorld, design: str
) -> None:
    hosts = world.hosts(generator(), 10)
    alike, better = (getattr(world, design)(generator(3), hosts, effect) for effect in (0.0, 0.1))
    assert better - alike == pytest.approx(numpy.full(alike.shape, -math.log(0.9)))


def test_the_level_over_time_is_that_of_the_blocks_and_falls_by_the_effect_in_the_second_half(
    world: RecordedWorld,
) -> None:
    seen = world.before_after(generator(), numpy.array([[0.0], [0.5]]), 0.0)
    assert seen.shape == (2, SECONDS)
    assert seen[0, [0, 5, 10]] == pytest.approx([7.0, 7.001, 7.002])
    # Halfway between a first block and the second one.
    assert seen[0, 2] == pytest.approx(7.0 - 2 / 2.5)
    assert world.seconds == pytest.approx(500)
    assert seen[1, 0] == pytest.approx(7.05)
    assert seen[0, 500:900] == pytest.approx(seen[0, 0:400])
    better = world.before_after(generator(), numpy.array([[0.0], [0.5]]), 0.1) - seen
    assert better[:, :900] == pytest.approx(0.0)
    assert better[:, 900:] == pytest.approx(math.log(0.9))


def test_the_same_seed_gives_the_same_hosts_and_another_seed_others(world: RecordedWorld) -> None:
    def drawn(seed: int) -> tuple[Any, Any]:
        draw = generator(seed)
        hosts = world.hosts(draw, 5)
        return hosts.tolist(), world.switchback_gains(draw, hosts, 0.05).tolist()

    assert drawn(1) == drawn(1)
    assert drawn(1)[0] != drawn(2)[0]
    assert drawn(1)[1] != drawn(2)[1]


@pytest.mark.parametrize(
    "damaged",
    [{"gains": GAINS[:-1]}, {"second": [*SECOND[:-1], float("nan")]}, {"first_at": [0.0] * 100}],
    ids=["short", "no number", "out of order"],
)
def test_a_damaged_trace_is_refused(tmp_path: Path, damaged: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="json"):
        recorded_world(written(tmp_path, **damaged))


def block(number: int, arm: str, *, p50: int = 1000, gain: float | None = None, valid: bool = True) -> dict[str, Any]:
    return {
        "block": number,
        "arm": arm,
        "p50_us": p50,
        "paired_gain": gain,
        "valid": valid,
        "started_at": 1000.0 + 2.5 * number,
    }


def test_a_duets_trace_is_what_the_instances_showed_whichever_the_coin_made_control() -> None:
    # Instance A is 10 % slower throughout; the third pair is spoilt.
    blocks = [block(1, "control", gain=0.1), block(2, "variant", gain=0.1)]
    blocks += [block(3, "variant", gain=-0.1), block(4, "control", gain=-0.1)]
    blocks += [block(5, "control", gain=0.9), block(6, "variant", gain=0.9, valid=False)]
    assert trace_of({"design": "duet", "blocks": blocks}) == {"pairs": 2, "spoilt_pairs": 1, "gains": [0.1, 0.1]}


def test_a_switchbacks_trace_is_its_blocks_in_order_of_time_whichever_was_control() -> None:
    blocks = [block(1, "variant", p50=1000), block(2, "control", p50=2000)]
    blocks += [block(3, "control", p50=4000, valid=False), block(4, "variant")]
    blocks += [block(5, "control", p50=3000), block(6, "variant", p50=1000)]
    assert trace_of({"design": "switchback", "blocks": blocks}) == {
        "pairs": 2,
        "spoilt_pairs": 1,
        "first": [6.907755, 8.006368],
        "first_at": [0.0, 10.0],
        "second": [7.600902, 6.907755],
        "second_at": [2.5, 12.5],
    }


@pytest.mark.parametrize("name", ["../elsewhere", "", "Busy", "a/b"])
def test_traces_are_kept_in_a_folder_of_a_plain_name(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([name])
    assert "small letters" in capsys.readouterr().err


@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda recording: recording.design)
def test_what_is_recorded_is_a_valid_experiment_that_nothing_calibrates(recording: Recording, tmp_path: Path) -> None:
    folder = tmp_path / "alike"
    folder.mkdir()
    (folder / "meta.json").write_text(json.dumps(experiment(recording)))
    read = read_experiment(folder / "meta.json")
    check_parameters(Project(CHECKOUT), read)
    assert read.design == recording.design
    assert None not in (read.workload.rate, read.timing.block_seconds, read.timing.burn_in_seconds)
    assert read.timing.minimum_pairs == read.timing.maximum_pairs == recording.pairs


# Folder -> requests a second, and the pairs of each of RECORDINGS; the older one asked for fewer, and more seldom.
ASKED = {"busy": (20, (240, 100)), "neighbour": (RATE, tuple(recording.pairs for recording in RECORDINGS))}


def test_the_committed_traces_are_whole_recordings_that_say_how_they_came_about() -> None:
    for world, (name, (rate, asked)) in zip(recorded_worlds(), ASKED.items(), strict=True):
        assert world.name == f"recorded {name}"
        for recording, pairs in zip(RECORDINGS, asked, strict=True):
            document = json.loads((TRACES / name / f"{recording.design}.json").read_text())
            assert document["design"] == recording.design
            assert document["pairs"] + document["spoilt_pairs"] >= pairs
            assert document["pairs"] > 0.66 * pairs
            assert document["block_seconds"] == recording.block_seconds
            assert document["workload"]["rate"] == rate
            assert document["neighbour"] == NEIGHBOUR
            assert all(document[told] for told in ("recorded", "software", "beside"))
        # Alike, so that neither instance and neither block is much slower; and no host is still.
        for trace in (world.duet, world.switchback):
            assert abs(numpy.median(trace)) < trace.std()
            assert trace.std() > 0.005
