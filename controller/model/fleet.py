"""A fleet: a named inventory with its settings in `inventory/<fleet>/group_vars/all/ratchet.yml`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from controller.model.experiment import Frozen

# The name of a folder, and of a file and a label's value after it.
FLEET_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$"
ServerTypeName = Annotated[str, Field(pattern=r"^[a-z0-9]{2,20}$")]
Location = Annotated[str, Field(pattern=r"^[a-z0-9-]{2,20}$")]


class Placement(Frozen):
    """One choice of the ordered preference."""

    type: ServerTypeName
    location: Location


class Servers(Frozen):
    """What `controller provision` creates; absent for a static inventory."""

    count: int = Field(ge=1, le=500)
    image: Literal["debian-12", "debian-13"] = "debian-12"
    prefer: list[Placement] = Field(min_length=1, description="tried in order until one is available")
    labels: dict[str, str] = {}
    ssh_sources: list[str] = Field(default=["0.0.0.0/0", "::/0"], description="networks that may reach SSH")


class Trials(Frozen):
    """How trials run on this fleet."""

    hosts: int = Field(default=0, ge=0, description="hosts per trial; 0 means all")
    lease_seconds: int = Field(default=60, ge=10, le=3600)
    soak_seconds: int = Field(
        default=10, ge=0, le=3000, description="how long a proven variant is watched live before its commit; 0: not"
    )
    alpha: float = Field(default=0.05, gt=0, lt=0.5)
    broken_hosts: Literal["stop", "quarantine"] = Field(
        default="stop", description="what a run does about a host that fails: end, or go on without it"
    )
    failures_in_a_row: int = Field(
        default=3, ge=1, le=100, description="with quarantine: trials or stints lost to hosts in a row that end the run"
    )
    alert: list[str] = Field(
        default=[],
        max_length=32,
        description="a command, word by word: gets a line of JSON on stdin when a run ends badly",
    )


class FleetSettings(Frozen):
    """The `ratchet:` mapping of the fleet's group_vars."""

    servers: Servers | None = None
    trials: Trials = Trials()


class Host(Frozen):
    """One server of a fleet, as its inventory says."""

    name: str = Field(pattern=r"^[A-Za-z0-9._-]{1,253}$")
    address: str
    port: int = 22
    admin_user: str = "ratchet"
    probe_user: str = "ratchet-probe"
    key_file: Path
    known_hosts: Path
    known_as: str = Field(default="", description="its name in known_hosts, where that is not its address and port")
    proxy: str = Field(default="", description="a shell's command whose stdin and stdout are the connection")


class Fleet(Frozen):
    """A fleet whose files have been read and validated."""

    name: str = Field(pattern=FLEET_NAME)
    inventory: Path
    settings: FleetSettings
    hosts: list[Host]
