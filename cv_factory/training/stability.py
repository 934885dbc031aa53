"""Stability of a training: whether validation accuracy collapsed after it had been good."""

from collections.abc import Mapping, Sequence

#: Fall of the validation accuracy from its highest value so far that is worth a warning.
MAX_FALL = 0.1


def describe_instability(history: Sequence[Mapping[str, float]]) -> str:
    """Return a warning about the largest fall of validation accuracy; empty below ``MAX_FALL``.

    Args:
        history: Metrics of each epoch, with ``validation_accuracy``.
    """
    accuracies = [row["validation_accuracy"] for row in history]
    if not accuracies:
        return ""
    peaks = [max(range(end), key=accuracies.__getitem__) for end in range(1, len(accuracies) + 1)]
    falls = [accuracies[peak] - accuracy for peak, accuracy in zip(peaks, accuracies, strict=True)]
    bottom = max(range(len(falls)), key=falls.__getitem__)
    if falls[bottom] < MAX_FALL:
        return ""
    peak = peaks[bottom]
    return (
        f"Validation accuracy fell from {accuracies[peak]:.1%} in epoch {peak + 1} to "
        f"{accuracies[bottom]:.1%} in epoch {bottom + 1}: the training is unstable. Lower "
        "train.learning_rate, raise train.batch_size, or set train.ema_decay."
    )
