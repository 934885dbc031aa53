"""The folder of a training job that SageMaker keeps on S3: fetched first, sent as it changes.

What is deleted in the folder stays on S3: AWS's documentation promises no more. An instance that is
taken away sends nothing more, which is harsher than SageMaker's two minutes of notice.
"""

import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3

_POLL_INTERVAL_S = 0.1
#: Written last, into the folder of every checkpoint.
_WHOLE = "checkpoint.json"


class Checkpoints:
    """The checkpoints of one job on S3."""

    def __init__(self, request: Mapping[str, Any]) -> None:
        """Read what the request for the job says of them."""
        config = request.get("CheckpointConfig", {})
        self.in_job = config.get("LocalPath", "/opt/ml/checkpoints")
        self._bucket, _, self._prefix = (
            config.get("S3Uri", "").removeprefix("s3://").rstrip("/").partition("/")
        )

    @contextmanager
    def kept(self, folder: Path, on_first: Callable[[], None]) -> Iterator[None]:
        """Fetch what S3 has into a new folder, and send what changes in it inside the block.

        Args:
            folder: Stands for the job's folder.
            on_first: Called when the first whole checkpoint of this block is on S3.
        """
        folder.mkdir()
        if not self._bucket:
            yield
            return
        # Without the endpoint's variable this would be Amazon's.
        store = boto3.client("s3", endpoint_url=os.environ["AWS_ENDPOINT_URL_S3"])
        sent = self._fetch(store, folder)
        finished = threading.Event()

        def watch() -> None:
            notified = False
            while not finished.wait(_POLL_INTERVAL_S):
                names = self._send(store, folder, sent)
                if not notified and any(name.endswith(_WHOLE) for name in names):
                    notified = True
                    on_first()

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()

    def _fetch(self, store: Any, folder: Path) -> dict[str, tuple[float, int]]:
        """Fetch all there is, and return the state of the files."""
        pages = store.get_paginator("list_objects_v2")
        for page in pages.paginate(Bucket=self._bucket, Prefix=f"{self._prefix}/"):
            for entry in page.get("Contents", []):
                target = folder / entry["Key"].removeprefix(f"{self._prefix}/")
                target.parent.mkdir(parents=True, exist_ok=True)
                store.download_file(self._bucket, entry["Key"], str(target))
        return _states(folder)

    def _send(self, store: Any, folder: Path, sent: dict[str, tuple[float, int]]) -> list[str]:
        """Send what has changed, and return the names."""
        changed = {name: s for name, s in _states(folder).items() if sent.get(name) != s}
        done = []
        for name in sorted(changed, key=lambda name: name.endswith(_WHOLE)):
            try:
                content = (folder / name).read_bytes()
            except FileNotFoundError:  # moved or deleted meanwhile
                continue
            store.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}", Body=content)
            sent[name] = changed[name]
            done.append(name)
        return done


def _states(folder: Path) -> dict[str, tuple[float, int]]:
    """Return time of change and size of every file, by its name in the folder."""
    states = {}
    for path in folder.rglob("*"):
        try:
            state = path.stat()
        except FileNotFoundError:
            continue
        if path.is_file():
            states[str(path.relative_to(folder))] = (state.st_mtime, state.st_size)
    return states
