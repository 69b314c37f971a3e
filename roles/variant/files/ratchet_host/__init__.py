"""Root's program on a host: it puts nginx configurations live, and takes every unconfirmed one back.

Commands, documents and files are described in docs/architecture.md. Standard library of Python 3.11 only.

What it promises:
* nginx always starts from a complete, tested file: links are renamed into place, never edited.
* What is live but not confirmed has a lease, an absolute end in a file, written before nginx is touched. Whatever
  dies, the keeper (a program of its own) makes the confirmed configuration live again.
* A configuration is live when every worker of nginx that serves carries its mark (`marks`); exit codes say nothing
  about that.

Half of what a call costs is its imports: those that few calls need stand where they are needed. No room imports
one that needs it; pyproject.toml has their order.
"""

VERSION = "1"
