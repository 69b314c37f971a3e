"""The demo's content: the same on every host, and of the kinds and sizes that experiments ask for."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def files(demo_content: ModuleType) -> dict[str, bytes]:
    return demo_content.content(300)  # type: ignore[no-any-return]


def test_every_python_writes_the_same_bytes(files: dict[str, bytes]) -> None:
    digest = hashlib.sha256()
    for name, data in sorted(files.items()):
        if not name.endswith(".gz"):  # its bytes are the zlib's
            digest.update(name.encode() + b"\0" + data)
    assert digest.hexdigest() == "5816b1cd945d2319e99cf107959c027ec4875cd45c6fb213675c6e2b0bca308b"


def test_the_sizes_are_those_that_the_experiments_speak_of(files: dict[str, bytes]) -> None:
    assert len(files["data/status.json"]) == 1024
    assert 9_500 < len(files["data/summary.json"]) < 11_000
    assert 100_000 <= len(files["data/catalogue.json"]) < 103_000
    assert len(files["media/1m.bin"]) == 1 << 20
    assert sum(name.startswith("tiles/") for name in files) == 300


@pytest.mark.parametrize("name", ["index.html", "assets/site.css", "assets/app.js", "data/catalogue.json"])
def test_text_compresses_as_real_text_does(files: dict[str, bytes], name: str) -> None:
    ratio = len(files[name]) / len(zlib.compress(files[name], 6))
    assert 2.3 < ratio < 5


def test_documents_are_json_and_binaries_do_not_compress(files: dict[str, bytes]) -> None:
    for name in ("data/status.json", "data/summary.json", "data/catalogue.json"):
        json.loads(files[name])
    assert len(zlib.compress(files["media/64k.bin"], 9)) > len(files["media/64k.bin"]) * 0.99


def test_each_sibling_holds_its_original(files: dict[str, bytes]) -> None:
    siblings = [name for name in files if name.endswith(".gz")]
    assert sorted(siblings) == ["assets/app.js.gz", "assets/site.css.gz", "index.html.gz"]
    for name in siblings:
        assert gzip.decompress(files[name]) == files[name.removesuffix(".gz")]


def test_only_what_differs_is_written(demo_content: ModuleType, files: dict[str, bytes], tmp_path: Path) -> None:
    root = tmp_path / "site"
    assert len(demo_content.write(root, files, check=True)) == len(files)
    assert not root.exists()
    demo_content.write(root, files, check=False)
    assert demo_content.write(root, files, check=False) == []
    (root / "index.html").write_text("edited")
    (root / "assets/app.js.gz").write_bytes(b"no gzip")
    (root / "tiles/007.bin").chmod(0o600)
    (root / "own.html").write_text("the operator's")
    assert demo_content.write(root, files, check=False) == ["assets/app.js.gz", "index.html", "tiles/007.bin"]
    assert (root / "own.html").read_text() == "the operator's"


def test_a_sibling_from_another_zlib_is_left_alone(
    demo_content: ModuleType, files: dict[str, bytes], tmp_path: Path
) -> None:
    demo_content.write(tmp_path, files, check=False)
    (tmp_path / "index.html.gz").write_bytes(gzip.compress(files["index.html"], compresslevel=1))
    assert demo_content.write(tmp_path, files, check=False) == []
