"""nginx's configuration language: reads it by nginx's own rules, and writes it."""

from __future__ import annotations

import re

from ratchet_host.errors import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


class Directive:
    """One directive: its words as they are written (quotes kept) and, for a block, what is inside."""

    __slots__ = ("block", "line", "raw", "words")

    def __init__(self, words: list[str], line: int) -> None:
        self.words = words
        self.block: list[Directive] | None = None
        self.raw: str | None = None
        self.line = line

    @property
    def name(self) -> str:
        return plain(self.words[0])

    @property
    def arguments(self) -> list[str]:
        return [plain(word) for word in self.words[1:]]


def plain(word: str) -> str:
    """What nginx takes a word for: without its quotes and backslashes."""
    if len(word) >= 2 and word[0] in "\"'" and word[-1] == word[0]:
        word = word[1:-1]
    return re.sub(r"\\([\"'\\ ;{}])", r"\1", word)


_SPACE = " \t\r\n"


class _Reader:
    """Splits nginx's language into words, `;`, `{` and `}`, by the rules of ngx_conf_read_token."""

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        self.at = 0
        self.line = 1

    def fail(self, what: str) -> NoReturn:
        raise Refused(f"{self.source}:{self.line}: {what}")

    def next(self) -> str | None:
        """The next token; None at the end of the text."""
        text, end = self.text, len(self.text)
        while self.at < end:
            char = text[self.at]
            if char in _SPACE:
                self.line += char == "\n"
                self.at += 1
            elif char == "#":
                stop = text.find("\n", self.at)
                self.at = end if stop < 0 else stop
            elif char in ";{}":
                self.at += 1
                return char
            elif char in "\"'":
                return self._quoted(char)
            else:
                return self._bare()
        return None

    def _quoted(self, quote: str) -> str:
        start = self.at
        self.at += 1
        while self.at < len(self.text):
            char = self.text[self.at]
            self.line += char == "\n"
            if char == "\\":
                self.at += 2
                continue
            self.at += 1
            if char == quote:
                if self.at < len(self.text) and self.text[self.at] not in _SPACE + ";{)":
                    self.fail(f"unexpected {self.text[self.at]!r} after a quoted word")
                return self.text[start : self.at]
        return self.fail("a quote is not closed")

    def _bare(self) -> str:
        start = self.at
        while self.at < len(self.text):
            char = self.text[self.at]
            if char == "\\":
                self.at += 2
            elif char in _SPACE or char == ";" or (char == "{" and self.text[self.at - 1] != "$"):
                break
            else:
                self.at += 1
        self.at = min(self.at, len(self.text))
        return self.text[start : self.at]

    def skip_code(self) -> str:
        """The inside of a block in another language, up to its closing brace."""
        depth, start = 1, self.at
        while self.at < len(self.text):
            char = self.text[self.at]
            self.at += 1
            self.line += char == "\n"
            depth += (char == "{") - (char == "}")
            if depth == 0:
                return self.text[start : self.at - 1]
        return self.fail("a block of code is not closed")


def parse(text: str, source: str) -> list[Directive]:  # noqa: PLR0912 - a branch for each kind of token
    """The directives of a configuration file. Raises Refused with file and line where nginx would refuse it too."""
    reader = _Reader(text, source)
    top: list[Directive] = []
    stack: list[list[Directive]] = [top]
    words: list[str] = []
    line = 1
    while (token := reader.next()) is not None:
        if token == "}":  # noqa: S105 - of nginx's language
            if words:
                reader.fail("unexpected }")
            if len(stack) == 1:
                reader.fail("a } closes nothing")
            stack.pop()
        elif token in {";", "{"}:
            if not words:
                reader.fail(f"unexpected {token}")
            directive = Directive(words, line)
            stack[-1].append(directive)
            words = []
            if token == "{":  # noqa: S105 - of nginx's language
                if len(stack) > 100:
                    reader.fail("blocks are nested too deeply")
                if directive.name.endswith("_by_lua_block"):
                    directive.raw = reader.skip_code()
                else:
                    directive.block = []
                    stack.append(directive.block)
        else:
            if not words:
                line = reader.line
            words.append(token)
    if words:
        reader.fail("the last directive is not ended by ;")
    if len(stack) > 1:
        reader.fail("a block is not closed")
    return top


def render(directives: list[Directive], depth: int = 0) -> str:
    """The text of directives, one a line."""
    lines: list[str] = []
    indent = "    " * depth
    for directive in directives:
        head = indent + " ".join(directive.words)
        if directive.raw is not None:
            lines.append(f"{head} {{{directive.raw}}}\n")
        elif directive.block is None:
            lines.append(f"{head};\n")
        else:
            lines.append(f"{head} {{\n{render(directive.block, depth + 1)}{indent}}}\n")
    return "".join(lines)


def statement(*words: str) -> Directive:
    return Directive([words[0], *(quote(word) for word in words[1:])], 0)


def quote(word: str) -> str:
    """A word as nginx reads it back, variables in it kept."""
    if re.fullmatch(r"[A-Za-z0-9_./:$\[\]=@%+~,-]+", word):
        return word
    return '"' + re.sub(r'(["\\])', r"\\\1", word) + '"'
