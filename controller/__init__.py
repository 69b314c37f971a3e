"""Ratchet: safe, autonomous, evidence-based tuning of nginx server fleets."""

import logging

__version__ = "0.1.0"

# Who uses a part of it without a log gets none on stderr.
logging.getLogger(__name__).addHandler(logging.NullHandler())
