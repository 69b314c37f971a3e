# Each target is one line or a call into a script that says what it does: `scripts/NAME --help`.
.DEFAULT_GOAL := help
.PHONY: help setup demo demo-down check test faults bench lock

help:       ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 14

setup:      ## .venv with the pinned, hashed requirements
	@scripts/setup

demo:       ## the main job on a local lab, from nothing
	@scripts/demo

demo-down:  ## remove the demo's hosts
	@scripts/demo down

check:      ## quick loop: lint, types, contracts, unit tests (no lab)
	@scripts/check

test:       ## everything, on lab hosts of its own
	@scripts/test

faults:     ## faults injected into whole runs, on lab hosts of its own
	@scripts/faults

bench:      ## every benchmark, in full
	@scripts/bench

lock:       ## recompute requirements/*.txt from pyproject.toml
	@scripts/lock
