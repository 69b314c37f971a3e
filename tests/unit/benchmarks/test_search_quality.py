"""The benchmark of the searches measures what it says."""

from __future__ import annotations

from benchmarks.search_quality import measure


def test_quick_figures_compare_ours_with_every_peer() -> None:
    figures = measure(quick=True)
    confirmed = [figure for figure in figures if figure.name.startswith("confirmed")]
    assert len(confirmed) == 3
    for figure in confirmed:
        assert figure.peers.keys() == {"random", "tpe-no-repeats"}
        assert figure.value > 0
        assert figure.reached is not None
