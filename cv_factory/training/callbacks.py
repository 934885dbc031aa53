"""Signatures of the functions that follow a training while it runs."""

from collections.abc import Callable

#: Called after each epoch with its number, from 1, and its metrics by name.
EpochCallback = Callable[[int, dict[str, float]], None]
#: Called after each step with the number of finished steps of this epoch, and of all its steps.
StepCallback = Callable[[int, int], None]
