"""Command line of ``run.py``: pipeline runs, and the subcommands of ``cli.commands``."""

import logging
import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import cast

import click
from click.core import ParameterSource

import cli.commands
import pipelines
from cli.options import RunOptions
from cv_factory.config.suggestion import suggest
from cv_factory.cpu import limit_spinning
from cv_factory.errors import print_error
from cv_factory.processes.garbage_collection import collect_rarely
from cv_factory.progress import log_to_stderr
from cv_factory.serving.http_client import bypass_proxies_on_loopback


def main() -> int:
    """Run the command line and return the exit code.

    0 done, 1 the run failed, 2 wrong usage or configuration, 3 a gate refused, 4 monitoring found
    an alarm, 130 interrupted.
    """
    collect_rarely()
    limit_spinning()
    if not sys.stdout.isatty():
        # ZenML colors its log lines also where they are written to a file.
        os.environ.setdefault("ZENML_LOGGING_COLORS_DISABLED", "true")
    log_to_stderr()
    # It logs a line for each request, such as those of the golden samples.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    # As Ctrl-C, also for what is to be cleaned up.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    bypass_proxies_on_loopback()
    try:
        code = command.main(prog_name="run.py", standalone_mode=False)
    except click.ClickException as error:
        error.show()
        return 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("\nInterrupted. The next run reuses the finished steps.", err=True)
        return 130
    except Exception as error:
        if "--debug" in sys.argv:
            raise
        return print_error(error)
    return code if isinstance(code, int) else 0


def module_names(package_path: list[str]) -> list[str]:
    """Return the names of a package's modules, sorted, without importing them."""
    return sorted(module.name for module in iter_modules(package_path))


def command_names() -> list[str]:
    """Return the names of the subcommands, which are those of their modules."""
    return [name.replace("_", "-") for name in module_names(cli.commands.__path__)]


class _PipelineChoice(click.Choice[str]):
    """A pipeline's name; the error of a wrong one names the nearest."""

    def get_invalid_choice_message(self, value: object, ctx: click.Context | None) -> str:
        """Return what is wrong, and the valid names."""
        names = suggest(str(value), self.choices, "pipelines")
        return f"there is no pipeline {value!r}. {names}"


class _CommandGroup(click.Group):
    """Finds a subcommand by the name of its module in ``cli.commands``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the subcommands."""
        return command_names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one subcommand.

        Raises:
            click.UsageError: There is none of this name.
        """
        names = self.list_commands(ctx)
        if cmd_name not in names:
            ctx.fail(f"There is no command {cmd_name!r}. {suggest(cmd_name, names, 'commands')}")
        subcommand: click.Command = import_module(
            f"cli.commands.{cmd_name.replace('-', '_')}"
        ).command
        return subcommand


def _get_run_option(context: click.Context) -> str | None:
    """Return the first option on the command line that only a pipeline run has; None if none."""
    shared = ("model_name", "stack", "debug")
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if name not in shared and source is ParameterSource.COMMANDLINE:
            return parameter.opts[0]
    return None


def _refuse_run_options(context: click.Context) -> None:
    """Refuse options of a pipeline run without --pipeline: --dry-run would be ignored.

    Raises:
        click.UsageError: The command line has one.
    """
    option = _get_run_option(context)
    if option is None:
        return
    if context.invoked_subcommand is None:
        names = ", ".join(module_names(pipelines.__path__))
        raise click.UsageError(f"{option} needs a pipeline: add --pipeline NAME, one of: {names}.")
    raise click.UsageError(
        f"{option} goes with --pipeline: the command {context.invoked_subcommand} does not have it."
    )


@click.group(
    cls=_CommandGroup,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--pipeline",
    type=_PipelineChoice(module_names(pipelines.__path__)),
    help="Pipeline to run.",
)
@click.option(
    "--model",
    "model_name",
    metavar="NAME",
    help="Registered model that the pipeline trains, deploys or scores with.",
)
@click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Configuration file.  [default: configs/PIPELINE.yaml, for photos PIPELINE_photos.yaml]",
)
@click.option(
    "--preset",
    "presets",
    multiple=True,
    metavar="NAME",
    help="Apply configs/presets/NAME.yaml over the configuration; repeatable.",
)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Override one setting, such as train.epochs=3; repeatable.",
)
@click.option("--stack", metavar="NAME", help="ZenML stack to run on.  [default: the active one]")
@click.option(
    "--data-dir",
    envvar="CV_FACTORY_DATA",
    metavar="DIR",
    help="Directory of named data sets.  [env var: CV_FACTORY_DATA]",
)
@click.option("--no-cache", is_flag=True, help="Run every step, also those that are cached.")
@click.option(
    "--dry-run",
    is_flag=True,
    help="Check configuration, data source and stack, print the plan, change nothing.",
)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--list", "list_all", is_flag=True, help="List pipelines, presets and stacks.")
@click.pass_context
def command(
    context: click.Context,
    pipeline: str | None,
    model_name: str | None,
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
    python run.py --pipeline training --model pets --set data.source=folder --set data.path=~/pets
    python run.py models
    """
    if list_all:
        from cli.listing import print_listing

        print_listing(module_names(pipelines.__path__))
        return 0
    if pipeline is None:
        _refuse_run_options(context)
        if context.invoked_subcommand is None:
            click.echo(context.get_help())
            return 2
        # Before or after the subcommand, the two mean the same.
        shared = {"model_name": model_name, "stack": stack}
        group = cast(click.Group, context.command)
        subcommand = group.get_command(context, context.invoked_subcommand)
        nested = subcommand.commands if isinstance(subcommand, click.Group) else {}
        context.default_map = {
            context.invoked_subcommand: {**shared, **dict.fromkeys(nested, shared)}
        }
        return 0
    from cli.dispatch import run_pipeline

    return run_pipeline(
        RunOptions(
            pipeline=pipeline,
            model_name=model_name,
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
