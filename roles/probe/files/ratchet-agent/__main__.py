"""The agent as it is started: this folder, or on a host the one file that is packed from it."""

import sys

# Python's own hashes are quick enough here; OpenSSL's take 4 MB of libcrypto, also where TLS is not asked for.
sys.modules["_hashlib"] = None  # type: ignore[assignment]

from ratchet_agent.main import main  # noqa: E402 - what it imports must find that

sys.exit(main())
