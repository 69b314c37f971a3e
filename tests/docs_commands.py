"""The shell commands that README and docs show, and which test runs those that need hosts."""

from __future__ import annotations

import re
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[1]
PAGES = ["README.md", *sorted(str(path.relative_to(CHECKOUT)) for path in (CHECKOUT / "docs").glob("*.md"))]
OPERATORS_PAGE = "docs/operating.md"

BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")

# What cannot run without hosts -> the test that runs it. Everything else is run by tests/unit/docs.
ON_HOSTS = dict.fromkeys(
    [
        "controller provision --fleet web",
        "controller status --fleet web",
        "controller optimize --fleet web --experiment gzip-level --dry-run",
        "controller optimize --fleet web --experiment gzip-level --seed 7",
        "controller show last",
        "controller verify last",
        "controller rollback --fleet web",
        "controller rollback --fleet web --before last",
        "ansible-playbook -i inventory/web playbooks/site.yml --check --diff",
        "ansible-playbook -i inventory/web playbooks/rollback.yml",
        "ansible-playbook -i inventory/web playbooks/dashboard.yml",
    ],
    "tests/integration/optimize/test_docs.py::test_every_command_of_the_operators_page_works",
)


def page_text(page: str) -> str:
    return (CHECKOUT / page).read_text(encoding="utf-8")


def commands(page: str) -> list[str]:
    """The lines of the page's shell blocks, without comments."""
    blocks = [text for language, text in BLOCK.findall(page_text(page)) if language == "sh"]
    lines = [re.sub(r"(^|\s{2,})#.*", "", line).strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def spans(page: str) -> list[str]:
    """What the page has in backticks within its text."""
    return SPAN.findall(BLOCK.sub("", page_text(page)))
