"""Serving one lab's API in this process, in the foreground."""

from __future__ import annotations

import logging
import socket

import uvicorn

from controller.lab.api import Api
from controller.lab.daemon import ADDRESS
from controller.lab.machine import require_parts
from controller.lab.resources import Cloud
from controller.lab.state import sole_server, volume_folder


def serve(lab: str, port: int, *, announce: bool = False) -> None:
    """Serve until SIGTERM or SIGINT, on loopback only. `port` 0 picks a free one."""
    require_parts()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", force=True)
    folder = volume_folder(lab, create=True)
    assert folder is not None  # noqa: S101 - narrows the type
    with sole_server(lab, folder), socket.create_server((ADDRESS, port)) as listener:
        if announce:
            print(f"http://{ADDRESS}:{listener.getsockname()[1]}/v1", flush=True)  # noqa: T201
        config = uvicorn.Config(Api(Cloud(lab, folder)).application(), log_config=None, access_log=True, lifespan="on")
        uvicorn.Server(config).run(sockets=[listener])
