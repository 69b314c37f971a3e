"""Lets the judge's test files import their two builders, and gives properties no deadline on a busy machine."""

import sys
from pathlib import Path

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
settings.register_profile("judge", deadline=None)
settings.load_profile("judge")
