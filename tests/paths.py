"""Where the tests find their data."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parent
REPOSITORY = TESTS.parent
GOLDEN = TESTS / "golden"
DATA = TESTS / "data"
