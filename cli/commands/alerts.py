"""``run.py alerts``: open incidents, and the messages about them that were sent or wait."""

import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

from cli.options import JSON_OPTION, STACK_OPTION
from cli.session import activate_stack, current_user

if TYPE_CHECKING:
    from registry.alert_log import LoggedAlert


@click.command("alerts")
@click.option("--deliver", is_flag=True, help="Deliver first the messages that wait.")
@click.option("--test", "is_test", is_flag=True, help="Send a message to try the alerter.")
@click.option(
    "--last", "n_last", type=click.IntRange(0), default=10, show_default=True, metavar="N",
    help="Show so many of the last messages.",
)  # fmt: skip
@STACK_OPTION
@JSON_OPTION
def command(deliver: bool, is_test: bool, n_last: int, stack: str | None, as_json: bool) -> int:
    """Show the open incidents, and the last messages about them.

    The exit code is 1 where messages wait for their receiver.
    """
    activate_stack(stack)
    from registry.alerts import deliver_pending, open_alert_log

    if deliver or is_test:
        deliver_pending()
    if is_test:
        _send_test()
    log = open_alert_log()
    incidents, last, n_waiting = log.open_incidents(), list(log.last_entries(n_last)), log.n_waiting
    if as_json:
        values = {
            "incidents": [entry.message.to_dict() for entry in incidents],
            "waiting": n_waiting,
            "messages": [{**e.message.to_dict(), "outcome": outcome} for e, outcome in last],
        }
        click.echo(json.dumps(values, indent=2))
    else:
        click.echo(describe_alerts(incidents, n_waiting, last))
    return 1 if n_waiting else 0


def describe_alerts(
    incidents: "list[LoggedAlert]", n_waiting: int, last: "list[tuple[LoggedAlert, str]]"
) -> str:
    """Return the open incidents, the number of waiting messages, and the last ones."""
    lines = [f"Open incidents: {len(incidents) or 'none'}"]
    for entry in incidents:
        alert = entry.message.alert
        since = _format(entry.message.started)
        lines += [f"  {alert.severity:<9} {alert.incident}, since {since}"]
        lines += [f"            {alert.summary}"]
    if n_waiting:
        lines += [f"Waiting:        {n_waiting} messages. Next: python run.py alerts --deliver"]
    if last:
        lines += ["Last messages:"]
    for entry, outcome in last:
        message = entry.message
        lines += [f"  {_format(message.time)}  {outcome:<8} {message.title}"]
    return "\n".join(lines)


def _send_test() -> None:
    """Send a message through the alerter of the active stack.

    Raises:
        StackError: The stack has no alerter.
        CVFactoryError: The message was not delivered.
    """
    from zenml.client import Client

    from cv_factory.errors import CVFactoryError, StackError
    from cv_factory.monitoring.alert import Alert
    from registry.alerts import send_event

    stack = Client().active_stack
    if stack.alerter is None:
        raise StackError(
            f"The stack {stack.name} has no alerter. docs/monitoring/alerts.md says how to add one."
        )
    summary = f"A test by {current_user()}: alerts of the stack {stack.name} arrive here"
    if not send_event(Alert("test", "resolved", "info", summary)):
        raise CVFactoryError(
            "The message was not delivered, and waits; the log above says why. Next: python run.py "
            "alerts --deliver"
        )


def _format(time: datetime) -> str:
    return f"{time:%Y-%m-%d %H:%M:%S} UTC"
