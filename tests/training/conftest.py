"""Lets the tests here import `toy_run`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
