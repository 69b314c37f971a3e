"""Whatever a parameter holds, the configuration says what it would say for a harmless value, but for that argument.

The rendered text is read back by root's program, whose reader of nginx's language shares no code with the template.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from ansible.errors import AnsibleError
from hypothesis import example, given, settings
from hypothesis import strategies as st
from jinja2 import TemplateError

from ratchet_host.language import parse
from tests.unit.roles.test_nginx_parameters import BOUNDS, OPTIONS, RENDERED, nginx_value, render

Line = tuple[tuple[str, ...], tuple[str, ...]]

HOSTILE_TEXTS = [
    "1; include /etc/shadow;",
    "1;}\nload_module /tmp/x.so;\nhttp {",
    "1\n}\nserver { listen 1; }",
    "1 # the rest is a comment",
    "1\r\ninclude /etc/passwd",
    '"1" "2"',
    "'1'",
    "$document_root",
    "${http_x}",
    "$(id)",
    "`id`",
    "1\\",
    "1\0",
    "\0",
    "content_by_lua_block { os.execute('id') }",
    "{{ lookup('pipe', 'id') }}",
    "{% raw %}",
    "{# comment",
    "!unsafe 1",
    "../../../etc/shadow",
    "/etc/../etc/shadow",
    "//etc//shadow",
    "1\u20282",
    "1\u2029;",
    "\uff11",
    "\u0661",
    "1\uff1b include x\uff1b",
    "\u202e1",
    "on\u200b",
    "1\x85",
    "K" * 100_000,
    "\u212a",
    "off off",
    " 1",
    "1 ",
    "1\n",
    "",
]
# Python refuses to write it out, and so does hypothesis.
ENDLESS = 16**5000
ODD_NUMBERS = [-1, 0, 2**63, 1e308, float("inf"), float("nan"), -0.0, True, None]


def lines(text: str) -> list[Line]:
    """Each directive: the names of the blocks around it and its own, and its words as they are written."""

    def walk(directives: list[Any], around: tuple[str, ...]) -> Iterator[Line]:
        for directive in directives:
            assert directive.raw is None, "code of another language"
            place = (*around, directive.name)
            yield place, tuple(directive.words[1:])
            yield from walk(directive.block or [], place)

    return list(walk(parse(text, "nginx.conf"), ()))


def shape(found: list[Line]) -> list[tuple[str, ...]]:
    return [place for place, _ in found]


# Values of each kind that are allowed and cover every way in which the template branches on them.
PATTERN_SAMPLES = {
    BOUNDS["patterns"]["size"]: ["0", "64k", "128k"],
    BOUNDS["patterns"]["time"]: ["0", "7s", "8s"],
    BOUNDS["patterns"]["count_size"]: ["2 4k", "3 8k"],
    BOUNDS["patterns"]["worker_processes"]: ["auto", "1", "2"],
    BOUNDS["patterns"]["cpu_affinity"]: ["", "auto", "01 10"],
    BOUNDS["patterns"]["mime_type"]: ["text/css", "text/plain"],
}


def harmless(name: str) -> list[Any]:
    option, bound = OPTIONS[name], BOUNDS["parameters"].get(name, {})
    kind = option.get("elements", option["type"])
    if kind == "bool":
        values: list[Any] = [True, False]
    elif "choices" in option:
        values = option["choices"]
    elif kind == "int":
        values = [bound["minimum"], bound["minimum"] + 1, bound["maximum"]]
    else:
        values = PATTERN_SAMPLES[bound["pattern"]]
    return [[value] for value in values] if option["type"] == "list" else values


class Slots:
    """Which directives a parameter may change: those that differ between its harmless values."""

    def __init__(self, show: Callable[[Any], str], values: list[Any]) -> None:
        self._known: dict[tuple[tuple[str, ...], ...], list[list[Line]]] = {}
        for value in values:
            found = lines(show(value))
            self._known.setdefault(tuple(shape(found)), []).append(found)
        self._moving = {
            found[at][0]
            for group in self._known.values()
            for found in group
            for at, line in enumerate(group[0])
            if found[at] != line
        }

    def check(self, text: str) -> None:
        found = lines(text)
        known = self._known.get(tuple(shape(found)))
        assert known is not None, "another tree of directives"
        for (place, words), (_, usual) in zip(found, known[0], strict=True):
            assert words == usual or place in self._moving, f"{place}: {words}"
            # nginx would take anything else for syntax, a variable or more than one word.
            if words != usual:
                assert all(set(word) <= WORD_CHARACTERS for word in words), words


WORD_CHARACTERS = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./:+=*[]~-")
# Text around what is allowed, so that some of it gets through the filter.
text = (
    st.sampled_from(HOSTILE_TEXTS)
    | st.text(max_size=20)
    | st.text("0123456789kms autoffn ./_-;{}#$\"'\\\n\t\r\0", max_size=12)
    | st.from_regex(r"[0-9]{1,3}[kms]?[;{}$#\s]?[a-z/]{0,6}", fullmatch=True)
)
anything = st.recursive(
    text | st.integers() | st.floats() | st.booleans() | st.none() | st.sampled_from(ODD_NUMBERS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)


def values_for(name: str) -> st.SearchStrategy[Any]:
    good = st.sampled_from(harmless(name))
    if OPTIONS[name]["type"] == "list":
        return good | anything | st.lists(text, max_size=3)
    # A good value with something hostile around it.
    return good | anything | st.builds(lambda value, more: f"{value}{more}", good, text)


@pytest.mark.parametrize("name", RENDERED)
def test_a_parameter_changes_its_own_arguments_and_nothing_else(name: str) -> None:
    # What the parameter belongs to is switched on, so that it is rendered at all.
    others = {"nginx_demo_sites": True, "nginx_proxy_cache": True, "nginx_open_file_cache": True}
    others["nginx_access_log_buffer"] = "64k"

    def show(value: Any) -> str:
        return render(**(others | {name: value}))

    slots = Slots(show, harmless(name))

    @settings(max_examples=25, deadline=None, database=None)
    @given(values_for(name))
    def check(value: Any) -> None:
        try:
            nginx_value(value, name)
        except AnsibleError as error:
            assert name in str(error)
            with pytest.raises(AnsibleError):
                show(value)
        else:
            slots.check(show(value))

    check()
    for value in [*HOSTILE_TEXTS, *ODD_NUMBERS, ENDLESS]:
        check.hypothesis.inner_test([value] if OPTIONS[name]["type"] == "list" else value)  # type: ignore[attr-defined]


SITE: dict[str, Any] = {
    "name": "shop",
    "server_names": ["shop.example.org"],
    "default_server": False,
    "listen": [81],
    "tls_listen": [444],
    "tls_certificate": "/etc/ssl/shop/cert.pem",
    "tls_certificate_key": "/etc/ssl/shop/key.pem",
    "root": "/srv/shop",
    "locations": [{"path": "/api/", "servers": ["127.0.0.1:9000"], "cached": True}],
}
OTHER: dict[str, list[Any]] = {
    "name": ["store"],
    "server_names": [["a.example.org", "*.example.org"], ["_"]],
    "default_server": [True],
    "listen": [[82]],
    "tls_listen": [[445]],
    "tls_certificate": ["/etc/ssl/other"],
    "tls_certificate_key": ["/etc/ssl/other"],
    "root": ["/srv/other", ""],
    "locations.path": ["/other/", "/"],
    "locations.servers": [["[::1]:9000"]],
    "locations.cached": [False],
}


def with_field(field: str, value: Any) -> dict[str, Any]:
    outer, _, inner = field.partition(".")
    if not inner:
        return SITE | {outer: value}
    return SITE | {"locations": [SITE["locations"][0] | {inner: value}]}


def original(field: str) -> Any:
    outer, _, inner = field.partition(".")
    return SITE["locations"][0][inner] if inner else SITE[outer]


@pytest.mark.parametrize("field", OTHER)
def test_a_site_s_field_changes_its_own_arguments_and_nothing_else(field: str) -> None:
    def show(value: Any) -> str:
        return render(nginx_sites=[with_field(field, value)], nginx_proxy_cache=True)

    slots = Slots(show, [original(field), *OTHER[field]])
    listed = isinstance(original(field), list)
    items = anything | st.builds(lambda more: f"{original(field)[0] if listed else original(field)}{more}", text)

    @settings(max_examples=25, deadline=None, database=None)
    @given(items.map(lambda item: [item]) if listed else items)
    @example("x" * 300)
    def check(value: Any) -> None:
        try:
            rendered = show(value)
        except (AnsibleError, TemplateError):
            return
        # An empty value is a field that was left out.
        if value:
            slots.check(rendered)

    check()
    for value in [*HOSTILE_TEXTS, *ODD_NUMBERS, ENDLESS]:
        check.hypothesis.inner_test([value] if listed else value)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", ["/srv/../etc", "/..", "/srv/..", "/../x", "/./x"])
@pytest.mark.parametrize("field", ["root", "tls_certificate", "tls_certificate_key", "locations.path"])
def test_a_path_goes_down_only(field: str, path: str) -> None:
    with pytest.raises(AnsibleError, match=field.replace(".", r"\.")):
        render(nginx_sites=[with_field(field, path)])


def test_the_check_itself_sees_an_injected_directive_and_an_injected_word() -> None:
    slots = Slots(lambda value: render(nginx_sendfile_max_chunk=value), ["1m", "2m"])
    good = render(nginx_sendfile_max_chunk="3m")
    slots.check(good)
    for bad in ("3m; include /etc/shadow", "$arg_x", '"3m"', "3m; tcp_nopush on"):
        with pytest.raises(AssertionError):
            slots.check(good.replace("sendfile_max_chunk 3m", f"sendfile_max_chunk {bad}"))
    with pytest.raises(AssertionError):
        slots.check(good.replace("gzip_vary on", "gzip_vary off"))
