"""ZenML 0.98.0 empties its configuration files, then writes them, at every start of a process.

Another process that starts in between reads an empty file: it stops with an ``AttributeError``, or
takes ZenML's defaults (another user id, another store) and writes these.
"""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from cv_factory.processes.polling import poll_until

#: A file that is still empty then was left so, and not by a process that writes.
_SECONDS_UNTIL_WRITTEN = 2.0


def share_configuration_files() -> None:
    """Let other processes start and read while this one writes ZenML's configuration files.

    A file is replaced at once, and only where its content changes; one that a process without this
    cure has just emptied is waited for. Call it before the first ``Client()``; it replaces what
    ZenML's two classes of configuration files read and write with.
    """
    from zenml.config import global_config
    from zenml.utils import filesync_model

    for module in (global_config, filesync_model):
        module.yaml_utils = SimpleNamespace(read_yaml=_read, write_yaml=_write)  # type: ignore[attr-defined]


def _read(file_path: str) -> Any:
    path = Path(file_path)
    poll_until(lambda: path.stat().st_size > 0, _SECONDS_UNTIL_WRITTEN)
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def _write(file_path: str, contents: dict[str, Any]) -> None:
    path = Path(file_path).resolve()
    content = yaml.dump(contents).encode()
    exists = path.exists()
    if exists and path.read_bytes() == content:
        return
    written = path.with_name(f".{path.name}.{os.getpid()}")
    written.write_bytes(content)
    if exists:
        shutil.copymode(path, written)
    written.replace(path)
