"""Reads the command line; each command's work is in a module of its own, imported when called."""

import os
import sys
from importlib import import_module
from pathlib import Path

import click

from cli.options import RunOptions
from cv_factory.errors import CVFactoryError

PIPELINES = ("training", "validation")
#: Subcommands: the module that holds each as ``command``, and its line of help. The modules are
#: imported when they are called.
COMMANDS = {
    "models": ("cli.models", "List a model's versions."),
    "card": ("cli.card", "Print a version's model card as it stands now."),
    "approve": ("cli.approve", "Approve a version for production."),
    "promote": ("cli.promote", "Put a staged version into production."),
    "rollback": ("cli.rollback", "Put the previous production version back."),
    "history": ("cli.history", "Print the audit log."),
    "trace": ("cli.trace", "Print what a version was made of, and check it."),
}


def main() -> int:
    """Run the command line and return the exit code.

    0 done, 1 the run failed, 2 wrong usage or configuration, 3 a gate refused, 130 interrupted.
    """
    debug = "--debug" in sys.argv
    if not sys.stdout.isatty():
        # ZenML colours its log lines wherever they go.
        os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")
    try:
        code = _command.main(standalone_mode=False)
    except CVFactoryError as error:
        if debug:
            raise
        click.echo(f"{click.style('Error:', fg='red', bold=True)} {error}", err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo(
            "\nInterrupted. Finished steps are stored and will be reused by the next run.", err=True
        )
        return 130
    return code if isinstance(code, int) else 0


class _Commands(click.Group):
    """Knows the subcommands without importing them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand."""
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = import_module(COMMANDS[cmd_name][0]).command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of subcommands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--pipeline", type=click.Choice(PIPELINES), help="The pipeline to run.")
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Its configuration.  [default: configs/PIPELINE.yaml]",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME",
    help="Lay configs/presets/NAME.yaml over the configuration; repeatable.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, such as train.epochs=3; repeatable.",
)
@click.option("--stack", metavar="NAME", help="Run on this stack instead of the active one.")
@click.option(
    "--data-dir",
    envvar="CV_FACTORY_DATA",
    metavar="DIR",
    help="Where named data sets lie.  [env var: CV_FACTORY_DATA]",
)
@click.option("--no-cache", is_flag=True, help="Run every step, whatever is stored.")
@click.option("--dry-run", is_flag=True, help="Check everything, print the plan, change nothing.")
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--list", "list_all", is_flag=True, help="List pipelines, presets and stacks.")
@click.pass_context
def _command(
    context: click.Context,
    pipeline: str | None,
    config: Path | None,
    presets: tuple[str, ...],
    overrides: tuple[str, ...],
    stack: str | None,
    data_dir: str | None,
    no_cache: bool,
    dry_run: bool,
    debug: bool,
    list_all: bool,
) -> int:
    """CV Factory: labelled images in, a gated, traceable predictor out.

    \b
    python run.py --pipeline training
    python run.py --pipeline training --set data.source=folder --set data.path=~/pets
    python run.py models
    """
    if list_all:
        from cli.listing import print_listing

        print_listing(PIPELINES)
        return 0
    if pipeline is None:
        if context.invoked_subcommand is None:
            click.echo(context.get_help())
            return 2
        return 0
    from cli.pipeline import run_pipeline

    return run_pipeline(
        RunOptions(
            pipeline=pipeline,
            config=config,
            presets=presets,
            overrides=overrides,
            stack=stack,
            data_dir=data_dir,
            no_cache=no_cache,
            dry_run=dry_run,
            debug=debug,
        )
    )
