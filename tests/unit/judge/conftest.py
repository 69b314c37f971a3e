"""Lets the judge's test files import their two builders, judge_trials and judge_csvs."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
