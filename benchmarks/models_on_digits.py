"""Every model on the digits: test accuracy, seconds to train, and the size of the predictor.

The default configuration (configs/training.yaml) with another model in it, each in a process of its
own, once; seeds are fixed, so that accuracies repeat. Deep networks are made for other images than
8x8 ones: what they need to answer at all is set below.

    python -m benchmarks models_on_digits
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, Side, describe_machine, parse_arguments, run_once, save_result

#: Settings over the default configuration, by model.
MODELS: dict[str, list[str]] = {
    "logistic_regression": [],
    "random_forest": [],
    "xgboost": [],
    "lightgbm": [],
    "mlp": [],
    "small_cnn": [],
    "whitened_cnn": ["model.stride=1"],
    "resnet18": ["model.small_stem=true", "train.epochs=6"],
    "mobilenet_v2": ["model.input_size=32", "train.epochs=6"],
    "torchvision": ["model={architecture: shufflenet_v2_x0_5, input_size: 64}", "train.epochs=6"],
    "efficientnet_lite0": ["model={input_size: 64, freeze_backbone: true}", "train.epochs=6"],
}


def main() -> None:
    """Train each model, print a table, write the result as JSON."""
    parse_arguments()
    rows: dict[str, Any] = {}
    print(f"{'test accuracy':>14}{'train s':>10}{'kB':>10}  model and settings")
    for name, settings in MODELS.items():
        command = [sys.executable, "-m", "benchmarks.models_on_digits", "--train", name, *settings]
        rows[name] = run_once(Side(name, command, collect=_last_line), 1800).values
        row = rows[name]
        figures = f"{row['accuracy']:14.2%}{row['seconds']:10.1f}{row['kilobytes']:10,.0f}"
        print(f"{figures}  {' '.join([name, *settings])}", flush=True)
    save_result("models_on_digits", {"models": rows, "machine": describe_machine()})


def _last_line(output: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(output.splitlines()[-1])
    return content


def _train(name: str, settings: list[str]) -> dict[str, float]:
    """Train one model in this process and measure it."""
    from cv_factory.config.loader import load_config
    from cv_factory.config.training import TrainingPipelineConfig
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.training.train import train
    from cv_factory.transforms.fitted import fit_transform

    file = Path(ROOT, "configs", "training.yaml")
    overrides = [f"model.name={name}", *settings]
    config = load_config(TrainingPipelineConfig, file, overrides=overrides)
    dataset = ingest(config.data)
    split = split_dataset(dataset, config.split)
    transform = fit_transform(dataset, split.train, config.transform)
    start = time.perf_counter()
    trained = train(dataset, split, transform, config.model, config.train)
    seconds = time.perf_counter() - start
    predictor = export_predictor(trained, transform, {}, dataset, split.validation)
    predicted = predictor.predict(dataset.images[split.test]).probabilities.argmax(axis=1)
    accuracy = float((predicted == dataset.labels[split.test]).mean())
    return {"accuracy": accuracy, "seconds": seconds, "kilobytes": len(predictor.graph) / 1e3}


if __name__ == "__main__":
    if sys.argv[1:2] == ["--train"]:
        print(json.dumps(_train(sys.argv[2], sys.argv[3:])))
        sys.exit(0)
    main()
