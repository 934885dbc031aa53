"""The audit log: who moved which version, when, why and on which evidence.

Entries are numbered files that are made once. Each holds the SHA-256 of the one before, so that a
changed, removed or inserted entry shows; two writers can not both make the same number.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cv_factory.artifacts.files import canonical_json
from cv_factory.errors import ArtifactError, CVFactoryError
from registry.audit.files import LogFiles

_NOTHING = "0" * 64


class LogConflictError(CVFactoryError):
    """Somebody else wrote to the audit log in between."""


@dataclass(frozen=True)
class Entry:
    """One line of the log.

    Attributes:
        number: From 1.
        previous: SHA-256 of the entry before; zeros for the first.
        kind: ``registered``, ``approved``, ``intent``, ``done`` or ``undone``.
        who: A person, or the run that did it.
        when: ISO 8601, UTC.
        why: In words.
        detail: What it is about, by kind.
    """

    number: int
    previous: str
    kind: str
    who: str
    when: str
    why: str
    detail: Mapping[str, Any]

    def to_bytes(self) -> bytes:
        """Return the entry's file."""
        return canonical_json(asdict(self)).encode()

    @property
    def sha256(self) -> str:
        """What the next entry holds as ``previous``."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


class AuditLog:
    """The log of one registered model."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files

    def entries(self) -> tuple[Entry, ...]:
        """Read the whole log and check its chain.

        Raises:
            ArtifactError: An entry is missing, damaged, or was changed after it was written.
        """
        found: list[Entry] = []
        for number, name in enumerate(self._files.names(), start=1):
            content = self._files.read(name)
            try:
                entry = TypeAdapter(Entry).validate_python(json.loads(content))
            except (ValueError, ValidationError) as error:
                raise ArtifactError(
                    f"Audit log: {name} is damaged ({error}). Nothing is moved until the file is "
                    "back as it was: restore it from a backup of the artifact store."
                ) from None
            previous = found[-1].sha256 if found else _NOTHING
            if name != _name(number) or entry.number != number:
                raise ArtifactError(f"Audit log: entry {number} is missing before {name}.")
            if entry.previous != previous:
                raise ArtifactError(
                    f"Audit log: entry {number} does not follow from entry {number - 1}: one of "
                    "them was changed after it was written."
                )
            if content != entry.to_bytes():
                raise ArtifactError(f"Audit log: {name} was changed after it was written.")
            found.append(entry)
        return tuple(found)

    def append(
        self,
        after: tuple[Entry, ...],
        kind: str,
        who: str,
        why: str,
        detail: Mapping[str, Any],
    ) -> Entry:
        """Add an entry.

        Args:
            after: The log as the caller knows it.
            kind: See ``Entry``.
            who: See ``Entry``.
            why: See ``Entry``.
            detail: JSON-serializable.

        Raises:
            LogConflictError: The log has grown since; nothing was written.
        """
        entry = Entry(
            number=len(after) + 1,
            previous=after[-1].sha256 if after else _NOTHING,
            kind=kind,
            who=who,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            why=why,
            # As it will be read back.
            detail=json.loads(canonical_json(dict(detail))),
        )
        try:
            self._files.create(_name(entry.number), entry.to_bytes())
        except FileExistsError:
            raise LogConflictError(
                f"Somebody else wrote entry {entry.number} of the audit log at the same time: "
                "nothing was changed. Look at 'run.py history', then try again."
            ) from None
        return entry


def _name(number: int) -> str:
    return f"{number:08d}.json"
