"""Lets the tests here import `zoo`, the tiny model and batch of every class."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
