"""Root's program on a host: it puts nginx configurations live, and takes every unconfirmed one back.

Commands, documents and files are described in docs/architecture.md. Standard library of Python 3.11 only.

What it promises:
* nginx always starts from a complete, tested file: links are renamed into place, never edited.
* What is live but not confirmed has a lease, a timer of systemd's, armed and looked at before nginx is touched.
  Whatever dies, the timer (or `boot`, after a power cut) makes the confirmed configuration live again.
* A reload has happened when the master has other children than before and they answer; the exit code of a reload
  command says nothing about that.
* After a crash at any line the next command can tell whether nginx runs what the link says (`marker`).

Half of what a call costs is its imports: those that few calls need stand where they are needed. No room imports
one that needs it; pyproject.toml has their order.
"""

VERSION = "1"
