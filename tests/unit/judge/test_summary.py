import copy
import json
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from controller.judge.figures import STEADY_FIGURES
from controller.judge.summary import recompute
from controller.model.metrics import METRICS
from tests.unit.judge.judge_csvs import HEADER, build, retold, sealed

SWITCHBACK = build()
DUET = build(design="duet")


SOAK = build(design="soak", pairs=3)


def fresh(evidence):
    text, sidecar = evidence
    return text, copy.deepcopy(sidecar)


def damaged(evidence, change, *, reseal=True):
    """The evidence with its data rows (lists of fields) changed, sealed again so that no hash gives it away."""
    text, sidecar = fresh(evidence)
    header, *lines = text.splitlines()
    rows = [line.split(",") for line in lines]
    rows = change(rows) or rows
    text = "\n".join([header, *(",".join(row) for row in rows)]) + "\n"
    if reseal:
        sidecar["csv"] = sealed(text)
    return text, sidecar


@pytest.mark.parametrize("design", ["switchback", "duet", "soak"])
@pytest.mark.parametrize("random_seed", range(4))
def test_every_block_is_recomputed_as_the_sidecar_tells_it(design, random_seed):
    text, sidecar = build(design=design, random_seed=random_seed, pairs=3, rate=130.0)
    blocks = recompute(text, sidecar)
    assert [block.model_dump() for block in blocks] == [
        {**block.model_dump(), **told} | {"metrics": block.metrics.model_dump()}
        for block, told in zip(blocks, sidecar["blocks"], strict=True)
    ]
    assert [block.block for block in blocks] == ([1, 2, 3] if design == "soak" else [1, 2, 3, 4, 5, 6])


def test_a_duet_tells_the_same_paired_gain_in_both_blocks_and_a_switchback_none():
    duet = recompute(*DUET)
    assert duet[0].paired_gain == duet[1].paired_gain is not None
    assert {block.paired_gain for block in recompute(*SWITCHBACK)} == {None}


def test_a_paired_gain_is_the_median_over_slots_of_the_logarithm_of_control_over_variant():
    text, sidecar = build(design="duet", pairs=1, block_seconds=0.04, burn_in_seconds=0, failures=0, random_seed=9)
    of = {"c": {}, "v": {}}
    for line in text.splitlines()[1:]:
        row = line.split(",")
        of[row[2]][row[3]] = max(1, int(row[7] or row[6]))
    logs = sorted(math.log(of["c"][seq] / of["v"][seq]) for seq in of["c"])
    assert len(logs) == 4
    assert recompute(text, sidecar)[0].paired_gain == round((logs[1] + logs[2]) / 2, 6)


def test_ranks_round_up_even_where_one_hundredth_of_a_row_is_left_over():
    # 99 rows that count: 99 % of them are 98.01, so p99 is the largest.
    text, sidecar = build(pairs=1, planned=1, block_seconds=0.99, failures=0)
    rows = [line.split(",") for line in text.splitlines()[1:]]
    for block in recompute(text, sidecar):
        counted = [int(row[7] or row[6]) for row in rows if row[1] == str(block.block) and int(row[4]) >= 0]
        assert (len(counted), block.p99_us) == (99, max(counted))


@pytest.mark.parametrize(("control", "variant", "expected"), [(20, 0, 2.995732), (0, 20, -2.995732), (1, 0, 0.0)])
def test_an_objective_of_zero_counts_as_one_microsecond(control, variant, expected):
    text, sidecar = build(
        design="duet", pairs=1, planned=1, block_seconds=0.01, burn_in_seconds=0, failures=0, random_seed=3
    )
    rows = [line.split(",") for line in text.splitlines()]
    for row in rows[1:]:
        row[7] = str(variant if row[2] == "v" else control)
        row[6], row[13] = "500", ""
    text = "\n".join(",".join(row) for row in rows) + "\n"
    assert recompute(text, retold(text, sidecar))[0].paired_gain == expected


def before_first_bytes(*untold):
    """As the agents wrote it that had no column first_byte_us."""
    text, sidecar = build()
    text = "".join(",".join(line.split(",")[:13]) + "\n" for line in text.splitlines())
    for told in sidecar["blocks"]:
        for name in (*(metric.field for metric in METRICS.values() if metric.column), *untold):
            del told[name]
    return text, sidecar | {"format": 1, "csv": sealed(text)}


@pytest.mark.parametrize("untold", [(), ("mean_p50_us",)])
def test_a_csv_of_an_earlier_agent_is_whole_without_the_figures_that_it_did_not_tell(untold):
    blocks = recompute(*before_first_bytes(*untold), ["p50", "mean_p50"])
    assert [block.ttfb_p50_us for block in blocks] == [None] * 4
    assert [block.mean_p50_us is None for block in blocks] == [bool(untold)] * 4


def test_a_figure_that_an_earlier_agent_cannot_have_told_is_refused():
    text, sidecar = before_first_bytes()
    sidecar["blocks"][1]["ttfb_p50_us"] = sidecar["blocks"][1]["p50_us"]
    with pytest.raises(ValueError, match="block 2, ttfb_p50_us: the sidecar says"):
        recompute(text, sidecar)


def test_an_objective_that_the_csv_has_no_column_for_is_an_error_that_names_both():
    with pytest.raises(ValueError, match="no column first_byte_us, which the objective ttfb_p50 is computed from"):
        recompute(*before_first_bytes(), ["p50", "ttfb_p50"])
    assert recompute(*build(), ["ttfb_p50"])


def test_a_failed_request_has_no_first_byte():
    number = next(n for n, line in enumerate(SWITCHBACK[0].splitlines(), 1) if ",timeout," in line)
    with pytest.raises(ValueError, match=f"line {number}, first_byte_us: a failed request"):
        recompute(*damaged(SWITCHBACK, put(number - 2, 13, "7")))


def test_the_time_to_first_byte_is_that_of_rows_that_know_it_and_the_whole_time_of_the_others():
    text, sidecar = build(pairs=1, failures=0.2)
    rows = [line.split(",") for line in text.splitlines()[1:]]
    assert {row[13] == "" for row in rows if not row[12]} == {True, False}
    for block in recompute(text, sidecar):
        counted = [row for row in rows if row[1] == str(block.block) and int(row[4]) >= 0]
        began = sorted(int(row[13] or row[7] or row[6]) for row in counted)
        assert block.ttfb_p50_us == began[math.ceil(len(began) / 2) - 1] < block.p50_us


def test_a_switchback_that_was_stopped_between_two_blocks_keeps_its_last_block():
    assert len(recompute(*build(half=True))) == 3


def test_half_a_pair_of_a_duet_is_truncated():
    text, sidecar = fresh(DUET)
    cut = damaged((text, sidecar), lambda rows: [row for row in rows if row[1] != "4"])
    cut[1]["blocks"].pop()
    with pytest.raises(ValueError, match=r"missing, doubled or moved|ends within block"):
        recompute(*cut)


def test_a_late_probe_makes_an_invalid_block_which_stays_and_is_marked():
    text, sidecar = build(late=frozenset({2}))
    assert [block.valid for block in recompute(text, sidecar)] == [True, False, True, True]
    sidecar["blocks"][1] |= {"valid": True, "invalid_reason": ""}
    with pytest.raises(ValueError, match="block 2: called valid"):
        recompute(text, sidecar)


def test_a_block_is_held_against_the_limits_that_the_agent_went_by():
    text, sidecar = build(failures=0, block_seconds=0.99)
    recompute(text, sidecar)
    sidecar["limits"]["rate_kept"] = 1
    with pytest.raises(ValueError, match="block 1: called valid"):
        recompute(text, sidecar)


def test_evidence_of_an_agent_that_told_no_limits_went_by_those_of_its_time():
    text, sidecar = build(late=frozenset({2}))
    del sidecar["limits"]
    assert [block.valid for block in recompute(text, sidecar)] == [True, False, True, True]


@pytest.mark.parametrize(
    ("limit", "value"),
    [("rate_kept", 0.9), ("probe_busy_share", 0.6), ("rate_kept", math.nan), ("more", 1)],
)
def test_evidence_cannot_loosen_its_own_limits(limit, value):
    text, sidecar = fresh(SWITCHBACK)
    sidecar["limits"][limit] = value
    with pytest.raises(ValueError, match=rf"sidecar\.limits\.{limit}: "):
        recompute(text, sidecar)


def test_a_block_whose_rows_keep_every_rule_cannot_be_left_out():
    text, sidecar = fresh(SWITCHBACK)
    sidecar["blocks"][2] |= {"valid": False, "invalid_reason": "it did not please"}
    with pytest.raises(ValueError, match=r"block 3: called invalid \(it did not please\)"):
        recompute(text, sidecar)


def test_a_block_in_which_nginx_ran_something_else_is_invalid_and_is_never_called_valid():
    text, sidecar = fresh(SWITCHBACK)
    told = sidecar["blocks"][1]
    told |= {"ran": [told["configuration"], None], "valid": False, "invalid_reason": "nginx ran something else"}
    assert [block.valid for block in recompute(text, sidecar)] == [True, False, True, True]
    told |= {"valid": True, "invalid_reason": ""}
    with pytest.raises(ValueError, match=r"block 2: called valid, but nginx did not run \w+ all the while"):
        recompute(text, sidecar)


def test_a_block_in_which_the_clock_was_set_is_invalid_and_has_no_stamps():
    def unstamp(rows):
        for row in rows:
            row[7] = row[13] = ""

    text, _ = damaged(SWITCHBACK, unstamp)
    # The figures change with the stamps.
    sidecar = retold(text, SWITCHBACK[1])
    sidecar["blocks"][1]["valid"] = False
    assert [block.valid for block in recompute(text, sidecar)] == [True, False, True, True]


# --- damage to rows, which no hash gives away ------------------------------------------------------------------------


def swap(first, second):
    def change(rows):
        rows[first], rows[second] = rows[second], rows[first]

    return change


def put(index, column, value):
    def change(rows):
        rows[index][column] = value

    return change


@pytest.mark.parametrize("evidence", [build(failures=0), build(design="duet", failures=0)], ids=["switchback", "duet"])
@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[:-1], "truncated"),
        (lambda rows: rows[:30], "truncated|blocks, but the CSV has"),
        (lambda rows: rows[:7] + rows[8:], r"line 9, (seq|block|arm)"),
        (lambda rows: [*rows[:7], rows[7], *rows[7:]], r"line 10, (seq|block|arm)"),
        (lambda rows: rows[50:] + rows[:50], "line 2, pair"),
        (lambda rows: [*rows, rows[-1]], "a row after the last one|line 102, pair"),
        (swap(3, 4), "line 5, (seq|block)"),
        (put(9, 0, "2"), "line 11, pair"),
        (put(9, 1, "3"), "line 11, block"),
        (put(9, 2, "x"), "line 11, arm: 'x'"),
        (put(9, 4, "123456"), "line 11, intended_us"),
        (put(9, 5, "-1"), "line 11, lag_us"),
        (put(9, 6, "1.5"), "line 11, latency_us"),
        (put(9, 7, "9999999"), "line 11, kernel_us"),
        (put(9, 13, "9999999"), "line 11, first_byte_us: 9999999 is more than the whole request took"),
        (put(9, 8, "700"), "line 11, status"),
        (put(9, 8, "301"), "line 11, status: 301"),
        (put(9, 9, "01"), "line 11, bytes"),
        (put(9, 10, "0"), "line 11, conn"),
        (put(9, 11, "3"), "line 11, reused"),
        (put(9, 12, "oops"), "line 11, error"),
        (put(9, 12, "timeout"), "line 11, latency_us"),
        (lambda rows: [*rows[:9], rows[9] + ["more"], *rows[10:]], "line 11, columns"),
        (put(9, 6, "90000"), "line 11, latency_us: 90000 is beyond the timeout"),
    ],
)
def test_damaged_rows_are_named_with_line_and_field(evidence, change, complaint):
    with pytest.raises(ValueError, match=complaint):
        recompute(*damaged(evidence, change))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda rows: rows[:-1], "truncated"),
        (lambda rows: rows[25:], "line 2, pair: 2, where the schedule has 1"),
        (put(9, 2, "c"), "line 11, arm: c, where the schedule has v"),
        (put(30, 1, "3"), "line 32, block: 3, where the schedule has 2"),
    ],
)
def test_a_soak_is_block_after_block_of_the_variant(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        recompute(*damaged(SOAK, change))


def test_an_edited_latency_no_longer_gives_the_sidecars_figures():
    with pytest.raises(
        ValueError, match=r"block \d, (p50_us|p90_us|mean_us|p95_us|p99_us|user_p99_us): the sidecar says"
    ):
        recompute(
            *damaged(
                SWITCHBACK,
                lambda rows: [[*r[:6], "5", "", *r[8:13], *("" for _ in r[13:])] if not r[12] else r for r in rows],
            )
        )


def test_swapping_the_arms_of_every_row_is_found():
    def swapped(rows):
        for row in rows:
            row[2] = {"c": "v", "v": "c"}[row[2]]

    for evidence in (SWITCHBACK, DUET):
        with pytest.raises(ValueError, match="line 2, arm"):
            recompute(*damaged(evidence, swapped))


def test_one_changed_digit_in_the_burn_in_breaks_the_hash():
    text, sidecar = damaged(SWITCHBACK, put(0, 5, "299"), reseal=False)
    with pytest.raises(ValueError, match=r"sidecar\.csv\.(sha256|bytes)"):
        recompute(text, sidecar)


MAY_BE_EMPTY = {
    column for line in SWITCHBACK[0].splitlines() for column, value in enumerate(line.split(",")) if not value
}


@pytest.mark.parametrize("column", range(HEADER.count(",") + 1))
@pytest.mark.parametrize("value", ["", " 1", "1 ", "+1", "1e3", "٣", "1_0", '"1"', "-0", "99999999999999999999", "\r"])
def test_a_field_that_is_written_in_another_way_is_refused(column, value):
    if not value and column in MAY_BE_EMPTY:
        return
    with pytest.raises(ValueError, match="CSV line 6"):
        recompute(*damaged(SWITCHBACK, put(4, column, value)))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda _: "", "line 1, header"),
        (lambda text: text.replace("pair,block", "block,pair", 1), "line 1, header"),
        (lambda text: text[:-1], "no line end"),
        (lambda text: text + "\n", "columns"),
        (lambda text: text.replace("\n", "\r\n"), "line 1, header"),
        (lambda text: "\ufeff" + text, "line 1, header"),
    ],
)
def test_a_file_of_another_shape_is_refused(change, complaint):
    text, sidecar = fresh(SWITCHBACK)
    with pytest.raises(ValueError, match=complaint):
        recompute(change(text), sidecar)


# --- the sidecar ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "complaint"),
    [
        ("format", 99, r"sidecar\.format"),
        ("complete", False, "never sealed"),
        ("design", "thirds", r"sidecar\.design"),
        ("host", "h2", "pair 1|pair 2|pair 3|pair 4"),
        ("arms.control", "e" * 16, "configuration"),
        ("workload.rate", -1, r"sidecar\.workload\.rate"),
        ("workload.rate", 1e-9, r"workload\.rate"),
        ("workload.timeout_ms", 60, "latency_us|errors"),
        ("schedule.seed", 8, "pair . is not in the order"),
        ("schedule.seed", "7", r"sidecar\.schedule\.seed: expected a valid integer"),
        ("schedule.seed", True, r"schedule\.seed: expected a valid integer"),
        ("trial", 0, r"sidecar\.trial: expected greater than or equal to 1"),
        ("schedule.pairs", [["control", "variant"]] * 4, "not in the order"),
        ("schedule.pairs", [], "mix.offsets|after the last"),
        ("schedule.block_seconds", 0.1, "missing, doubled or moved"),
        ("schedule.block_seconds", math.nan, r"schedule\.block_seconds: expected"),
        ("schedule.block_seconds", "0.2", r"schedule\.block_seconds: expected a valid number"),
        ("schedule.burn_in_seconds", 0.0, "intended_us"),
        ("schedule.interval_ns", 5, "interval"),
        ("schedule.lag_limit_us", 1, "called valid"),
        ("schedule.mix.cycle", [], r"mix\.cycle: .*at least 1 item"),
        ("schedule.mix.cycle", [0, 2], "integers from 0 to 1"),
        ("schedule.mix.offsets", [0], "one a pair"),
        ("schedule.mix.offsets", [0, -1, 0, 0], r"mix\.offsets\[1\]: expected greater than or equal to 0"),
        ("schedule.mix", None, "expected an object"),
        ("blocks", [], "0 blocks, but the CSV has 4"),
        ("blocks", None, "expected a list"),
        ("csv.rows", 99, r"sidecar\.csv\.rows"),
        ("csv.bytes", 99, r"sidecar\.csv\.bytes"),
        ("csv.sha256", "0" * 64, r"sidecar\.csv\.sha256"),
    ],
)
def test_a_sidecar_at_odds_with_the_rows_is_named_by_its_field(path, value, complaint):
    text, sidecar = fresh(SWITCHBACK)
    *parents, last = path.split(".")
    place = sidecar
    for parent in parents:
        place = place[parent]
    place[last] = value
    with pytest.raises(ValueError, match=complaint):
        recompute(text, sidecar)
    del place[last]
    with pytest.raises(ValueError, match=r"missing|sidecar|latency_us"):
        recompute(text, sidecar)


COMPUTED = [
    "pair", "block", "arm", "configuration", "requests", "errors", "error_classes", "statuses", "p50_us", "p90_us",
    "p95_us", "p99_us", "mean_us", "user_p99_us", "lag_p99_us", "achieved_rate", "bytes", "paired_gain",
    *STEADY_FIGURES,
]  # fmt: skip


@pytest.mark.parametrize("evidence", [SWITCHBACK, DUET], ids=["switchback", "duet"])
@pytest.mark.parametrize("field", COMPUTED)
def test_no_figure_of_a_block_is_believed_that_its_rows_do_not_give(evidence, field):
    text, sidecar = fresh(evidence)
    told = sidecar["blocks"][2][field]
    other = {
        "arm": "variant" if told == "control" else "control",
        "configuration": "f" * 16,
        "error_classes": {"eof": 3},
        "statuses": {"200": 1},
    }
    sidecar["blocks"][2][field] = other[field] if field in other else (told or 0) + 1
    with pytest.raises(ValueError, match=f"block 3, {field}: the sidecar says"):
        recompute(text, sidecar)


def test_a_block_of_another_shape_is_named_by_its_field():
    text, sidecar = fresh(SWITCHBACK)
    del sidecar["blocks"][1]["p50_us"]
    with pytest.raises(ValueError, match=r"sidecar\.blocks\[1\]\.p50_us"):
        recompute(text, sidecar)


# --- whatever comes ---------------------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def only_value_error(text, sidecar):
    try:
        recompute(text, sidecar)
    except ValueError:
        return False
    return True


@given(st.text(max_size=200), json_values)
def test_anything_at_all_is_a_value_error(text, document):
    assert not only_value_error(text, document)


def _places(node, path=()):
    yield path
    if isinstance(node, dict | list):
        for key, value in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _places(value, (*path, key))


PLACES = {id(evidence): [place for place in _places(evidence[1]) if place] for evidence in (SWITCHBACK, DUET, SOAK)}


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from([SWITCHBACK, DUET, SOAK]), st.data(), json_values)
def test_any_value_at_any_place_of_the_sidecar_is_harmless_or_a_value_error(evidence, data, value):
    text, sidecar = fresh(evidence)
    *parents, last = data.draw(st.sampled_from(PLACES[id(evidence)]))
    place = sidecar
    for parent in parents:
        place = place[parent]
    place[last] = value
    only_value_error(text, sidecar)


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([SWITCHBACK, DUET, SOAK]),
    st.integers(0, 10**6),
    st.text(min_size=1, max_size=4),
    st.integers(0, 60),
)
def test_any_edit_of_the_text_is_a_value_error(evidence, where, put_in, cut):
    text, sidecar = fresh(evidence)
    where %= len(text)
    edited = text[:where] + put_in + text[where + cut :]
    assert only_value_error(edited, sidecar) == (edited == text)


@settings(max_examples=60)
@given(st.sampled_from([SWITCHBACK, DUET, SOAK]), st.randoms(use_true_random=False))
def test_any_other_order_of_the_rows_is_a_value_error_even_when_it_is_sealed(evidence, shuffle):
    mixed = damaged(evidence, lambda rows: shuffle.sample(rows, len(rows)))
    assert not only_value_error(*mixed) or mixed[0] == evidence[0]


def test_a_sidecar_survives_its_own_json():
    text, sidecar = fresh(DUET)
    assert recompute(text, json.loads(json.dumps(sidecar))) == recompute(text, sidecar)


def test_a_hundred_thousand_rows_take_seconds_at_most():
    text, sidecar = build(pairs=10, planned=10, block_seconds=2, burn_in_seconds=0, rate=2500.0, failures=0.001)
    assert sidecar["csv"]["rows"] == 100_000
    assert len(recompute(text, sidecar)) == 20
