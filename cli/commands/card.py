"""``run.py card``: the model card of a version with its present stage and approval."""

from pathlib import Path

import click

from cli.options import MODEL_OPTION, STACK_OPTION
from cli.session import open_registry, write_file


@click.command("card")
@click.argument("version", type=click.IntRange(min=1))
@click.option(
    "--html",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one HTML page to this file instead of printing Markdown.",
)
@MODEL_OPTION
@STACK_OPTION
def command(version: int, html: Path | None, model_name: str | None, stack: str | None) -> int:
    """Print the model card of a VERSION.

    It is Markdown, which a terminal shows rendered. It shows the present stage and approver, unlike
    the card that the training run stored.
    """
    registry = open_registry(model_name, stack, beside_transitions=True)
    from cv_factory.evaluation.reports.model_card import render_html, render_markdown
    from registry.card_content import load_card_content

    content = load_card_content(registry, version)
    if html is None:
        _print_markdown(render_markdown(content))
    else:
        write_file(html, render_html(content))
        click.echo(f"Model card written to {html}.")
    return 0


def _print_markdown(text: str) -> None:
    """Print Markdown: rendered on a terminal, as it is elsewhere."""
    from rich.console import Console
    from rich.markdown import Markdown

    console = Console()
    if console.is_terminal:
        console.print(Markdown(text))
    else:
        click.echo(text)
