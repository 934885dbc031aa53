"""ONNX Runtime on the CPU: how graphs are opened, and its telemetry, which is off."""

import os
from typing import Any

from cv_factory.cpu import available_cpus

_ERROR = 3


def import_onnxruntime() -> Any:
    """Return the module, imported with its telemetry off unless ``ORT_DISABLE_TELEMETRY`` is set.

    Its builds since 1.29 report processes and models to Microsoft, and keep an identifier in HOME.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime  # noqa: TID251 (here alone)

    return onnxruntime


def open_session(graph: bytes, threads: int | None = None) -> Any:
    """Open an ``InferenceSession`` that logs errors only.

    Args:
        graph: Serialized ``onnx.ModelProto``.
        threads: Of one run; None for all CPUs that this process may use.
    """
    onnxruntime = import_onnxruntime()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or available_cpus()
    # Spinning threads would take the CPU from other work while they wait.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = _ERROR
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
