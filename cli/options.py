"""What the command line asked for."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RunOptions:
    """The options of ``run.py --pipeline``, as given."""

    pipeline: str
    config: Path | None
    presets: tuple[str, ...]
    overrides: tuple[str, ...]
    stack: str | None
    data_dir: str | None
    no_cache: bool
    dry_run: bool
    debug: bool
