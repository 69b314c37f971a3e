"""nginx's language as root's program reads it: directives, addresses, trees of included files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ratchet_host.errors import Refused
from ratchet_host.language import Directive, parse, quote, render
from ratchet_host.listeners import listeners, split_address
from ratchet_host.tree import Tree


def shape(directives: list[Any]) -> list[Any]:
    return [(d.words, None if d.block is None else shape(d.block)) for d in directives]


BARE = st.from_regex(r"[A-Za-z0-9_./:$~^*=@%-]([A-Za-z0-9_./:$~^*=@%#\"'-]|\\.|\$\{){0,8}", fullmatch=True).filter(
    lambda word: "\n" not in word and not word.endswith("$")
)
QUOTED = st.text('ab {};#\\"\n', max_size=8).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
)
WORDS = st.tuples(BARE, st.lists(BARE | QUOTED, max_size=3)).map(lambda parts: [parts[0], *parts[1]])


def made(words: list[str], block: list[Any] | None) -> Any:
    directive = Directive(words, 1)
    directive.block = block
    return directive


DIRECTIVES = st.recursive(
    st.lists(WORDS.map(lambda words: made(words, None)), max_size=3),
    lambda inner: st.lists(st.builds(made, WORDS, inner), max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(DIRECTIVES)
def test_what_is_rendered_is_read_back_the_same(directives: list[Any]) -> None:
    assert shape(parse(render(directives), "x")) == shape(directives)


@given(st.text(max_size=80) | st.text("ab{};#\"'\\$ \n", max_size=80))
@example("a " + "{" * 200)
@example("a\\")
@example('"a"b;')
def test_any_text_is_parsed_or_refused_with_its_line(text: str) -> None:
    try:
        parse(text, "nginx.conf")
    except Refused as refused:
        assert str(refused).startswith("nginx.conf:")


@given(st.text(max_size=30).filter(lambda word: "\0" not in word))
def test_a_quoted_word_is_one_word(word: str) -> None:
    if word:
        (directive,) = parse(f"x {quote(word)};", "x")
        assert len(directive.words) == 2


def test_comments_quotes_and_escapes_are_nginx_s() -> None:
    text = """
    a "x # y; {" 'z}' p\\;q ${v}w; # b;
    if ($h ~* "a{2}") { return 200 "it's"; }
    location ~ \\.php$ { x; }
    content_by_lua_block { if x then y = "}" end }
    """.replace('"}" end', '"{}" end')
    first, condition, location, lua = parse(text, "x")
    assert first.arguments == ["x # y; {", "z}", "p;q", "${v}w"]
    assert condition.words == ["if", "($h", "~*", '"a{2}"', ")"] or condition.words[-1].endswith(")")
    assert location.words == ["location", "~", "\\.php$"]
    assert lua.raw is not None and "then y" in lua.raw


@given(st.text(max_size=30))
def test_any_listen_address_is_understood_or_refused(address: str) -> None:
    try:
        _, ports = split_address(address)
    except Refused as refused:
        assert str(refused)
    else:
        assert all(1 <= port <= 65535 for port in ports)


@pytest.mark.parametrize(
    ("address", "host", "ports"),
    [("80", "*", [80]),
     ("127.0.0.1:81", "127.0.0.1", [81]), ("[::]:82", "[::]", [82]), ("localhost", "localhost", [80]),
     ("[::1]", "[::1]", [80]), ("*:83", "*", [83]), ("8000-8002", "*", [8000, 8001, 8002]),
     ("unix:/x", "unix:/x", [])],
)  # fmt: skip
def test_listen_addresses_are_read_as_nginx_reads_them(address: str, host: str, ports: list[int]) -> None:
    assert split_address(address) == (host, range(ports[0], ports[-1] + 1) if ports else range(0))


def test_a_tree_holds_every_included_file_in_nginx_s_order(etc: Path) -> None:
    (etc / "sites").mkdir()
    for name in ("b", "B", "a", ".hidden"):
        (etc / "sites" / name).write_text(f"server {{ listen 8{ord(name[0])}; }}")
    (etc / "nginx.conf").write_text("http { include sites/*; include none/*.conf; }")
    tree = Tree(etc / "nginx.conf")
    assert list(tree.files) == ["nginx.conf", *(f"{etc}/sites/{name}" for name in ("B", "a", "b"))]
    assert [listener.port for listener in listeners(tree.directives)] == [866, 897, 898]
    fingerprint = tree.fingerprint()
    (etc / "sites" / "a").write_text("server { listen 1; }")
    assert Tree(etc / "nginx.conf").fingerprint() != fingerprint


@pytest.mark.parametrize("text", ["include nginx.conf;", "include missing.conf;", "a {", "include sub;"])
def test_a_tree_that_nginx_could_not_load_is_refused(etc: Path, text: str) -> None:
    (etc / "nginx.conf").write_text(text)
    (etc / "sub").mkdir()
    with pytest.raises(Refused):
        Tree(etc / "nginx.conf")
