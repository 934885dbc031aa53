"""Alert log: what was said of each incident, and which messages still wait for their receiver.

Numbered files in the stack's artifact store, created once: machines that share a store share the
incidents, and none is announced twice. A message waits until a second file marks its end.
"""

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, get_args
from uuid import uuid4

from cv_factory.artifacts.files import canonical_json
from cv_factory.errors import ArtifactError
from cv_factory.monitoring.alert import Alert, Severity
from cv_factory.monitoring.alert_message import AlertMessage
from registry.audit.log_files import LogFiles

logger = logging.getLogger(__name__)

#: How a message ended: ``unsent`` where the stack had no alerter, ``dropped`` as one too many.
Outcome = Literal["sent", "refused", "unsent", "dropped"]
#: More messages do not wait: the oldest are dropped, which is logged.
MAX_PENDING = 1_000


@dataclass(frozen=True)
class LoggedAlert:
    """Entry of the log.

    Attributes:
        number: Its place, from 1 on.
        message: What was, or is to be, delivered.
        open: Incidents that are open after it: number of their last message, by key.
    """

    number: int
    message: AlertMessage
    open: Mapping[str, int]


class AlertLog:
    """The alert log of a stack."""

    def __init__(self, files: LogFiles) -> None:
        """Open the log, which need not have an entry yet."""
        self._files = files

    def add(self, alert: Alert, now: datetime, *, is_event: bool = False) -> LoggedAlert | None:
        """Log an alert that begins, worsens or ends an incident.

        Args:
            alert: The alert.
            now: Present time.
            is_event: It is logged also where it changes no incident.

        Returns:
            The entry; None where the incident was open already, or not open.

        Raises:
            ArtifactError: The log cannot be read or written.
        """
        while True:
            last = self._last()
            open_ = dict(last.open) if last is not None else {}
            before = self._read(open_[alert.incident]) if alert.incident in open_ else None
            if not (is_event or _is_change(alert, before)):
                return None
            number = last.number + 1 if last is not None else 1
            if alert.status == "firing":
                open_[alert.incident] = number
            else:
                open_.pop(alert.incident, None)
            started = before.message.started if before is not None else now
            entry = LoggedAlert(number, AlertMessage(uuid4().hex, now, started, alert), open_)
            try:
                self._files.create(_file(number), _serialize(entry))
            except FileExistsError:  # another process was faster
                continue
            return entry

    def open_incidents(self) -> list[LoggedAlert]:
        """Return the last message of each open incident, the oldest incident first."""
        last = self._last()
        entries = [self._read(number) for number in (last.open.values() if last else ())]
        return sorted(entries, key=lambda entry: (entry.message.started, entry.number))

    @property
    def n_waiting(self) -> int:
        """Number of messages that wait for their receiver."""
        return len(self._waiting())

    def pending(self) -> list[LoggedAlert]:
        """Return the messages that wait, in their order; more than ``MAX_PENDING`` are dropped."""
        waiting = self._waiting()
        for number in waiting[:-MAX_PENDING]:
            logger.error(
                "Alert %d is dropped: more than %d wait for their receiver. See: python run.py "
                "alerts",
                number,
                MAX_PENDING,
            )
            self.mark(number, "dropped")
        return [self._read(number) for number in waiting[-MAX_PENDING:]]

    def mark(self, number: int, outcome: Outcome) -> None:
        """Mark the end of a message; another process may have done so."""
        try:
            self._files.create(_mark(number), canonical_json({"outcome": outcome}).encode())
        except FileExistsError:
            return

    def last_entries(self, n: int) -> Iterator[tuple[LoggedAlert, str]]:
        """Yield the last entries and how each ended (``waiting`` if it has not), newest first."""
        names = set(self._files.names())
        for number in sorted(_numbers(names), reverse=True)[:n]:
            mark = _mark(number)
            outcome = self._load(mark)["outcome"] if mark in names else "waiting"
            yield self._read(number), outcome

    def _waiting(self) -> list[int]:
        names = set(self._files.names())
        return [number for number in _numbers(names) if _mark(number) not in names]

    def _last(self) -> LoggedAlert | None:
        numbers = _numbers(self._files.names())
        return self._read(numbers[-1]) if numbers else None

    def _read(self, number: int) -> LoggedAlert:
        values = self._load(_file(number))
        return LoggedAlert(number, AlertMessage.from_dict(values["message"]), values["open"])

    def _load(self, name: str) -> dict[str, Any]:
        try:
            values: dict[str, Any] = json.loads(self._files.read(name))
        except ValueError as error:
            raise ArtifactError(f"{name} of the alert log is damaged: {error}.") from None
        return values


def _is_change(alert: Alert, before: LoggedAlert | None) -> bool:
    """Whether an alert begins, worsens or ends an incident whose last message is ``before``."""
    if alert.status == "resolved" or before is None:
        return (alert.status == "resolved") != (before is None)
    severities = get_args(Severity)
    return severities.index(alert.severity) > severities.index(before.message.alert.severity)


def _serialize(entry: LoggedAlert) -> bytes:
    values = {"message": entry.message.to_dict(), "open": dict(entry.open)}
    return canonical_json(values).encode()


def _file(number: int) -> str:
    return f"{number:08d}.json"


def _mark(number: int) -> str:
    return f"{number:08d}.end.json"


def _numbers(names: Iterable[str]) -> list[int]:
    """Return the numbers of the entries among the names of files."""
    return sorted(int(name[:8]) for name in names if len(name) == len(_file(1)))
