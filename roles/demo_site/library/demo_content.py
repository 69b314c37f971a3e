#!/usr/bin/python
"""Ansible module: the demo's files, the same bytes on every host, generated where they are served.

Experiments need content that compresses as real pages and documents do. Words follow Zipf's law over a vocabulary of
some thousand, numbers and digests stand between them: gzip reaches the ratios that it reaches in production, and a
higher level costs what it costs there. Standard library only, beside what every Ansible module imports.
"""

from __future__ import annotations

import functools
import gzip
import hashlib
import itertools
import json
import random
import zlib
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

DOCUMENTATION = r"""
module: demo_content
short_description: Generate the demo site's deterministic content
description:
  - Writes pages, stylesheets, scripts, JSON documents, binaries and many small files below O(path).
  - The content is the same on every host. Files that already hold it are left alone; other files are not touched.
options:
  path:
    description: The document root. It is created, readable by everyone.
    type: path
    required: true
  small_files:
    description: Number of small files below C(tiles/).
    type: int
    default: 300
author: Ratchet
"""

EXAMPLES = r"""
- name: Fill the document root
  demo_content:
    path: /var/www/ratchet-demo
"""

RETURN = r"""
changed_files:
  description: The files that were, or would be, written; relative to the document root.
  returned: always
  type: list
  elements: str
files:
  description: Number of files that the content has.
  returned: always
  type: int
"""

SEED = 20261101
TILE_BYTES = (600, 4200)
PRECOMPRESSED = (".html", ".css", ".js")

COMMON = (
    "the of and to a in is that for it as was with be by on not he this are or his from at which but have an they you "
    "were her she all their one there been if would when who will no out so more up into only some them could these "
    "time new may other first now like any then its our two way many over should after also did where most world year "
    "work day part place case number point house company service group problem fact hand high small large last long "
    "great little own old right different next early young important public good same able order price stock garden "
    "kitchen table light wood steel water paper colour summer winter delivery return warranty size weight material"
)
SYLLABLES = "ba co de fi gra ha jo ka lu mer ni or pe qui ra sol ta u ver wi ex y za ston tion ment ing er al ic"


class Writer:
    """Text, numbers and bytes drawn from one seeded source.

    Only `random.random` and `random.randbytes` are used: the other methods may change between Python versions.
    """

    def __init__(self, name: str) -> None:
        self._source = random.Random(f"{SEED}:{name}")  # noqa: S311 - reproducible content, no secret
        self._vocabulary = _vocabulary()
        self._weights = _cumulative_zipf(len(self._vocabulary))

    def number(self, low: int, high: int) -> int:
        return low + int(self._source.random() * (high - low))

    def blob(self, size: int) -> bytes:
        return self._source.randbytes(size)

    def digest(self) -> str:
        return self._source.randbytes(16).hex()

    def word(self) -> str:
        return self._vocabulary[_rank(self._weights, self._source.random())]

    def words(self, count: int) -> str:
        return " ".join(self.word() for _ in range(count))

    def sentence(self) -> str:
        return self.words(self.number(6, 22)).capitalize() + "."

    def paragraph(self) -> str:
        return " ".join(self.sentence() for _ in range(self.number(3, 7)))


@functools.cache
def _vocabulary() -> list[str]:
    source = random.Random(SEED)  # noqa: S311 - reproducible content, no secret
    words = COMMON.split()
    syllables = SYLLABLES.split()
    seen = set(words)
    while len(words) < 4000:
        length = 2 + int(source.random() * 3)
        word = "".join(syllables[int(source.random() * len(syllables))] for _ in range(length))
        if word not in seen:
            seen.add(word)
            words.append(word)
    return words


@functools.cache
def _cumulative_zipf(count: int) -> list[float]:
    total = sum(1 / rank for rank in range(1, count + 1))
    return list(itertools.accumulate(1 / rank / total for rank in range(1, count + 1)))


def _rank(weights: list[float], value: float) -> int:
    low, high = 0, len(weights) - 1
    while low < high:
        middle = (low + high) // 2
        if weights[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


def catalogue(name: str, size: int) -> bytes:
    """A JSON document of shop articles with at least `size` bytes, as an API would answer it."""
    writer = Writer(name)
    articles: list[dict[str, object]] = []
    length = 0
    while length < size:
        article: dict[str, object] = {
            "id": writer.number(100000, 999999),
            "sku": f"{writer.word()[:3].upper()}-{writer.number(1000, 9999)}",
            "title": writer.words(writer.number(2, 6)).title(),
            "description": writer.paragraph(),
            "price": {"amount": f"{writer.number(1, 900)}.{writer.number(10, 99)}", "currency": "EUR"},
            "stock": writer.number(0, 500),
            "tags": [writer.word() for _ in range(writer.number(1, 5))],
            "updated_at": f"2026-{writer.number(1, 13):02}-{writer.number(1, 29):02}T{writer.number(0, 24):02}:00:00Z",
            "image": f"/media/{writer.digest()}.jpg",
            "rating": writer.number(10, 50) / 10,
        }
        articles.append(article)
        length += len(json.dumps(article)) + 2
    return (json.dumps({"articles": articles, "total": len(articles)}) + "\n").encode()


def status(name: str, size: int) -> bytes:
    """A JSON document of exactly `size` bytes, as a health check would answer it."""
    writer = Writer(name)
    checks: dict[str, str] = {}
    while len(json.dumps({"status": "ok", "checks": checks, "note": ""})) < size - 100:
        checks[f"{writer.word()}-{writer.number(10, 99)}"] = f"{writer.word()} {writer.number(1, 900)} ms"
    bare = len(json.dumps({"status": "ok", "checks": checks, "note": ""})) + 1
    note = writer.words(200)[: size - bare]
    return (json.dumps({"status": "ok", "checks": checks, "note": note}) + "\n").encode()


def page(name: str, size: int) -> bytes:
    """An article page with at least `size` bytes of HTML."""
    writer = Writer(name)
    body: list[str] = []
    while sum(map(len, body)) < size:
        body.append(f'<section id="s{len(body)}">\n<h2>{writer.words(4).title()}</h2>')
        body += [f"<p>{writer.paragraph()}</p>" for _ in range(2)]
        body.append(
            f'<p><a href="/data/summary.json?ref={writer.number(1000, 9999)}">{writer.words(3)}</a></p></section>'
        )
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>Ratchet demo</title>\n'
        '<link rel="stylesheet" href="/assets/site.css">\n<script src="/assets/app.js" defer></script>\n'
        "</head>\n<body>\n<h1>Ratchet demo</h1>\n"
    )
    return (head + "\n".join(body) + "\n</body>\n</html>\n").encode()


def stylesheet(name: str, size: int) -> bytes:
    """CSS rules with at least `size` bytes."""
    writer = Writer(name)
    properties = ("margin", "padding", "border-radius", "font-size", "line-height", "width", "max-height", "gap")
    rules: list[str] = []
    while sum(map(len, rules)) < size:
        selector = f".{writer.word()}-{writer.word()}" + (":hover" if writer.number(0, 4) == 0 else "")
        lines = [
            f"  {properties[writer.number(0, len(properties))]}: {writer.number(0, 64)}px;"
            for _ in range(writer.number(2, 6))
        ]
        lines.append(f"  color: #{writer.digest()[:6]};")
        rules.append(selector + " {\n" + "\n".join(lines) + "\n}\n")
    return "".join(rules).encode()


def script(name: str, size: int) -> bytes:
    """JavaScript functions with at least `size` bytes."""
    writer = Writer(name)
    functions: list[str] = []
    while sum(map(len, functions)) < size:
        verb, noun, other = writer.word(), writer.word().title(), writer.word()
        functions.append(
            f"export function {verb}{noun}({other}, options = {{}}) {{\n"
            f"  // {writer.sentence()}\n"
            f"  const limit = options.limit ?? {writer.number(1, 500)};\n"
            f"  const key = `{writer.word()}:${{{other}.id}}:{writer.digest()[:8]}`;\n"
            f"  if (!{other} || {other}.length > limit) {{\n"
            f'    throw new RangeError("{writer.words(5)}");\n  }}\n'
            f"  return cache.get(key) ?? {other}.filter((item) => item.{writer.word()} >= {writer.number(0, 99)});\n"
            "}\n\n"
        )
    return "".join(functions).encode()


def content(small_files: int) -> dict[str, bytes]:
    """Path below the document root -> bytes, with a `.gz` sibling for each page, stylesheet and script."""
    files = {
        "index.html": page("index.html", 24_000),
        "assets/site.css": stylesheet("assets/site.css", 40_000),
        "assets/app.js": script("assets/app.js", 90_000),
        "data/status.json": status("data/status.json", 1024),
        "data/summary.json": catalogue("data/summary.json", 9_800),
        "data/catalogue.json": catalogue("data/catalogue.json", 100_000),
        "media/1k.bin": Writer("media/1k.bin").blob(1024),
        "media/64k.bin": Writer("media/64k.bin").blob(64 * 1024),
        "media/1m.bin": Writer("media/1m.bin").blob(1024 * 1024),
    }
    for number in range(small_files):
        name = f"tiles/{number:03}.bin"
        writer = Writer(name)
        files[name] = writer.blob(writer.number(*TILE_BYTES))
    for name in [name for name in files if name.endswith(PRECOMPRESSED)]:
        files[f"{name}.gz"] = gzip.compress(files[name], compresslevel=9, mtime=0)
    return files


def same(path: Path, data: bytes) -> bool:
    """Whether the file holds what `data` says; a compressed one may be another zlib's work."""
    if path.is_symlink() or not path.is_file() or path.stat().st_mode & 0o777 != 0o644:
        return False
    held = path.read_bytes()
    if held == data or path.suffix != ".gz":
        return held == data
    try:
        return hashlib.sha256(gzip.decompress(held)).digest() == hashlib.sha256(gzip.decompress(data)).digest()
    except (OSError, EOFError, zlib.error):
        return False


def write(root: Path, files: dict[str, bytes], *, check: bool) -> list[str]:
    """Bring the tree below `root` to `files`; returns what differed. Raises OSError."""
    changed = [name for name, data in sorted(files.items()) if not same(root / name, data)]
    if check:
        return changed
    for folder in sorted({(root / name).parent for name in files}):
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    for name in changed:
        path = root / name
        staged = path.with_name(f".{path.name}.new")
        staged.write_bytes(files[name])
        staged.chmod(0o644)
        staged.rename(path)
    return changed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "small_files": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    if not 1 <= module.params["small_files"] <= 999:
        module.fail_json(msg=f"small_files is {module.params['small_files']}, expected 1 to 999")
    files = content(module.params["small_files"])
    try:
        changed = write(Path(module.params["path"]), files, check=module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"cannot write the demo's content: {error}")
    module.exit_json(changed=bool(changed), changed_files=changed, files=len(files))


if __name__ == "__main__":
    main()
