"""ZenML 0.98.0 shows a step that a signal interrupted, and its run, as failed."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zenml.orchestrators.signal_handler import SignalHandler


def stop_interrupted_steps() -> None:
    """Let a run that Ctrl-C or SIGTERM ends be shown as stopped.

    Replaces a method of ZenML's handler of both signals, which ends in the handler that was
    installed before: that one is to raise ``KeyboardInterrupt``.
    """
    from zenml.orchestrators.signal_handler import SignalHandler

    SignalHandler._finalize_shutdown = _mark_as_stopping  # type: ignore[assignment, method-assign]


def _mark_as_stopping(handler: "SignalHandler") -> BaseException:
    """Mark the step as stopping: its store makes "stopped" of the failure that follows."""
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators.publish_utils import publish_step_run_status_update

    publish_step_run_status_update(handler._step_run.id, ExecutionStatus.STOPPING)
    return KeyboardInterrupt()
