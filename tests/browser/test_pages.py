"""Dashboard and report on phones and desktops, by day and by night, with scripts and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Browser, Site

PAGES = ["dashboard", "old", "hostile", "welcome", "report", "hostile-report"]
PHONE, DESKTOP = 360, 1280

# Contrast of each visible text with what is behind it, by WCAG 2: below 4.5 it is hard to read for some.
FAINT_TEXTS = r"""
const light = (colour) => {
  const [r, g, b] = colour.match(/[\d.]+/g).slice(0, 3).map((part) => {
    const value = Number(part) / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const behind = (element) => {
  for (let at = element; at; at = at.parentElement) {
    const colour = getComputedStyle(at).backgroundColor;
    if (colour !== "rgba(0, 0, 0, 0)" && colour !== "transparent") return colour;
  }
  return "rgb(255, 255, 255)";
};
const faint = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const element = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !element.getClientRects().length) continue;
  const style = getComputedStyle(element);
  const text = element.ownerSVGElement ? style.fill : style.color;
  const [high, low] = [light(text), light(behind(element))].sort((a, b) => b - a);
  if ((high + 0.05) / (low + 0.05) < 4.5) faint.push(walker.currentNode.textContent.trim().slice(0, 40));
}
return faint;
"""


@pytest.mark.parametrize("width", [PHONE, 390, DESKTOP])
@pytest.mark.parametrize("page", PAGES)
def test_no_page_scrolls_sideways_or_complains(browser: Browser, site: Site, page: str, width: int) -> None:
    browser.open(site.url(f"{page}/"), width=width)
    assert browser.script("return document.documentElement.scrollWidth") <= width
    assert browser.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page", ["dashboard", "welcome", "old", "report"])
def test_every_text_can_be_read_by_day_and_by_night(browser: Browser, site: Site, page: str, scheme: str) -> None:
    browser.open(site.url(f"{page}/"), scheme=scheme)
    assert browser.script(FAINT_TEXTS) == []


@pytest.mark.parametrize("page", ["dashboard", "report"])
def test_verdicts_effects_and_reasons_are_there_without_scripts(browser: Browser, site: Site, page: str) -> None:
    browser.open(site.url(f"{page}/"), scripts=False)
    for words in ("KEEP", "REVERT", "gzip-level/level-4", "p50 38.2 % lower (35.1 to 41.0 %)", "nginx refused"):
        assert words in browser.text


@pytest.mark.parametrize("scripts", [True, False])
def test_a_trial_of_several_goals_tells_each(browser: Browser, site: Site, scripts: bool) -> None:
    browser.open(site.url("dashboard/"), scripts=scripts)
    told = "p50 30.0 % lower (20.0 to 40.0 %): proven better memory 10.0 % higher (5.0 to 20.0 %): worse"
    assert browser.text.count(told) == 1
    hidden = "return [...document.querySelectorAll('main .goals')].map((list) => list.hidden)"
    assert browser.script(hidden) == [True, False, True]


def test_keep_and_revert_differ_in_sign_and_shape_and_not_in_colour_alone(browser: Browser, site: Site) -> None:
    browser.open(site.url("dashboard/"))
    look = (
        "const badge = document.querySelector(arguments[0]);"
        "return [getComputedStyle(badge, '::before').content, getComputedStyle(badge).backgroundColor]"
    )
    keep, revert = browser.script(look, ".badge.keep"), browser.script(look, ".badge.revert")
    assert keep[0] != revert[0]
    assert revert[1] == "rgba(0, 0, 0, 0)" != keep[1]


@pytest.mark.parametrize("page", ["hostile", "hostile-report"])
def test_hostile_text_is_shown_and_does_nothing(browser: Browser, site: Site, page: str) -> None:
    browser.open(site.url(f"{page}/"))
    browser.script("document.querySelectorAll('details').forEach((part) => { part.open = true; })")
    assert browser.text.count(site.hostile) >= 2
    assert browser.script("return [typeof window.harmed, document.images.length]") == ["undefined", 0]


def test_a_host_without_a_run_is_welcomed_with_what_to_type(browser: Browser, site: Site) -> None:
    browser.open(site.url("welcome/"))
    assert "Nothing has been tried here yet" in browser.text
    assert "controller optimize --fleet lab" in browser.text
    assert "Stale" not in browser.text


def test_an_open_dashboard_picks_up_a_new_state(browser: Browser, site: Site) -> None:
    browser.open(site.url("dashboard/"))
    site.write("dashboard/state.json", site.state("dashboard", configuration="aaaa000011112222"))
    browser.wait_for("aaaa000011112222")
    site.write(
        "dashboard/state.json", site.state("dashboard", configuration="bbbb", parameters_kept={"nginx_x": site.hostile})
    )
    browser.wait_for("bbbb")
    assert site.hostile in browser.text
    assert browser.script("return typeof window.harmed") == "undefined"
    assert browser.complaints() == []


def test_a_welcome_turns_into_the_first_run(browser: Browser, site: Site) -> None:
    before = (site.folder / "welcome/state.json").read_text()
    browser.open(site.url("welcome/"))
    site.write("welcome/state.json", site.state("welcome"))
    browser.wait_for("Nothing has been tried", gone=True)
    assert "p50 38.2 % lower" in browser.text
    site.write("welcome/state.json", before)


def test_the_script_draws_exactly_what_the_role_wrote(browser: Browser, site: Site) -> None:
    seen = "return document.getElementById('state').innerHTML.replace(/\\s+/g, ' ').replace(/> </g, '><')"
    browser.open(site.url("hostile/"), scripts=False)
    written = browser.script(seen)
    state = (site.folder / "hostile/state.json").read_text()
    other = state.replace("fedcba9876543210", "cccc").replace('"generated_at": "2', '"generated_at": "1')
    site.write("hostile/state.json", other)
    browser.open(site.url("hostile/"))
    browser.wait_for("cccc")
    site.write("hostile/state.json", state)
    browser.wait_for("cccc", gone=True)
    drawn = browser.script("document.getElementById('age').textContent = '';" + seen)
    assert drawn == written


def test_a_page_that_cannot_refresh_says_so_and_recovers(browser: Browser, site: Site) -> None:
    state = site.state("dashboard")
    site.write("dashboard/state.json", state)
    browser.open(site.url("dashboard/"))
    (site.folder / "dashboard/state.json").unlink()
    browser.wait_for("Stale: this page cannot be refreshed since")
    assert "the server answers 404" in browser.text
    assert "KEEP" in browser.text
    site.write("dashboard/state.json", state[: len(state) // 2])
    browser.wait_for("Stale: this page cannot be refreshed since")
    site.write("dashboard/state.json", state)
    browser.wait_for("Stale", gone=True)


def test_an_old_state_says_how_old_it_is(browser: Browser, site: Site) -> None:
    browser.open(site.url("old/"))
    browser.wait_for("Stale: written")
    assert "days ago" in browser.text


def test_the_files_are_served_so_that_no_cache_keeps_an_old_one(browser: Browser, site: Site) -> None:
    browser.open(site.url("dashboard/"))
    control = browser.script(
        "return fetch('state.json').then((answer) => answer.headers.get('cache-control'))",
    )
    assert control == "no-cache"
