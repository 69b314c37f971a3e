"""What a host runs, by its own account and by what nginx's workers carry."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

ASKED = "/data/catalogue.json"
KEEPER = "ratchet-keeper.service"
# The number on the first line of a staged file, and what every worker carries that serves and is not leaving, by the
# kernel's account: what nginx runs, whoever has told it to.
MARKS = r"""
mark() { sudo -n sed -n '1s/^worker_rlimit_core \([0-9]*\);.*/\1/p' "$1"; }
carried() {
  for pid in $(pgrep -fx 'nginx: worker process *'); do
    grep -q ratchet-shadow /proc/$pid/cgroup || awk '/^Max core file size/ { print $5 }' /proc/$pid/limits
  done 2>/dev/null | sort -u | xargs
}
"""
STATE_SCRIPT = (
    MARKS
    + """
sudo -n /usr/local/sbin/ratchet-host status
systemctl show @KEEPER@ --property=SubState --value
echo "$(mark /etc/nginx/nginx.conf):$(carried)"
systemctl list-units --all --no-legend --plain 'ratchet-shadow-*' 'ratchet-soak*' | wc -l
ls -d /var/lib/ratchet/shadow-* 2>/dev/null | wc -l
curl -s -m 3 -o /dev/null -D - -w '%{http_code} %{size_download}\\n' -H 'Accept-Encoding: gzip' @URL@ \
  | tr -d '\\r' | grep -E '^(Server:|[0-9])'
""".replace("@URL@", f"http://127.0.0.1{ASKED}").replace("@KEEPER@", KEEPER)
)


@dataclass(frozen=True)
class Baseline:
    """A configuration as a host runs it: its id, the fingerprint of all its files, and what it answers."""

    configuration: str
    fingerprint: str
    answer: str


@dataclass(frozen=True)
class HostState:
    """What a host says of itself."""

    status: dict[str, Any]
    # (units, folders)
    shadows: tuple[int, int]
    answer: str
    keeper: str = ""
    # (the mark of what nginx.conf leads to, what the workers carry)
    marks: tuple[str, str] = ("", "")

    @property
    def running(self) -> Baseline:
        return Baseline(str(self.status.get("live")), str(self.status.get("fingerprint")), self.answer)

    def problems(self, *, edited: bool = False, unasked: bool = False) -> list[str]:
        """What is not as on a host that rests on its baseline.

        `edited`: somebody's edit is still to be answered. `unasked`: no command has come since; the next one ends a
        session whose lease is over (it can switch nothing), and removes the folders of shadows that have ended.
        """
        status = self.status
        found = [f"drift: {status['drift']}"] if status.get("drift") and not edited else []
        if (lease := status.get("lease")) and not (unasked and lease["seconds_left"] is None):
            found.append(f"lease: {lease}")
        if not status.get("ok"):
            found.append(f"ratchet-host: {status.get('error', 'no answer')}")
        if not status.get("verified"):
            found.append("nginx is not known to run what is live")
        if not self.marks[0] or self.marks[0] != self.marks[1]:
            found.append(f"the workers carry {self.marks[1] or 'no mark'}, nginx.conf is marked {self.marks[0]}")
        if status.get("live") != status.get("confirmed"):
            found.append(f"runs {status.get('live')}, confirmed is {status.get('confirmed')}")
        units, folders = self.shadows
        if units or (folders and not unasked):
            found.append(f"{units} shadow units and {folders} of their folders are left")
        if " 200 " not in f" {self.answer} ":
            found.append(f"nginx answers {self.answer or 'nothing'}")
        return found


def parse_state(text: str) -> HostState:
    lines = text.strip().splitlines()
    try:
        status = json.loads(lines[0])
        asked, _, carried = lines[2].partition(":")
        return HostState(status, (int(lines[3]), int(lines[4])), " ".join(lines[5:]), lines[1], (asked, carried))
    except (IndexError, ValueError):
        return HostState({"error": f"no answer: {text[-200:]!r}"}, (0, 0), "")
