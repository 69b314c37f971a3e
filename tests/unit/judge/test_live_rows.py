"""Blocks of live traffic are recomputed from their rows, and what does not fit is refused."""

import copy

import pytest

from controller.judge.summary import recompute
from tests.unit.judge.judge_csvs import build_live, sealed

LIVE = build_live()


def damaged(change, *, random_seed=1):
    text, sidecar = build_live(random_seed=random_seed)
    header, *lines = text.splitlines()
    rows = [line.split(",") for line in lines]
    rows = change(rows) or rows
    text = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
    sidecar["csv"] = sealed(text)
    return text, sidecar


@pytest.mark.parametrize("random_seed", range(4))
def test_every_block_is_recomputed_as_the_sidecar_tells_it(random_seed):
    blocks = recompute(*build_live(random_seed=random_seed, pairs=3))
    assert [block.block for block in blocks] == [1, 2, 3, 4, 5, 6]
    assert all(block.classes.keys() == {"api", "other"} for block in blocks)
    assert all(sum(each.requests for each in block.classes.values()) == block.requests for block in blocks)


def test_a_block_without_a_request_stays_and_is_invalid():
    blocks = recompute(*build_live(empty=frozenset({2})))
    assert [(block.requests > 0, block.valid) for block in blocks] == [(True, True), (False, False)] + [
        (True, True)
    ] * 2


def test_a_trial_that_was_stopped_between_two_blocks_keeps_its_last_block():
    assert len(recompute(*build_live(half=True))) == 3


def swap_arm(rows):
    for row in rows:
        row[2] = "v" if row[2] == "c" else "c"


def edited(column, value):
    def change(rows):
        next(row for row in rows if row[3] == "30" and row[12] == "")[column] = value

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: [*rows[:7], *rows[8:]], "seq"),
        (lambda rows: [*rows[:8], *rows[7:]], "seq"),
        (lambda rows: rows[:-1], "block 4"),
        (lambda rows: [row for row in rows if row[1] != "2"], "block 2"),
        (lambda rows: rows[::-1], "seq|block"),
        (swap_arm, "arm"),
        (edited(4, "99999000"), "intended_us"),
        (edited(4, "-99999000"), "intended_us"),
        (edited(5, "3"), "lag_us"),
        (edited(6, "12001"), "latency_us"),
        (edited(6, "13000"), "block"),
        (edited(7, "12"), "kernel_us"),
        (edited(8, "503"), "error"),
        (edited(9, "1"), "bytes"),
        (edited(13, "Api"), "class"),
        (edited(13, "login"), "classes"),
        (edited(1, "9"), "block 1|block, |block: 9"),
    ],
)
def test_damage_is_named(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        recompute(*damaged(change))


@pytest.mark.parametrize(
    ("number", "told", "complaint"),
    [
        (0, {"valid": False, "invalid_reason": "it did not please"}, "block 1: called invalid"),
        (1, {"requests": 1}, "block 2, requests"),
        (1, {"p50_us": 1000}, "block 2, p50_us"),
        (2, {"classes": {}}, "block 3, classes"),
        (2, {"arm": "control"}, "block 3|block 4"),
    ],
)
def test_a_summary_that_the_rows_do_not_give_is_named(number, told, complaint):
    text, sidecar = copy.deepcopy(LIVE)
    # The third block is of either arm: whichever it is not.
    if "arm" in told:
        told = {"arm": "variant" if sidecar["blocks"][number]["arm"] == "control" else "control"}
    sidecar["blocks"][number] |= told
    with pytest.raises(ValueError, match=complaint):
        recompute(text, sidecar)


def test_too_few_requests_cannot_be_called_valid():
    text, sidecar = build_live(minimum_requests=1000)
    assert not any(block.valid for block in recompute(text, sidecar))
    sidecar["blocks"][0]["valid"] = True
    with pytest.raises(ValueError, match="block 1: called valid with"):
        recompute(text, sidecar)


@pytest.mark.parametrize("reason", ["the host's clock was set", "the live log was cut while it was read"])
def test_what_rows_cannot_show_is_believed(reason):
    text, sidecar = copy.deepcopy(LIVE)
    sidecar["blocks"][1] |= {"valid": False, "invalid_reason": reason}
    assert [block.valid for block in recompute(text, sidecar)] == [True, False, True, True]


def test_a_block_in_which_nginx_ran_something_else_is_invalid_and_is_never_called_valid():
    text, sidecar = copy.deepcopy(LIVE)
    sidecar["blocks"][1] |= {"ran": [None, None], "valid": False, "invalid_reason": "nginx ran something else"}
    assert [block.valid for block in recompute(text, sidecar)] == [True, False, True, True]
    sidecar["blocks"][1] |= {"valid": True, "invalid_reason": ""}
    with pytest.raises(ValueError, match="block 2: called valid, but nginx did not run"):
        recompute(text, sidecar)


@pytest.mark.parametrize(("field", "value"), [("source", "both"), ("design", "duet")])
def test_live_traffic_is_of_a_switchback(field, value):
    text, sidecar = copy.deepcopy(LIVE)
    sidecar[field] = value
    with pytest.raises(ValueError, match=r"sidecar\.source"):
        recompute(text, sidecar)


def test_rows_of_the_probe_are_no_live_traffic():
    text, sidecar = copy.deepcopy(LIVE)
    del sidecar["source"]
    with pytest.raises(ValueError, match="interval_ns"):
        recompute(text, sidecar)
