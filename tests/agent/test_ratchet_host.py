"""Root's program, function by function: what it makes of any input, and of nginx's language."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ratchet_host import paths, processes, shadow_text
from ratchet_host.claim import Claim, command_claim, command_release, extend_claim
from ratchet_host.command_line import BadUsage, identity_argument, lease_argument, parse_arguments
from ratchet_host.configurations import live, staged
from ratchet_host.errors import Refused
from ratchet_host.figures import ErrorLog
from ratchet_host.files import identify, point, short_diff, write_atomically
from ratchet_host.language import Directive, parse, quote, render
from ratchet_host.lease import parse_span
from ratchet_host.listeners import listeners, servers, split_address
from ratchet_host.paths import ID, LABEL, live_link
from ratchet_host.session_input import parse_command
from ratchet_host.shadow_text import ShadowText
from ratchet_host.staging import KEEP_BYTES, parse_configurations, prune
from ratchet_host.tree import Tree

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture
def etc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder in place of /etc/nginx."""
    (tmp_path / "ratchet").mkdir()
    monkeypatch.setattr(paths, "ETC", tmp_path)
    yield tmp_path


# --- input -----------------------------------------------------------------------------------------------------------


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b"[" * 100_000)
@example(b'{"configurations": {"a": "\\ud800;"}}')
@example(b'{"configurations": {"a": "x;"}, "keep": true}')
@example(b'{"configurations": {"../a": "x;"}}')
def test_staging_takes_configurations_or_refuses_with_a_sentence(content: bytes) -> None:
    try:
        texts, keep = parse_configurations(content)
    except Refused as refused:
        assert str(refused)
    else:
        assert texts and 0 <= keep <= 1000 and all(LABEL.fullmatch(label) for label in texts)


@given(
    st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,10}", fullmatch=True), st.text("ab;{} \n", min_size=1))
)
def test_staging_keeps_every_byte_of_a_configuration(texts: dict[str, str]) -> None:
    usable = {label: text for label, text in texts.items() if text.strip()} or {"a": "x;"}
    taken, _ = parse_configurations(json.dumps({"configurations": usable}).encode())
    assert taken == {label: text.encode() for label, text in usable.items()}


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@example(b'{"command": "switch", "configuration": "0123456789abcdef\\n"}')
@example(b'{"command": "switch", "configuration": "0123456789abcdef", "more": 1}')
@example(b'{"command": ["switch"]}')
def test_a_session_takes_a_command_or_refuses_with_a_sentence(line: bytes) -> None:
    try:
        command = parse_command(line)
    except Refused as refused:
        assert str(refused)
    else:
        ids = [value for name, value in command.items() if name != "command"]
        assert all(ID.fullmatch(value) for value in ids)


@given(st.text(max_size=40))
@example("٣" * 2)
@example("1_0")
def test_only_ids_and_seconds_get_through_the_command_line(text: str) -> None:
    for check, valid in (
        (identity_argument, len(text) == 16 and set(text) <= set("0123456789abcdef")),
        (lease_argument, text.isascii() and text.isdigit() and len(text) <= 4 and 5 <= int(text) <= 3600),
    ):
        if valid:
            check(text)
        else:
            with pytest.raises(argparse.ArgumentTypeError):
                check(text)


@given(st.text(max_size=60))
def test_any_time_span_is_read_or_is_none(text: str) -> None:
    seconds = parse_span(text)
    assert seconds is None or seconds >= 0


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15min 47.743501s", 947.743501), ("1w 2d 3h 4min 5s", 788645), ("500ms", 0.5), ("infinity", None), ("", None)],
)
def test_systemd_s_time_spans_are_seconds(text: str, seconds: float | None) -> None:
    assert parse_span(text) == (None if seconds is None else pytest.approx(seconds))


# --- nginx's language ------------------------------------------------------------------------------------------------


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


# --- trees -----------------------------------------------------------------------------------------------------------


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


# --- shadows ---------------------------------------------------------------------------------------------------------


def shadow(text: str) -> Any:
    ports: dict[tuple[str, int], int] = {}
    return ShadowText(
        parse(text, "x"), Path("/run/s"), Path("/var/s"),
        lambda protocol, port: ports.setdefault((protocol, port), 21000 + len(ports)),
    )  # fmt: skip


def listens(text: str) -> list[list[str]]:
    """The arguments of each listen directive that a shadow gets, server by server."""
    tree = parse(shadow(f"http {{ access_log off; {text} }}").text, "x")
    return [[" ".join(d.arguments) for d in server.block if d.name == "listen"] for server in servers(tree)]


@pytest.fixture(autouse=True)
def no_nginx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shadow_text, "compiled_in_paths", lambda: {"proxy_temp_path": "/var/lib/nginx/proxy"})


@pytest.mark.parametrize(
    ("servers", "expected"),
    [
        ("server { listen 80; listen [::]:80 ipv6only=on; }", [["127.0.0.1:21000"]]),
        ("server { }", [["127.0.0.1:21000"]]),
        ("server { listen 443 ssl http2 default_server; }", [["127.0.0.1:21000 ssl http2 default_server"]]),
        ("server { listen 80 default_server; } server { listen [::]:80 default_server; }",
         [["127.0.0.1:21000 default_server"], ["127.0.0.1:21000"]]),
        ("server { listen 80 reuseport backlog=9; } server { listen [::]:80 reuseport; }",
         [["127.0.0.1:21000 reuseport backlog=9"], ["127.0.0.1:21000"]]),
        ("server { listen unix:/run/x.sock; }", [["unix:/run/s/unreached.sock"]]),
        ("server { listen 80; } server { listen 127.0.0.1:80; }",
         [["unix:/run/s/unreached.sock"], ["127.0.0.1:21000"]]),
        ("server { listen 10.0.0.1:80; } server { listen 10.0.0.2:80; }", [["127.0.0.1:21000"], ["127.0.0.1:21000"]]),
        ("server { listen 10.0.0.1:80; } server { listen *:80; }",
         [["unix:/run/s/unreached.sock"], ["127.0.0.1:21000"]]),
        ("server { listen 8000-8001; }", [["127.0.0.1:21000", "127.0.0.1:21001"]]),
        ("server { listen 443 ssl; listen 443 quic reuseport; }",
         [["127.0.0.1:21000 ssl", "127.0.0.1:21001 quic reuseport"]]),
    ],
)  # fmt: skip
def test_a_shadow_listens_where_a_client_of_the_loopback_would_be_served(servers: str, expected: list[Any]) -> None:
    assert listens(servers) == expected


def test_a_shadow_writes_to_no_file_of_the_live_instance() -> None:
    text = shadow(
        """
        pid /run/nginx.pid; daemon on; user www-data; error_log stderr;
        http {
          access_log /var/log/nginx/a.log main buffer=4k; proxy_cache_path /var/cache/c keys_zone=z:1m;
          map $uri $log { access_log /not/a/path; }
          server { listen 80; access_log logs/b.log; error_log /var/log/../log/c.log; access_log syslog:server=x;
            location / { access_log off; client_body_temp_path "/tmp/d e"; root /var/www; } }
        }
        stream { server { listen 53 udp; proxy_pass 127.0.0.1:53; access_log /var/log/s.log; } }
        """
    ).text
    assert "pid /run/s/nginx.pid;" in text and "daemon" not in text and "error_log stderr;" in text
    assert "access_log /var/s/var/log/nginx/a.log main buffer=4k;" in text
    assert "proxy_cache_path /var/s/var/cache/c keys_zone=z:1m;" in text
    assert "access_log /not/a/path;" in text and "access_log off;" in text and "access_log syslog:server=x;" in text
    assert "access_log /var/s/usr/share/nginx/logs/b.log;" in text and "error_log /var/s/var/log/c.log;" in text
    assert 'client_body_temp_path "/var/s/tmp/d e";' in text and "root /var/www;" in text
    assert "proxy_temp_path /var/s/var/lib/nginx/proxy;" in text and "access_log /var/s/var/log/s.log;" in text
    assert "listen 127.0.0.1:21001 udp;" in text


def test_a_path_with_variables_gets_the_folder_before_them() -> None:
    made = shadow("http { access_log /var/log/$host/x.log; server { access_log /var/log/n/$host.log; } }")
    assert {Path("/var/s/var/log"), Path("/var/s/var/log/n")} <= made.folders


@pytest.mark.parametrize("text", ["http { init_by_lua_block { x } }", "http { server { listen 1-65535; } }"])
def test_what_a_shadow_cannot_do_is_refused_with_the_way_out(text: str) -> None:
    with pytest.raises(Refused, match="use the design switchback"):
        shadow(text)


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("keep", "each", "left"), [(2, 100, 2), (9, 100, 4), (9, KEEP_BYTES // 2, 2), (0, 100, 0)])
def test_unused_configurations_are_pruned_by_count_and_size(etc: Path, keep: int, each: int, left: int) -> None:
    texts = [f"# {number}\n".encode() for number in range(6)]
    names = [identify(text) for text in texts]
    for age, (name, text) in enumerate(zip(names, texts, strict=True)):
        folder = etc / "ratchet" / name
        folder.mkdir()
        (folder / "nginx.conf").write_bytes(text)
        with (folder / "included.conf").open("wb") as file:
            file.truncate(each - len(text))
        os.utime(folder, (1000 - age, 1000 - age))
    point(live_link(), names[4])
    prune(keep, {names[5]})
    assert staged() == [*names[:left], names[4], names[5]]


@pytest.mark.usefixtures("etc")
def test_links_name_configurations_or_nothing() -> None:
    link = live_link()
    assert live() is None
    point(link, "0123456789abcdef")
    point(link, "fedcba9876543210")
    assert live() == "fedcba9876543210" and [path.name for path in link.parent.iterdir()] == ["live"]
    point(link, "../../etc")
    assert live() is None


def test_a_file_is_written_whole_or_not_at_all(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = etc / "file"
    write_atomically(path, b"one")

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"two")
    assert path.read_bytes() == b"one" and not list(etc.glob(".file*"))


def test_a_difference_is_shown_shortly() -> None:
    before, after = b"".join(b"%d\n" % n for n in range(100)), b"".join(b"%d\n" % (n * 2) for n in range(100))
    assert short_diff(before, before, ("a", "b"), 5) == ""
    shown = short_diff(before, after, ("a", "b"), 5).splitlines()
    assert shown[:2] == ["--- a", "+++ b"] and len(shown) == 6 and shown[-1].endswith("more lines")
    assert "too many" in short_diff(b"\n" * 30_000, b"", ("a", "b"), 5)


# --- claims ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in place of /run/ratchet."""
    monkeypatch.setattr(paths, "RUN", tmp_path)
    return tmp_path


def claim(run: str, holder: str = "ann@laptop/1", seconds: int = 60) -> dict[str, Any]:
    document: dict[str, Any] = command_claim(holder, run, seconds)
    return document


@pytest.mark.usefixtures("run_folder")
def test_a_claim_keeps_others_away_and_says_who_since_when_and_how_long() -> None:
    assert claim("r-1")["changed"]
    refused = claim("r-2", "bob@desk/2")
    assert not refused["ok"]
    assert refused["error"].startswith("claimed by run r-1 of ann@laptop/1 since 2")
    assert 55 < refused["claim"]["seconds_left"] <= 60
    assert Claim.read().run == "r-1"


@pytest.mark.usefixtures("run_folder")
def test_the_same_run_renews_its_claim_from_anywhere_and_keeps_its_beginning() -> None:
    first = claim("r-1", seconds=30)["claim"]
    again = claim("r-1", "ann@desk/9", seconds=90)
    assert again["ok"] and not again["changed"]
    assert again["claim"]["since"] == first["since"] and again["claim"]["seconds_left"] > 80


@pytest.mark.usefixtures("run_folder")
def test_a_holder_replaces_the_claim_of_its_own_earlier_run() -> None:
    claim("r-1")
    assert claim("r-2")["replaced"]["run"] == "r-1"


@pytest.mark.usefixtures("run_folder")
def test_a_claim_that_has_run_out_keeps_nobody_away(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1", seconds=60)
    later = processes.boot_clock() + 61
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    assert Claim.read() is None
    assert claim("r-2", "bob@desk/2")["replaced"] is None


@pytest.mark.usefixtures("run_folder")
def test_a_run_that_was_taken_over_is_refused_until_it_must_have_learnt_it(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1")
    assert not command_claim("bob@desk/2", "r-2", 60, "r-9")["ok"]
    assert command_claim("bob@desk/2", "r-2", 60, "r-1")["replaced"]["run"] == "r-1"
    command_release("r-2")
    assert claim("r-1")["error"] == "run r-1 was taken over and is at an end"
    assert claim("r-3")["ok"]
    command_release("r-3")
    later = processes.boot_clock() + 61
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    assert claim("r-1")["ok"]


@pytest.mark.usefixtures("run_folder")
def test_only_its_own_run_releases_a_claim() -> None:
    claim("r-1")
    kept = command_release("r-2")
    assert kept["ok"] and not kept["changed"] and kept["claim"]["run"] == "r-1"
    assert command_release("r-1") == {"ok": True, "changed": True, "claim": None}
    assert command_release("r-1")["changed"] is False


@pytest.mark.usefixtures("run_folder")
def test_a_session_that_is_renewed_extends_the_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    claim("r-1", seconds=60)
    later = processes.boot_clock() + 30
    monkeypatch.setattr(processes, "boot_clock", lambda: later)
    extend_claim()
    assert Claim.read().left == 60


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@example(b'{"run": "r", "holder": "h", "since": "s", "seconds": "x", "until": 1}')
@example(b'{"run": "r", "holder": "h", "since": "s", "seconds": Infinity, "until": NaN}')
@pytest.mark.usefixtures("run_folder")
def test_a_damaged_claim_is_no_claim(content: bytes) -> None:
    Claim.path().write_bytes(content)
    assert Claim.read() is None


@pytest.mark.parametrize(
    "arguments",
    [
        ["claim", "--holder", "ann@laptop", "--run", "r-1"],
        ["claim", "--holder", "ann@laptop", "--run", "../x", "--seconds", "60"],
        ["claim", "--holder", "two\nlines", "--run", "r-1", "--seconds", "60"],
        ["claim", "--holder", "ann@laptop", "--run", "r-1", "--seconds", "4"],
        ["release", "--run", ""],
        ["release"],
    ],
)
def test_a_claim_takes_only_plain_names_and_seconds(arguments: list[str]) -> None:
    with pytest.raises(BadUsage):
        parse_arguments(arguments)


# --- the error log ---------------------------------------------------------------------------------------------------


def test_errors_are_counted_from_the_first_look_on_whole_lines_only_and_over_a_rotation(tmp_path: Path) -> None:
    log = tmp_path / "error.log"
    line = "2026/11/24 10:00:00 [{}] 7#7: *1 {}\n"
    log.write_text(line.format("error", "before"))
    errors = ErrorLog(lambda: log)
    assert errors.read() == {"error_log_lines": 0, "upstream_errors": 0}
    with log.open("a") as file:
        file.write(line.format("notice", "signal process started") + line.format("warn", "a [error] in its text"))
        file.write(line.format("error", "connect() failed while connecting to upstream"))
        file.write(line.format("crit", "open() failed")[:-1])
    assert errors.read() == {"error_log_lines": 1, "upstream_errors": 1}
    with log.open("a") as file:
        file.write("\n")
    assert errors.read() == {"error_log_lines": 2, "upstream_errors": 1}
    log.rename(tmp_path / "error.log.1")
    assert errors.read() == {}
    log.write_text(line.format("alert", "worker process 7 exited on signal 11"))
    assert errors.read() == {"error_log_lines": 3, "upstream_errors": 1}
