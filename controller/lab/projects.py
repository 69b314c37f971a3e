"""The small resources of a project: SSH keys and placement groups."""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from typing import Any

from controller.lab.query import check_labels
from controller.lab.replies import ApiError, invalid, not_found, not_unique, timestamp
from controller.lab.state import Document, State


def fingerprint(public_key: str) -> str:
    """MD5 fingerprint of an OpenSSH public key, as the API shows it. Raises ApiError for anything else."""
    parts = public_key.split()
    try:
        blob = base64.b64decode(parts[1], validate=True)
        (length,) = struct.unpack(">I", blob[:4])
        if blob[4 : 4 + length].decode() != parts[0]:
            raise ValueError
    except (IndexError, ValueError, binascii.Error, struct.error) as error:
        raise invalid("public_key", "is not an OpenSSH public key") from error
    digest = hashlib.md5(blob, usedforsecurity=False).digest()
    return ":".join(f"{byte:02x}" for byte in digest)


class Named:
    """Create, read, update and delete documents that have a unique name and labels."""

    def __init__(self, state: State, kind: str) -> None:
        self._state = state
        self.kind = kind

    def all(self) -> list[Document]:
        return self._state.all(self.kind)

    def get(self, identity: int) -> Document:
        document = self._state.get(self.kind, identity)
        if document is None:
            raise not_found(self.kind, identity)
        return document

    def create(self, body: dict[str, Any]) -> Document:
        fields = self._fields(body)
        with self._state.transaction():
            self._check_unique({"name": body.get("name"), **fields})
            document: Document = {
                "id": self._state.next_id(),
                "name": body["name"],
                "labels": check_labels(body.get("labels") or {}),
                "created": timestamp(),
                **fields,
            }
            self._state.put(self.kind, document)
        return document

    def _fields(self, body: dict[str, Any]) -> dict[str, Any]:
        name = body.get("name")
        if not isinstance(name, str) or not 1 <= len(name) <= 128:
            raise invalid("name", "is required")
        if self.kind == "placement_group":
            if body.get("type") != "spread":
                raise invalid("type", "must be spread")
            return {"type": "spread", "servers": []}
        key = body.get("public_key")
        if not isinstance(key, str):
            raise invalid("public_key", "is required")
        return {"public_key": key.strip(), "fingerprint": fingerprint(key)}

    def _check_unique(self, fields: dict[str, Any], *, apart_from: int = 0) -> None:
        for other in self._state.all(self.kind):
            for field in ("name", "fingerprint"):
                if field in fields and other[field] == fields[field] and other["id"] != apart_from:
                    raise not_unique("public_key" if field == "fingerprint" else field)

    def update(self, identity: int, name: str | None, labels: dict[str, str] | None) -> Document:
        with self._state.transaction():
            document = self.get(identity)
            if name is not None:
                self._check_unique({"name": name}, apart_from=identity)
                document["name"] = name
            if labels is not None:
                document["labels"] = labels
            self._state.put(self.kind, document)
        return document

    def delete(self, identity: int) -> None:
        with self._state.transaction():
            document = self.get(identity)
            if document.get("servers"):
                raise ApiError("resource_in_use", f"{self.kind} with ID '{identity}' is still in use")
            self._state.delete(self.kind, identity)
