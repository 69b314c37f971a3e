"""Each claim about Ratchet as one command: `python -m benchmarks.NAME [--quick] [--output json]`."""
