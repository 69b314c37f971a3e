"""Gives the judge's properties no deadline on a busy machine."""

from hypothesis import settings

settings.register_profile("judge", deadline=None)
settings.load_profile("judge")
