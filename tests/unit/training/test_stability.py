"""Instability of a training: a fall of validation accuracy is described, ordinary noise is not."""

import pytest

from cv_factory.training.stability import describe_instability


def history(*accuracies: float) -> list[dict[str, float]]:
    return [{"validation_accuracy": accuracy} for accuracy in accuracies]


def test_a_fall_of_accuracy_is_described_with_its_epochs() -> None:
    warning = describe_instability(history(0.4, 0.95, 0.9, 0.30, 0.98, 0.7))
    assert "fell from 95.0% in epoch 2 to 30.0% in epoch 4" in warning
    assert "train.learning_rate" in warning


@pytest.mark.parametrize("accuracies", [(), (0.1,), (0.1, 0.8, 0.97), (0.9, 0.81, 0.99, 0.95)])
def test_a_rise_and_small_falls_are_not(accuracies: tuple[float, ...]) -> None:
    assert describe_instability(history(*accuracies)) == ""
