"""Where the project's files are, for tests that read or copy them."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
