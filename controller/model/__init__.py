"""Frozen domain types. They import nothing of ours and do no I/O; every other room speaks in them."""
