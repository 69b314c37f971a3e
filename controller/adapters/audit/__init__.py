"""The audit log: who did what to which host, why, and with which evidence; append-only and hash-chained."""

from controller.adapters.audit.accounts import Accounts, Outcome
from controller.adapters.audit.entries import ENDED_RUN, INTERRUPTED, Entry, not_ended
from controller.adapters.audit.log import AuditLog
from controller.adapters.audit.verifying import Finding, Verified

__all__ = ["ENDED_RUN", "INTERRUPTED", "Accounts", "AuditLog", "Entry", "Finding", "Outcome", "Verified", "not_ended"]
