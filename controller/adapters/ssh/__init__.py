"""SSH to a fleet's hosts through paramiko: known host keys only, the fleet's key only, a deadline for everything."""

from controller.adapters.ssh.connection import Connection, ask, connect
from controller.adapters.ssh.stream import Stream

__all__ = ["Connection", "Stream", "ask", "connect"]
