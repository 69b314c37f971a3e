"""The report of a run: one file, in which every figure of the verdict can be found."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from controller.model.experiment import Risk
from controller.model.run import RunPlan, RunResult
from controller.model.trial import Pair
from controller.report.page import report_page

Pairs = dict[int, list[Pair]]
VOID = {"meta", "link", "br"}


class Reader(HTMLParser):
    """Reads a page strictly: elements must nest, ids must be unique."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def test_the_page_tells_each_trials_question_effect_reason_and_how_to_recompute(
    plan: RunPlan, result: RunResult, pairs: Pairs
) -> None:
    text = Reader(report_page(plan, result, pairs)).text
    for words in (
        "1 of 3 variants kept on fleet lab",
        "Does a lighter compression level answer sooner?",
        "p50 38.2 % lower (35.1 to 41.0 %)",
        "its slowest requests (p99) took more than twice the control's",
        "nginx_gzip_comp_level: 4",
        'nginx_gzip_types: ["text/css"]',
        "controller verify r-20261123-201500-3fa9",
        "seed 7",
        "at most 1.5x",
        "no harm on the live instance",
    ):
        assert words in text


def test_the_page_needs_no_other_file_and_no_script(plan: RunPlan, result: RunResult, pairs: Pairs) -> None:
    page = report_page(plan, result, pairs)
    reader = Reader(page)
    assert not reader.all("script")
    assert not reader.all("img")
    assert "url(" not in page
    assert "@import" not in page
    links = [a["href"] or "" for a in reader.all("a")]
    assert all(re.fullmatch(r"#trial-\d+|trials/\d+/(live/)?[\w.-]+|plan\.json|verdict\.json", link) for link in links)
    assert "trials/1/lab-2.csv.gz" in links


def test_every_drawing_has_a_title_and_a_description_and_every_table_headers(
    plan: RunPlan, result: RunResult, pairs: Pairs
) -> None:
    reader = Reader(report_page(plan, result, pairs))
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    drawings = [svg for svg in reader.all("svg") if "aria-hidden" not in svg]
    assert len(drawings) >= 8
    for svg in drawings:
        assert set((svg["aria-labelledby"] or "").split()) <= set(ids)
    assert all("scope" in header for header in reader.all("th"))


def test_nothing_in_a_run_can_become_markup(plan: RunPlan, result: RunResult, pairs: Pairs) -> None:
    hostile = "<script>alert(1)</script> \"'><img src=x onerror=alert(1)>"
    texts = {"question": hostile, "why": hostile, "sources": [hostile], "risk": Risk(level="low", note=hostile)}
    experiment = plan.trials[0].experiment.model_copy(update=texts)
    planned = [trial.model_copy(update={"experiment": experiment}) for trial in plan.trials]
    trials = [trial.model_copy(update={"note": hostile, "reason": "host-failed"}) for trial in result.trials]
    failed = result.model_copy(update={"status": "failed", "message": hostile, "trials": trials})
    reader = Reader(report_page(plan.model_copy(update={"trials": planned}), failed, pairs))
    assert not reader.all("script")
    assert not reader.all("img")
    assert reader.text.count("<script>alert(1)</script>") >= 5


def test_the_same_facts_give_the_same_page(plan: RunPlan, result: RunResult, pairs: Pairs) -> None:
    assert report_page(plan, result, pairs) == report_page(plan, result, pairs)


def test_a_run_that_failed_before_any_trial_says_so(plan: RunPlan, result: RunResult) -> None:
    failed = result.model_copy(update={"status": "failed", "trials": [], "message": "lab-2: cannot be reached"})
    text = Reader(report_page(plan, failed, {})).text
    assert "The run failed." in text
    assert "lab-2: cannot be reached" in text
    assert "No trial was finished." in text


def test_pairs_that_do_not_count_are_left_out_of_the_drawing_and_told(
    plan: RunPlan, result: RunResult, pairs: Pairs
) -> None:
    spoilt = pairs[2][1].model_copy(update={"control": pairs[2][1].control.model_copy(update={"valid": False})})
    text = Reader(report_page(plan, result, {2: [pairs[2][0], spoilt, *pairs[2][2:]]})).text
    assert "1 not drawn" in text


def test_pairs_that_the_judge_would_not_take_leave_the_evidence_undrawn(
    plan: RunPlan, result: RunResult, pairs: Pairs
) -> None:
    page = report_page(plan, result, {1: [*pairs[1], *pairs[1]]})
    assert "Evidence for a gain" not in Reader(page).text
