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
    """Mark run and step as stopping: the store makes "stopped" of the failure that follows.

    The run first, which would be complete if its last step were neither running nor stopped.
    """
    from zenml.enums import ExecutionStatus
    from zenml.orchestrators import publish_utils

    step, stopping = handler._step_run, ExecutionStatus.STOPPING
    publish_utils.publish_pipeline_run_status_update(step.pipeline_run_id, stopping)
    publish_utils.publish_step_run_status_update(step.id, stopping)
    return KeyboardInterrupt()
