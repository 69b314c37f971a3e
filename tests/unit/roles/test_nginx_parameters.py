"""The nginx role's parameters: what each may be, and that nothing else reaches the configuration."""

from __future__ import annotations

import functools
import importlib.util
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml
from ansible.errors import AnsibleFilterError
from hypothesis import given
from hypothesis import strategies as st

ROLE = Path(__file__).parents[3] / "roles" / "nginx"


def _yaml(name: str) -> Any:
    return yaml.safe_load((ROLE / name).read_text(encoding="utf-8"))


def _filter() -> Callable[[Any, str], str]:
    spec = importlib.util.spec_from_file_location("nginx_value", ROLE / "filter_plugins" / "nginx_value.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.nginx_value


nginx_value = _filter()
DEFAULTS: dict[str, Any] = _yaml("defaults/main.yml")
SPECS: dict[str, Any] = _yaml("meta/argument_specs.yml")["argument_specs"]
OPTIONS: dict[str, Any] = SPECS["main"]["options"]
BOUNDS: dict[str, Any] = _yaml("meta/bounds.yml")
# Every parameter that ends as text in the configuration.
RENDERED = sorted(name for name, option in OPTIONS.items() if option.get("elements") != "dict")
TEXTS = [name for name in RENDERED if OPTIONS[name].get("elements", OPTIONS[name]["type"]) == "str"]


@functools.cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # noqa: S701 - no HTML
    )
    environment.filters["nginx_value"] = nginx_value
    return environment.from_string((ROLE / "templates" / "nginx.conf.j2").read_text("utf-8").split("\n", 1)[1])


def render(**parameters: Any) -> str:
    """The configuration as Ansible's template lookup renders it."""
    return _template().render(**(DEFAULTS | parameters))


def test_the_defaults_are_those_of_the_specification() -> None:
    assert {name: option["default"] for name, option in OPTIONS.items()} == DEFAULTS


def test_both_entry_points_have_the_same_parameters() -> None:
    assert SPECS["parameters"]["options"] == OPTIONS


def test_every_text_and_number_has_choices_or_bounds() -> None:
    free = [
        name
        for name in RENDERED
        if OPTIONS[name]["type"] != "bool" and "choices" not in OPTIONS[name] and name not in BOUNDS["parameters"]
    ]
    assert free == []


def test_what_reduces_service_is_a_parameter_with_that_value() -> None:
    for name, values in BOUNDS["service_reducing"].items():
        for value in values:
            nginx_value(value, name)


def test_the_template_uses_every_parameter() -> None:
    used = set(re.findall(r"nginx_value\('(\w+)'\)", (ROLE / "templates" / "nginx.conf.j2").read_text("utf-8")))
    assert used == set(RENDERED)


def test_two_renderings_are_the_same_text() -> None:
    assert render(nginx_demo_sites=True) == render(nginx_demo_sites=True)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("nginx_gzip", False, "off"),
        ("nginx_gzip", "yes", "on"),
        ("nginx_gzip_comp_level", 9, "9"),
        ("nginx_gzip_comp_level", "4", "4"),
        ("nginx_worker_processes", 2, "2"),
        ("nginx_worker_cpu_affinity", "01 10", "01 10"),
        ("nginx_proxy_http_version", 1.1, "1.1"),
        ("nginx_gzip_types", ["text/css", "image/svg+xml"], "text/css image/svg+xml"),
        ("nginx_keepalive_timeout", "500ms", "500ms"),
    ],
)
def test_a_value_within_its_bounds_is_written_as_nginx_writes_it(name: str, value: Any, text: str) -> None:
    assert nginx_value(value, name) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nginx_gzip", "perhaps"),
        ("nginx_gzip", None),
        ("nginx_gzip_comp_level", 10),
        ("nginx_gzip_comp_level", 4.5),
        ("nginx_gzip_comp_level", True),
        ("nginx_gzip_comp_level", "4\n"),
        ("nginx_gzip_comp_level", "\u0664"),
        ("nginx_worker_processes", 0),
        ("nginx_worker_processes", "auto;"),
        ("nginx_gzip_types", []),
        ("nginx_gzip_types", "text/css"),
        ("nginx_gzip_types", ["text/css; include /etc/passwd"]),
        ("nginx_keepalive_timeout", "65 s"),
        ("nginx_error_log_level", "loud"),
        ("nginx_unheard_of", 1),
    ],
)
def test_a_value_outside_its_bounds_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(AnsibleFilterError, match=name):
        nginx_value(value, name)


@given(st.sampled_from(TEXTS), st.text(min_size=0, max_size=40))
def test_no_text_carries_syntax_into_the_configuration(name: str, text: str) -> None:
    value = [text] if OPTIONS[name]["type"] == "list" else text
    try:
        rendered = nginx_value(value, name)
    except AnsibleFilterError:
        return
    assert not set(rendered) & set(";{}'\"$#\\\n\r\t\0")


@pytest.mark.parametrize("hostile", [";", "{", "}", "'", '"', "$", "#", "\\", "\n", "\r", "\0", "\u2028"])
@pytest.mark.parametrize("name", TEXTS)
def test_syntax_after_a_good_value_is_refused(name: str, hostile: str) -> None:
    good = DEFAULTS[name]
    value = [f"{good[0]}{hostile}"] if isinstance(good, list) else f"{good}{hostile}"
    with pytest.raises(AnsibleFilterError):
        nginx_value(value, name)


@pytest.mark.parametrize(
    "site",
    [
        {"name": "a b"},
        {"name": "a", "listen": [80, "81 default_server"]},
        {"name": "a", "root": "/srv; return 200"},
        {"name": "a", "root": "srv"},
        {"name": "a", "server_names": ["a.example.org;"]},
        {"name": "a", "locations": [{"path": "/ {", "servers": ["127.0.0.1:1"]}]},
        {"name": "a", "locations": [{"path": "/", "servers": ["127.0.0.1:1 backup"]}]},
        {"name": "a", "locations": [{"path": "/", "servers": ["127.0.0.1"]}]},
        {"name": "a", "tls_listen": [443], "tls_certificate": "", "tls_certificate_key": "/k"},
    ],
)
def test_a_site_outside_its_bounds_is_refused(site: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="nginx_sites"):
        render(nginx_sites=[site])


def test_the_live_log_is_off_unless_it_is_asked_for() -> None:
    assert "/var/log/ratchet" not in render()
    assert "$ratchet_class" not in render()


def test_the_live_log_tells_the_class_of_a_path_and_nothing_else_of_it() -> None:
    text = render(nginx_live_log=True, nginx_live_log_classes=[{"name": "old", "match": "/v1.0/"}])
    assert '"~^/v1[.]0/" old;' in text
    (logged,) = re.findall(r"log_format ratchet_live '(.*)';", text)
    assert set(re.findall(r"\$\w+", logged)) == {
        "$msec", "$request_time", "$status", "$bytes_sent", "$connection_requests", "$ratchet_class",
        "$upstream_response_time",
    }  # fmt: skip


def test_no_service_is_lost_or_gained_by_the_live_log() -> None:
    ordinary = "access_log /var/log/nginx/access.log combined;"
    assert render().count(ordinary) == 1
    # Once for all sites, once for the dashboard, whose requests are nobody's traffic.
    assert render(nginx_live_log=True).count(ordinary) == 2
    silent = render(nginx_live_log=True, nginx_access_log=False)
    assert "/var/log/nginx/access.log" not in silent
    http, dashboard = silent.split("listen 8088;")
    assert "    access_log off;" in dashboard
    assert "\n    access_log off;" not in http, "it would silence the live log too"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "api", "match": "api"},
        {"name": "api", "match": '/" x; #'},
        {"name": "api", "match": "~^/a\\"},
        {"name": "api;", "match": "/"},
        {"name": "", "match": "/"},
    ],
)
def test_a_class_outside_its_bounds_is_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(AnsibleFilterError, match="nginx_live_log_classes"):
        render(nginx_live_log=True, nginx_live_log_classes=[wrong])


def test_a_socket_s_options_are_given_once_for_each_port() -> None:
    sites = [{"name": "a", "listen": [80]}, {"name": "b", "listen": [80, 81]}]
    text = render(nginx_sites=sites, nginx_reuseport=True, nginx_ipv6=False)
    assert re.findall(r"listen (?:80|81)\b.*;", text) == [
        "listen 80 reuseport;",
        "listen 80;",
        "listen 81 reuseport;",
    ]


def test_nginx_itself_accepts_the_defaults_and_the_demo(tmp_path: Path) -> None:
    make_certificate = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    )
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    subprocess.run([*make_certificate.split(), *files], check=True, capture_output=True)
    (tmp_path / "cache").mkdir()
    places = {
        "/etc/ssl/ratchet-demo/": f"{tmp_path}/",
        "/etc/nginx/conf.d/*.conf": f"{tmp_path}/none/*.conf",
        "/etc/nginx/sites-enabled/*": f"{tmp_path}/none/*",
        "/etc/nginx/modules-enabled/*.conf": f"{tmp_path}/none/*.conf",
        "/run/nginx.pid": f"{tmp_path}/pid",
        "/var/log/nginx/": f"{tmp_path}/",
        "/var/log/ratchet/": f"{tmp_path}/",
        "/var/cache/nginx/": f"{tmp_path}/cache/",
    }
    classes = [{"name": "api", "match": "/api/v1.0/"}, {"name": "search", "match": "~^/[a-z]+/(search|find)$"}]
    for parameters in (
        {},
        {"nginx_demo_sites": True, "nginx_proxy_cache": True, "nginx_reuseport": True},
        {"nginx_live_log": True, "nginx_live_log_classes": classes, "nginx_access_log": False},
    ):
        text = render(**parameters)
        for place, here in places.items():
            text = text.replace(place, here)
        (tmp_path / "nginx.conf").write_text(text, encoding="utf-8")
        done = subprocess.run(
            ["nginx", "-t", "-q", "-c", str(tmp_path / "nginx.conf")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
