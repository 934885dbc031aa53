"""Loss and accuracy by epoch, as PNG."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from cv_factory.evaluation.plots.style import (
    BLUE,
    GREY,
    INK,
    ORANGE,
    draw_once,
    render_png,
    use_integer_ticks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@draw_once
def training_curves(history: Sequence[Mapping[str, float]], best_epoch: int) -> bytes:
    """Draw losses and validation accuracy over the epochs, and mark the best epoch.

    Args:
        history: One mapping an epoch, the first one first, with ``train_loss``,
            ``validation_loss`` and ``validation_accuracy``; may be empty (a model without epochs).
        best_epoch: The epoch, from 1, whose weights the model has.

    Returns:
        PNG.
    """
    with render_png(9.0, 3.6) as (figure, png):
        loss_axis, accuracy_axis = figure.subplots(1, 2)
        loss_axis.set_title("Loss")
        accuracy_axis.set_title("Validation accuracy (%)")
        for axis in (loss_axis, accuracy_axis):
            axis.set_xlabel("epoch")
            axis.grid(axis="y")
        if history:
            _draw_history(loss_axis, accuracy_axis, history, best_epoch)
        else:
            for axis in (loss_axis, accuracy_axis):
                axis.text(0.5, 0.5, "fitted in one go: no epochs", ha="center", color=GREY)
                axis.set(xticks=[], yticks=[])
    return png.getvalue()


def _draw_history(
    loss_axis: "Axes",
    accuracy_axis: "Axes",
    history: Sequence[Mapping[str, float]],
    best_epoch: int,
) -> None:
    epochs = range(1, len(history) + 1)
    marker = "o" if len(epochs) < 15 else ""
    for key, label, color in (
        ("train_loss", "training", BLUE),
        ("validation_loss", "validation", ORANGE),
    ):
        losses = [row[key] for row in history]
        loss_axis.plot(epochs, losses, color=color, marker=marker, markersize=4, label=label)
    loss_axis.set_ylim(bottom=0)
    loss_axis.legend()
    accuracies = [100 * row["validation_accuracy"] for row in history]
    accuracy_axis.plot(epochs, accuracies, color=ORANGE, marker=marker, markersize=4)
    best = accuracies[best_epoch - 1]
    accuracy_axis.plot(best_epoch, best, "o", color=ORANGE, markersize=8)
    accuracy_axis.annotate(
        f"best: {best:.2f} % in epoch {best_epoch}",
        (best_epoch, best),
        xytext=(0, -18),
        textcoords="offset points",
        ha="right" if best_epoch > len(epochs) / 2 else "left",
        color=INK,
    )
    for axis in (loss_axis, accuracy_axis):
        use_integer_ticks(axis)
