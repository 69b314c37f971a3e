"""Where no worker can carry the mark, nothing is switched, and whoever asks is told why and what to do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.host.conftest import BASELINE, VARIANT, VARIANT_ID, Host
from tests.integration.host.way_back import assert_rests, restart_nginx

pytestmark = pytest.mark.lab

OWN_LIMIT = "/etc/nginx/modules-enabled/core.conf"
UNIT = "/etc/systemd/system/nginx.service.d/strict.conf"
STRICT = "[Service]\nLimitCORE=0\nCapabilityBoundingSet=~CAP_SYS_RESOURCE\n"


@pytest.fixture
def own_limit(host: Host) -> Iterator[Host]:
    host.put(OWN_LIMIT, "worker_rlimit_core 100m;\n")
    yield host
    host.run(f"rm {OWN_LIMIT}")
    restart_nginx(host)


@pytest.fixture
def strict_unit(host: Host) -> Iterator[Host]:
    host.run(f"mkdir -p $(dirname {UNIT})")
    host.put(UNIT, STRICT)
    host.run("systemctl daemon-reload; systemctl restart nginx")
    yield host
    host.run(f"rm -r $(dirname {UNIT}); systemctl daemon-reload; systemctl restart nginx")
    host.until(lambda: host.status()["verified"], 8)
    assert_rests(host)


def test_a_limit_of_the_operator_s_own_is_refused_by_its_line(own_limit: Host) -> None:
    answer = own_limit.stage(baseline=BASELINE, other=VARIANT + "# another\n")
    assert not answer["ok"]
    assert f"duplicate in {OWN_LIMIT}:1" in answer["error"] and "take yours out" in answer["error"]
    assert own_limit.status()["verified"]


def test_a_service_that_forbids_the_limit_is_named(strict_unit: Host) -> None:
    host = strict_unit
    session = host.session()
    assert not session.ready["ok"]
    assert "nginx's service forbids core limits" in session.ready["error"] and "LimitCORE=" in session.ready["error"]
    switched = host.ratchet("switch", VARIANT_ID)
    assert not switched["ok"] and "nginx's service forbids core limits" in switched["error"], switched
    assert host.level() == "level 9\n"
    status = host.status()
    assert (status["verified"], status["live"]) == (False, status["confirmed"])
