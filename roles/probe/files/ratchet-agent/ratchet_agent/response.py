"""HTTP/1.x responses, read as they arrive, and their bodies without their encodings."""

from __future__ import annotations

import re
import zlib

MAX_HEAD = 64 << 10
MAX_LINE = 8 << 10
MAX_BODY = 64 << 20
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: .*)?")
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;.*)?")
_HEAD, _LENGTH, _UNTIL_CLOSE, _CHUNK_HEAD, _CHUNK_DATA, _CHUNK_END, _TRAILER, _DONE = range(8)


class ProtocolError(Exception):
    """What arrived is not an HTTP/1.x response."""


class Response:
    """Reads one response as it arrives, in whatever pieces; keeps the body only when it is to be captured."""

    __slots__ = (
        "_chunked",
        "_head",
        "_left",
        "_length",
        "_line",
        "_no_body",
        "_state",
        "body",
        "encoding",
        "persistent",
        "size",
        "status",
    )

    def __init__(self, *, no_body: bool, capture: bool = False) -> None:
        self.status = 0
        self.size = 0
        self.persistent = False
        self.encoding = b""
        self.body: bytearray | None = bytearray() if capture else None
        self._state = _HEAD
        self._no_body = no_body
        self._left = 0
        self._head = bytearray()
        self._line = bytearray()

    def feed(self, data: bytes | bytearray, end: int) -> bool:
        """Take the first `end` bytes of `data`; True when the response is complete. Raises ProtocolError."""
        self.size += end
        start = 0
        while self._state == _HEAD:
            if self._head:
                self._head += data[start:end]
                data, start, end = bytes(self._head), 0, len(self._head)
                self._head.clear()
            split = data.find(b"\r\n\r\n", start, end)
            if split < 0:
                if end - start > MAX_HEAD:
                    raise ProtocolError("the head does not end")
                self._head += data[start:end]
                return False
            self._read_head(bytes(data[start:split]))
            start = split + 4
        if self._state == _LENGTH:
            start = self._take(data, start, end)
            if self._left == 0:
                self._state = _DONE
        elif self._state == _UNTIL_CLOSE:
            self._left = end - start
            start = self._take(data, start, end)
        elif self._state != _DONE:
            start = self._read_chunks(data, start, end)
        if start < end:
            raise ProtocolError("more arrived than the response announced")
        return self._state == _DONE

    def ends_at_eof(self) -> bool:
        """Whether the server's closing the connection now completes the response."""
        return self._state == _UNTIL_CLOSE

    def _take(self, data: bytes | bytearray, start: int, end: int) -> int:
        """Consume body bytes, at most `_left`; returns where they end."""
        stop = min(end, start + self._left)
        self._left -= stop - start
        if self.body is not None:
            if len(self.body) + stop - start > MAX_BODY:
                raise ProtocolError("the body is too large to be compared")
            self.body += data[start:stop]
        return stop

    def _read_head(self, head: bytes) -> None:
        first, *lines = head.split(b"\r\n")
        match = _STATUS_LINE.fullmatch(first)
        if match is None:
            raise ProtocolError("no status line")
        self.persistent = match[1] == b"1"
        self._length: int | None = None
        self._chunked = False
        for line in lines:
            name, colon, value = line.partition(b":")
            if not colon:
                raise ProtocolError("a header without a colon")
            self._read_header(name.lower(), value.strip())
        status = int(match[2])
        if status >= 200:
            self.status = status
            self._expect_body()
        elif status == 101:
            raise ProtocolError("switching protocols was not asked for")

    def _read_header(self, name: bytes, value: bytes) -> None:
        if name == b"content-length":
            if not value.isdigit() or len(value) > 15 or self._length not in {None, int(value)}:
                raise ProtocolError("no usable Content-Length")
            self._length = int(value)
        elif name == b"transfer-encoding":
            if value.lower() != b"chunked":
                raise ProtocolError("an unknown Transfer-Encoding")
            self._chunked = True
        elif name == b"connection":
            value = value.lower()
            self.persistent = b"close" not in value and (self.persistent or b"keep-alive" in value)
        elif name == b"content-encoding":
            self.encoding = value.lower()

    def _expect_body(self) -> None:
        if self._no_body or self.status in {204, 304} or (self._length == 0 and not self._chunked):
            self._state = _DONE
        elif self._chunked:
            self._state = _CHUNK_HEAD
        elif self._length is not None:
            self._state, self._left = _LENGTH, self._length
        else:
            self._state, self.persistent = _UNTIL_CLOSE, False

    def _read_chunks(self, data: bytes | bytearray, start: int, end: int) -> int:
        while start < end and self._state != _DONE:
            if self._state == _CHUNK_DATA:
                start = self._take(data, start, end)
                if self._left == 0:
                    self._state = _CHUNK_END
                continue
            newline = data.find(b"\n", start, end)
            self._line += data[start : end if newline < 0 else newline]
            if len(self._line) > MAX_LINE:
                raise ProtocolError("a line of the chunked body does not end")
            if newline < 0:
                return end
            start = newline + 1
            line = bytes(self._line).removesuffix(b"\r")
            self._line.clear()
            self._read_chunk_line(line)
        return start

    def _read_chunk_line(self, line: bytes) -> None:
        if self._state == _CHUNK_HEAD:
            match = _CHUNK_SIZE.fullmatch(line)
            if match is None:
                raise ProtocolError("no chunk size")
            self._left = int(match[1], 16)
            self._state = _CHUNK_DATA if self._left else _TRAILER
        elif self._state == _CHUNK_END:
            if line:
                raise ProtocolError("a chunk is longer than announced")
            self._state = _CHUNK_HEAD
        elif not line:
            self._state = _DONE


def decode_body(encoding: bytes, body: bytes) -> bytes:
    """Undo a Content-Encoding. Raises ValueError when it is unknown, or the body is damaged or unreasonably large."""
    for coding in reversed([part.strip() for part in encoding.split(b",") if part.strip()]):
        if coding in {b"gzip", b"x-gzip"}:
            body = _inflate(body, 16 + zlib.MAX_WBITS)
        elif coding == b"deflate":
            # The standard means zlib's wrapper; some servers send the bare stream.
            wrapped = len(body) >= 2 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
            body = _inflate(body, zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS)
        elif coding != b"identity":
            raise ValueError(f"unknown encoding {coding!r}")
    return body


def _inflate(body: bytes, window_bits: int) -> bytes:
    inflated = bytearray()
    while body:
        stream = zlib.decompressobj(window_bits)
        try:
            inflated += stream.decompress(body, MAX_BODY + 1)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        if not stream.eof or len(inflated) > MAX_BODY:
            raise ValueError("truncated, or too large")
        body = stream.unused_data if window_bits > zlib.MAX_WBITS else b""
    return bytes(inflated)
