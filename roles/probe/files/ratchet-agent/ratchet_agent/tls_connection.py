"""A TCP connection to the server that speaks TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ratchet_agent.clock import monotonic_ns
from ratchet_agent.connection import Connection

if TYPE_CHECKING:
    import ssl  # by tls_context, when it is needed

    from ratchet_agent.client import Client


class TlsConnection(Connection):
    """TLS in memory over the raw socket, so that the kernel's receive stamps remain."""

    __slots__ = ("_handshaking", "_incoming", "_tls", "_waiting", "_written")

    def __init__(self, client: Client, number: int) -> None:
        self._handshaking = False
        self._waiting = b""
        self._incoming = ssl.MemoryBIO()
        self._written = ssl.MemoryBIO()
        if client.tls is None:
            raise ValueError("a TLS connection needs a TLS context")
        self._tls = client.tls.wrap_bio(
            self._incoming, self._written, server_hostname=client.server_name, session=client.session
        )
        super().__init__(client, number)
        self._handshaking = True
        client.handshake_began()

    def close(self) -> None:
        self._end_handshake(None)
        super().close()

    def _end_handshake(self, resumed: bool | None) -> None:
        if self._handshaking:
            self._handshaking = False
            self._client.handshake_ended(resumed)

    def _send(self, data: bytes) -> None:
        if self._handshaking:
            self._waiting += data
            self._shake_hands(monotonic_ns())
        else:
            self._tls.write(data)
            super()._send(self._written.read())

    def _shake_hands(self, now: int) -> None:
        shaken = False
        try:
            self._tls.do_handshake()
            shaken = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            self._finish(now, "tls")
            return
        if shaken:
            self._end_handshake(bool(self._tls.session_reused))
            if self._waiting:
                self._tls.write(self._waiting)
                self._waiting = b""
        if self._written.pending:
            super()._send(self._written.read())

    def _received(self, count: int, now: int, stamp: int) -> None:
        client = self._client
        self._incoming.write(client.view[:count])
        if self._handshaking:
            self._shake_hands(now)
            if self._handshaking or not self.open:
                return
        decrypted = 0
        ended = False
        try:
            while decrypted < len(client.clear):
                # With a buffer it returns a number, which its types do not say.
                size = cast("int", self._tls.read(len(client.clear) - decrypted, client.clear_view[decrypted:]))
                if size == 0:
                    ended = True
                    break
                decrypted += size
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLZeroReturnError:
            ended = True
        except ssl.SSLError:
            self._finish(now, "tls")
            return
        if self._written.pending:
            super()._send(self._written.read())
        if decrypted:
            if not client.keepalive:
                client.session = self._tls.session
            self._deliver(client.clear, decrypted, now, stamp)
        if ended and self.open:
            self._ended(now, "eof")

    def _ended(self, now: int, error: str) -> None:
        super()._ended(now, "tls" if self._handshaking and error == "eof" else error)


def tls_context() -> ssl.SSLContext:
    """The server is this very host, reached over loopback: its certificate proves nothing more; often it is its own."""
    global ssl  # noqa: PLW0603
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
