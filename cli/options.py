"""Options of ``run.py``: those of a pipeline run, and those that several subcommands share."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class RunOptions:
    """Options of ``run.py --pipeline``; ``--help`` describes them."""

    pipeline: str
    config: Path | None = None
    presets: tuple[str, ...] = ()
    overrides: tuple[str, ...] = ()
    stack: str | None = None
    data_dir: str | None = None
    no_cache: bool = False
    dry_run: bool = False
    debug: bool = False
    model_name: str | None = None


def validate_audit_text(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> str | None:
    """Check an option that the audit log stores: one line, so that it cannot imitate an entry."""
    if value is None:
        return None
    if not value.strip():
        raise click.BadParameter("must not be empty: the audit log stores it")
    if not value.isprintable():
        raise click.BadParameter("must be one line of printable characters")
    return value.strip()


def validate_output_directory(
    context: click.Context, parameter: click.Parameter, value: Path
) -> Path:
    """Check an option that names a directory to write into: a new or an empty one."""
    try:
        if value.exists() and any(value.iterdir()):
            raise click.BadParameter(f"{value} is not empty: name another directory, or remove it")
    except OSError as error:
        raise click.BadParameter(f"{value} cannot be used: {error.strerror}") from None
    return value


def _print_json_alone(context: click.Context, parameter: click.Parameter, value: bool) -> bool:
    """Log to standard error what ZenML would print among the JSON."""
    if value:
        from cli.library_logging import log_zenml_to_stderr

        log_zenml_to_stderr()
    return value


def reason_option(default: str | None = None) -> Callable[[_Command], _Command]:
    """Return the option ``--reason``, which is required where it has no default."""
    # click takes a default that is given as None for a value.
    presence: dict[str, Any] = (
        {"required": True} if default is None else {"default": default, "show_default": True}
    )
    return click.option(
        "--reason",
        "why",
        callback=validate_audit_text,
        metavar="TEXT",
        help="Reason, for the audit log.",
        **presence,
    )


MODEL_OPTION = click.option(
    "--model", "model_name", metavar="NAME", help="Registered model; required if there are several."
)
LISTED_MODEL_OPTION = click.option(
    "--model", "model_name", metavar="NAME", help="Registered model.  [default: all]"
)
BY_OPTION = click.option(
    "--by",
    "who",
    callback=validate_audit_text,
    metavar="NAME",
    help="Who decides, for the audit log.  [default: your user name, which it stores anyway]",
)
JSON_OPTION = click.option(
    "--json", "as_json", is_flag=True, callback=_print_json_alone, help="Print JSON."
)
STACK_OPTION = click.option(
    "--stack", metavar="NAME", help="ZenML stack.  [default: the active one]"
)
