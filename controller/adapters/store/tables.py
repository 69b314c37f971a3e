"""The tables, as the newest version has them; whoever changes one adds a step to schema.py."""

from __future__ import annotations

import sqlalchemy as sa

metadata = sa.MetaData()

# One row: the version of these tables (schema.py), and the release of Ratchet that has made it.
schema = sa.Table(
    "ratchet_schema",
    metadata,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("written_by", sa.String(64), nullable=False),
)

# `result` and `plan` are the JSON of RunResult and RunPlan; `{}` until there is one.
runs = sa.Table(
    "ratchet_runs",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("fleet", sa.String(64), nullable=False, index=True),
    sa.Column("status", sa.String(16), nullable=False),
    sa.Column("started_at", sa.String(40), nullable=False),
    sa.Column("result", sa.Text, nullable=False),
    sa.Column("plan", sa.Text, nullable=False, server_default="{}"),
)

# The trials of ended runs (runs.py); `hosts` is a JSON list. When trials of version 1 began and ended is not known.
trials = sa.Table(
    "ratchet_trials",
    metadata,
    sa.Column("run_id", sa.String(64), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("fleet", sa.String(64), nullable=False, index=True),
    sa.Column("experiment", sa.Text, nullable=False),
    sa.Column("variant", sa.Text, nullable=False),
    sa.Column("verdict", sa.String(16), nullable=False),
    sa.Column("reason", sa.String(32), nullable=False),
    sa.Column("objective", sa.Text, nullable=False),
    sa.Column("effect_low", sa.Float(53)),
    sa.Column("effect", sa.Float(53)),
    sa.Column("effect_high", sa.Float(53)),
    sa.Column("pairs", sa.Integer, nullable=False),
    sa.Column("hosts", sa.Text, nullable=False),
    sa.Column("started_at", sa.String(40)),
    sa.Column("ended_at", sa.String(40)),
)

baselines = sa.Table(
    "ratchet_baselines",
    metadata,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("host", sa.String(253), primary_key=True),
    sa.Column("configuration", sa.String(16), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("recorded_at", sa.String(40), nullable=False),
)

# Who has a fleet, between machines (holding.py). `expires` is seconds of the database's clock.
holders = sa.Table(
    "ratchet_fleet_holders",
    metadata,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("name", sa.String(160), nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("pid", sa.Integer, nullable=False),
    sa.Column("user", sa.String(64), nullable=False),
    sa.Column("machine", sa.String(255), nullable=False),
    sa.Column("since", sa.String(40), nullable=False),
    sa.Column("expires", sa.Float(53), nullable=False),
)

# How often each fleet was taken: tells a process from the one that carried the same run before. Never starts anew.
generations = sa.Table(
    "ratchet_generations",
    metadata,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("generation", sa.Integer, nullable=False),
)

# Changes of baselines (commits.py); `document` is the JSON of Commit.
commits = sa.Table(
    "ratchet_commits",
    metadata,
    sa.Column("commit_id", sa.String(80), primary_key=True),
    sa.Column("fleet", sa.String(64), nullable=False, index=True),
    sa.Column("state", sa.String(16), nullable=False),
    sa.Column("started_at", sa.String(40), nullable=False),
    sa.Column("generation", sa.Integer, nullable=False),
    sa.Column("document", sa.Text, nullable=False),
)

quarantine = sa.Table(
    "ratchet_quarantine",
    metadata,
    sa.Column("fleet", sa.String(64), primary_key=True),
    sa.Column("host", sa.String(253), primary_key=True),
    sa.Column("why", sa.Text, nullable=False),
    sa.Column("run_id", sa.String(64), nullable=False),
    sa.Column("since", sa.String(40), nullable=False),
)

audit_heads = sa.Table(
    "ratchet_audit_heads",
    metadata,
    sa.Column("log", sa.String(16), primary_key=True),
    sa.Column("entries", sa.String(20), nullable=False),
    sa.Column("digest", sa.String(64), nullable=False),
)
