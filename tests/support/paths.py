"""The folders that tests read."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TESTS = ROOT / "tests"
DATA = TESTS / "data"
EXAMPLES = ROOT / "examples" / "gaia_xp"
CORRELATED = DATA / "gaia_xp_correlated"
ARCHIVE = DATA / "archive_formats"
