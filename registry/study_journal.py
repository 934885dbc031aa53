"""Storage of a search's finished trials in the stack's artifact store, for a re-run to continue.

One small object a trial, written once: object stores cannot append, and need no lock this way. The
artifact store is the one place that a step can reach on every machine of every stack.
"""

import json

from zenml.client import Client

from cv_factory.training.search.result import Trial
from registry.store_files import write_atomic


class StudyJournal:
    """Finished trials of one study, identified by its key."""

    def __init__(self, key: str) -> None:
        """Open the journal; the first ``write`` creates it."""
        self._store = Client().active_stack.artifact_store
        self._directory = f"{self._store.path.rstrip('/')}/searches/{key}"

    def read(self) -> list[Trial]:
        """Return the finished trials."""
        if not self._store.isdir(self._directory):
            return []
        names = [str(name).rpartition("/")[2] for name in self._store.listdir(self._directory)]
        return [self._read(name) for name in sorted(names) if name.endswith(".json")]

    def write(self, trial: Trial) -> None:
        """Store a trial; a kill while writing leaves a file of another name, which is ignored."""
        name = f"{self._directory}/trial-{trial.number:05d}.json"
        write_atomic(self._store, name, json.dumps(trial.to_json()))

    def _read(self, name: str) -> Trial:
        with self._store.open(f"{self._directory}/{name}", "r") as file:
            return Trial.from_json(json.loads(file.read()))
