"""Listing of pipelines, configurations, presets and stacks, for ``run.py --list``."""

from collections.abc import Sequence
from pathlib import Path

import click

from cli.options import ROOT


def print_listing(pipelines: Sequence[str]) -> None:
    """Print the pipelines, configurations, presets and stacks; files with their first comment."""
    click.echo("Pipelines:\n" + "".join(f"  {name}\n" for name in pipelines))
    _print_folder("Configurations (--config):", ROOT / "configs")
    _print_folder("Presets (--preset):", ROOT / "configs" / "presets")
    _print_folder("Stacks (--stack):", ROOT / "stacks")


def _print_folder(title: str, folder: Path) -> None:
    click.echo(title)
    for file in sorted(folder.glob("*.yaml")):
        name = str(file.relative_to(ROOT)) if folder.name == "configs" else file.stem
        click.echo(f"  {name:<36}{_first_comment(file)}")
    click.echo()


def _first_comment(file: Path) -> str:
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# ") and "yaml-language-server" not in line:
            return line[2:]
    return ""
