"""Ratchet: safe, autonomous, evidence-based tuning of nginx server fleets."""

__version__ = "0.1.0"
