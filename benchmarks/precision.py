"""Images/s, size and agreement of a predictor in each precision.

ResNet18 and the small CNN, trained for one epoch on 400 pieces of photographs (64x64), in float32,
float16 and int8; batches of 8 in one process on all cores, ROUNDS (default 5) of SECONDS (default
1) in alternating order. Agreement: share of the validation images with float32's label. What a
precision costs in accuracy, the evaluation of a training run says.
Run: python -m benchmarks.precision [ROUNDS [SECONDS]]
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.ingestion import write_photographs
from cv_factory.config.data import DataConfig
from cv_factory.config.export import ExportConfig
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.inference.predictor import Predictor
from cv_factory.models.resnet18 import ResNet18Config
from cv_factory.models.small_cnn import SmallCNNConfig

_PRECISIONS = ("float32", "float16", "int8")
_BATCH = 8


def export_all(
    model: ResNet18Config | SmallCNNConfig, images: Path
) -> tuple[dict[str, Predictor], npt.NDArray[np.uint8]]:
    """Return a model's predictor in each precision, and the validation images."""
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.export.quantize import quantize
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    config = DataConfig(source="folder", path=str(images), height=64, width=64)
    dataset = ingest(config)
    split = split_dataset(dataset, SplitConfig())
    transform = fit_transform(dataset, split.train, TransformConfig())
    trained = train(dataset, split, transform, model, TrainConfig(epochs=1, batch_size=64))
    exported = export_predictor(trained, transform, {}, dataset, split.validation)
    predictors = {
        precision: quantize(
            exported,
            dataset,
            split,
            ExportConfig.model_validate({"precision": precision, "min_agreement": 0.0}),
        )
        for precision in _PRECISIONS
    }
    return predictors, np.asarray(dataset.images[split.validation])


def rate(predictor: Predictor, batch: npt.NDArray[np.uint8], seconds: float) -> float:
    """Return images/s."""
    runs, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < seconds:
        predictor.predict(batch)
        runs += 1
    return runs * len(batch) / elapsed


def measure(
    predictors: dict[str, Predictor], images: npt.NDArray[np.uint8], rounds: int, seconds: float
) -> dict[str, list[float]]:
    """Return images/s of each precision in each round."""
    batch, rates = images[:_BATCH], {name: list[float]() for name in predictors}
    for predictor in predictors.values():
        rate(predictor, batch, 0.2)
    for number in range(rounds):
        for name in list(predictors)[:: 1 if number % 2 == 0 else -1]:
            rates[name].append(rate(predictors[name], batch, seconds))
    return rates


def report(
    model: str,
    predictors: dict[str, Predictor],
    images: npt.NDArray[np.uint8],
    rates: dict[str, list[float]],
) -> None:
    """Print one model's figures."""
    from rich.console import Console
    from rich.table import Table

    rounds, float_predictor = len(rates["float32"]), predictors["float32"]
    table = Table(title=f"{model} ({rounds} rounds)", title_justify="left")
    for title in ("precision", "images/s", "against float32", "MB", "agreement"):
        table.add_column(title, justify="right")
    expected = float_predictor.predict(images).probabilities.argmax(1)
    for name, predictor in predictors.items():
        ratio = Spread.of([a / b for a, b in zip(rates[name], rates["float32"], strict=True)])
        same = (predictor.predict(images).probabilities.argmax(1) == expected).mean()
        table.add_row(
            name,
            f"{Spread.of(rates[name]).median:,.0f}",
            f"{ratio.median:.2f} ({ratio.min:.2f}-{ratio.max:.2f})",
            f"{len(predictor.graph) / 1e6:.2f}",
            f"{same:.1%}",
        )
    Console(width=100).print(table)


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds = parse_arguments(rounds=5, seconds=1.0)
    result: dict[str, object] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as directory:
        write_photographs(Path(directory), 400, size=64, kind="png")
        for model in (SmallCNNConfig(), ResNet18Config()):
            predictors, images = export_all(model, Path(directory))
            rates = measure(predictors, images, rounds, seconds)
            report(model.name, predictors, images, rates)
            result[model.name] = rates
    save_result("precision", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
