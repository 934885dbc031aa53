"""The audit log: who moved which version, when, why and on which evidence.

Entries are numbered files that are created once. Each holds the SHA-256 of the one before, so that
a changed, removed or inserted entry shows; two writers cannot both create the same number.
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
from registry.audit.log_files import LogFiles

_NO_PREVIOUS = "0" * 64


class LogConflictError(CVFactoryError):
    """Another process wrote to the audit log in between."""


@dataclass(frozen=True)
class AuditEntry:
    """One entry of the log.

    Attributes:
        number: From 1.
        previous: SHA-256 of the entry before; zeros for the first.
        kind: Such as ``registered``; ``registry.audit.state`` reads those that decide.
        who: A person, or the run that did it.
        when: ISO 8601, UTC.
        why: One line of text.
        detail: JSON-serializable; its fields depend on the kind.
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
    def time_text(self) -> str:
        """``when`` as people read it, in UTC: ``2026-11-28 17:05:09``."""
        return self.when.replace("T", " ").removesuffix("+00:00")

    @property
    def sha256(self) -> str:
        """SHA-256 of the entry's file, which the next entry holds as ``previous``."""
        return hashlib.sha256(self.to_bytes()).hexdigest()


_ENTRY = TypeAdapter(AuditEntry)


class AuditLog:
    """Audit log of one registered model."""

    def __init__(self, files: LogFiles) -> None:
        self._files = files

    def entries(self) -> tuple[AuditEntry, ...]:
        """Read the whole log and check its chain.

        Raises:
            ArtifactError: An entry is missing, damaged, or was changed after it was written.
        """
        entries: list[AuditEntry] = []
        for number, name in enumerate(self._files.names(), start=1):
            content = self._files.read(name)
            entry = _parse_entry(name, content)
            if name != _file_name(number) or entry.number != number:
                raise ArtifactError(f"Audit log: entry {number} is missing before {name}.")
            if entry.previous != (entries[-1].sha256 if entries else _NO_PREVIOUS):
                raise ArtifactError(
                    f"Audit log: entry {number} does not follow from entry {number - 1}: one of "
                    "them was changed after it was written."
                )
            if content != entry.to_bytes():
                raise ArtifactError(f"Audit log: {name} was changed after it was written.")
            entries.append(entry)
        return tuple(entries)

    def append(
        self,
        after: tuple[AuditEntry, ...],
        kind: str,
        who: str,
        why: str,
        detail: Mapping[str, Any],
    ) -> AuditEntry:
        """Add an entry.

        Args:
            after: The log as the caller has read it.
            kind: See ``AuditEntry``.
            who: See ``AuditEntry``.
            why: See ``AuditEntry``.
            detail: JSON-serializable.

        Raises:
            LogConflictError: The log has grown since; nothing was written.
        """
        entry = AuditEntry(
            number=len(after) + 1,
            previous=after[-1].sha256 if after else _NO_PREVIOUS,
            kind=kind,
            who=who,
            when=datetime.now(UTC).isoformat(timespec="seconds"),
            why=why,
            # As it will be read back.
            detail=json.loads(canonical_json(dict(detail))),
        )
        try:
            self._files.create(_file_name(entry.number), entry.to_bytes())
        except FileExistsError:
            raise LogConflictError(
                f"Another process wrote entry {entry.number} of the audit log at the same time: "
                "nothing was changed. Give the command again."
            ) from None
        return entry


def _parse_entry(name: str, content: bytes) -> AuditEntry:
    try:
        return _ENTRY.validate_python(json.loads(content))
    except (ValueError, ValidationError) as error:
        raise ArtifactError(
            f"Audit log: {name} is damaged ({error}). No version is moved until you restore the "
            "file from a backup of the artifact store."
        ) from None


def _file_name(number: int) -> str:
    return f"{number:08d}.json"
