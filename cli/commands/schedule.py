"""``run.py schedule``: ticks of the loop at an interval, where no other scheduler is at hand."""

import re
import subprocess
import sys
from datetime import UTC, datetime

import click

from cli.options import MODEL_OPTION, ROOT, STACK_OPTION
from cv_factory.processes.periodic import run_periodically

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
#: Seconds that a tick gets to end after SIGTERM.
_GRACE_PERIOD_S = 60.0


def _parse_interval(context: click.Context, parameter: click.Parameter, value: str) -> float:
    """Return the seconds of an interval such as 15m."""
    match = re.fullmatch(r"(\d+)([smhd])", value)
    if match is None or int(match[1]) == 0:
        raise click.BadParameter("must be a number and a unit, such as 30s, 15m, 6h or 1d")
    return float(int(match[1]) * _UNITS[match[2]])


@click.command("schedule")
@click.option(
    "--every",
    "interval_s",
    default="15m",
    show_default=True,
    callback=_parse_interval,
    metavar="INTERVAL",
    help="Time from the start of a tick to that of the next one.",
)
@MODEL_OPTION
@STACK_OPTION
def command(interval_s: float, model_name: str | None, stack: str | None) -> int:
    """Run `tick` now and at every interval, until SIGTERM or Ctrl-C.

    Never two at a time; what a long tick or a sleeping machine missed is caught up once. Better use
    what restarts after a reboot, where there is any: docs/monitoring/loop.md.
    """
    options = [("--model", model_name), ("--stack", stack)]
    arguments = [word for option, value in options if value for word in (option, value)]
    tick = [sys.executable, str(ROOT / "run.py"), "tick", *arguments]
    try:
        run_periodically(lambda: _run(tick), interval_s, _report_missed)
    except KeyboardInterrupt:  # SIGTERM as well: cli.main
        click.echo("The schedule has ended.", err=True)
    return 0


def _run(tick: list[str]) -> None:
    """Run a tick in a process of its own, which a long schedule's memory and code do not age."""
    # A session of its own: Ctrl-C would reach it twice, and interrupt what the first one undoes.
    process = subprocess.Popen(tick, start_new_session=True)
    try:
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        try:
            process.wait(_GRACE_PERIOD_S)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    if code:
        _log(f"the tick failed with exit code {code}; the next one comes as planned")


def _report_missed(n: int) -> None:
    _log(f"{n} ticks were missed; one makes up for all")


def _log(text: str) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    click.echo(f"{now} UTC {text}", err=True)
