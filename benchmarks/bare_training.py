"""The training pipeline's work as one plain script: without ZenML, MLflow and artifacts.

The baseline of ``benchmarks/orchestration.py``. Prints one JSON object: seconds by part,
accuracy, epochs.

    python benchmarks/bare_training.py configs/training.yaml [dotted.key=value ...]
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START = time.perf_counter()
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def main() -> None:
    """Ingest, split, validate, fit, train, export, evaluate."""
    from cv_factory.cpu import limit_spinning

    limit_spinning()  # as ``run.py`` does
    from cv_factory.config.loader import load_config
    from cv_factory.config.training import TrainingPipelineConfig

    seconds: dict[str, float] = {}

    @contextmanager
    def timed(name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[name] = round(time.perf_counter() - start, 3)

    config = load_config(TrainingPipelineConfig, Path(sys.argv[1]), overrides=sys.argv[2:])
    with timed("ingest"):
        from cv_factory.data.ingest import ingest

        dataset = ingest(config.data)
    with timed("split"):
        from cv_factory.data.split import split_dataset

        split = split_dataset(dataset, config.split)
    with timed("validate_data"):
        from cv_factory.data.validation.great_expectations import validate_dataset

        validate_dataset(
            dataset.manifest,
            class_names=dataset.class_names,
            split=dict(split.items()),
            config=config.validation,
            unreadable=[(u.source, u.reason) for u in dataset.unreadable],
        ).require_ok()
    with timed("fit_transform"):
        from cv_factory.transforms.fitted import fit_transform

        transform = fit_transform(dataset, split.train, config.transform)
    with timed("train"):
        from cv_factory.training.train import train

        trained = train(dataset, split, transform, config.model, config.train)
    with timed("export"):
        from cv_factory.export.onnx_graph import export_predictor

        predictor = export_predictor(trained, transform, {}, dataset, split.validation)
    with timed("evaluate"):
        from cv_factory.evaluation.evaluate_predictor import evaluate_predictor

        evaluation = evaluate_predictor(predictor, dataset, split.test, config.evaluate)
    seconds["whole"] = round(time.perf_counter() - START, 3)
    accuracy = evaluation.metrics["accuracy"].value
    epochs = len(trained.history)
    print(json.dumps({"seconds": seconds, "accuracy": accuracy, "epochs": epochs}))


if __name__ == "__main__":
    main()
