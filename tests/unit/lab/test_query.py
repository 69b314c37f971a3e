from __future__ import annotations

import pytest

from controller.lab.query import check_labels, filtered, ordered, page, selector
from controller.lab.replies import ApiError

LABELS = {"env": "prod", "team": "web", "example.com/tier": "1", "empty": ""}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "env",
        "!missing",
        "env=prod",
        "env==prod",
        "env!=test",
        "missing!=x",
        "env in (prod,test)",
        "env in ( prod , test )",
        "env notin (test)",
        "missing notin (a,b)",
        "env=prod,team=web",
        "env in (a,prod),!missing,team",
        "example.com/tier=1",
        "empty=",
        "empty",
    ],
)
def test_a_selector_that_describes_the_labels_matches(text: str) -> None:
    assert selector(text)(LABELS)


@pytest.mark.parametrize(
    "text",
    [
        "missing",
        "!env",
        "env=test",
        "env!=prod",
        "env in (test)",
        "env notin (prod,test)",
        "env=prod,team=db",
        "missing in (a)",
    ],
)
def test_a_selector_that_does_not_describe_the_labels_does_not_match(text: str) -> None:
    assert not selector(text)(LABELS)


@pytest.mark.parametrize(
    "text", ["env=", "-x", "env in prod", "a=b=c", "env in (a b)", "=x", "a,,b", "env in (a", "a/b/c"]
)
def test_a_malformed_selector_is_an_invalid_input(text: str) -> None:
    if text == "env=":
        assert not selector(text)(LABELS)
        return
    with pytest.raises(ApiError) as caught:
        selector(text)
    assert caught.value.code == "invalid_input"


@pytest.mark.parametrize("labels", [[], {"-a": "b"}, {"a": "b c"}, {"a": 1}, {"": "x"}, {"a": "-"}])
def test_labels_outside_the_grammar_are_refused(labels: object) -> None:
    with pytest.raises(ApiError):
        check_labels(labels)


def test_pages_say_where_they_are() -> None:
    documents = [{"id": number} for number in range(1, 8)]
    chosen, meta = page(documents, {"page": ["2"], "per_page": ["3"]})
    assert [document["id"] for document in chosen] == [4, 5, 6]
    assert meta["pagination"] == {
        "page": 2,
        "per_page": 3,
        "previous_page": 1,
        "next_page": 3,
        "last_page": 3,
        "total_entries": 7,
    }
    last, meta = page(documents, {"page": ["3"], "per_page": ["3"]})
    assert [document["id"] for document in last] == [7]
    assert meta["pagination"]["next_page"] is None


@pytest.mark.parametrize("parameters", [{"page": ["0"]}, {"per_page": ["51"]}, {"page": ["x"]}, {"per_page": ["-1"]}])
def test_a_page_out_of_range_is_an_invalid_input(parameters: dict[str, list[str]]) -> None:
    with pytest.raises(ApiError) as caught:
        page([], parameters)
    assert caught.value.code == "invalid_input"


def test_documents_are_sorted_by_several_fields() -> None:
    documents = [{"id": 1, "name": "b"}, {"id": 2, "name": "a"}, {"id": 3, "name": "b"}]
    chosen = ordered(documents, {"sort": ["name:asc", "id:desc"]}, ("id", "name"))
    assert [document["id"] for document in chosen] == [2, 3, 1]
    with pytest.raises(ApiError):
        ordered(documents, {"sort": ["secret"]}, ("id", "name"))


def test_filters_take_several_values_and_labels() -> None:
    documents = [{"id": 1, "name": "a", "labels": {}}, {"id": 2, "name": "b", "labels": {"x": "y"}}]
    assert [one["id"] for one in filtered(documents, {"name": ["a", "b"]}, ("name",))] == [1, 2]
    assert [one["id"] for one in filtered(documents, {"label_selector": ["x"]}, ())] == [2]
