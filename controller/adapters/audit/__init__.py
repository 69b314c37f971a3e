"""The audit log: who did what to which host, why, and with which evidence; append-only and hash-chained."""

from controller.adapters.audit.log import AuditLog, Finding

__all__ = ["AuditLog", "Finding"]
