"""Baselines of ``benchmarks.serving``: other servers of the same image classifier.

``python -m benchmarks.serving_baselines NAME FOLDER PORT``: FOLDER is one of ``serving_models``.
All decode with Pillow to the model's size, and answer the label and all probabilities.
"""

import base64
import io
import json
import os
import subprocess
import sys
import time
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bentoml
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.serving_models import SIZES, network
from cv_factory.processes.ports import find_free_port

FOLDER = "BENCHMARK_FOLDER"
# Its workers ask uvloop for the current event loop, which later versions do not create.
_MLSERVER_REQUIREMENTS = ("mlserver==1.7.1", "uvloop<0.22", "onnxruntime", "pillow")


def folder() -> Path:
    """Return the folder of the model that is served."""
    return Path(os.environ[FOLDER])


def read_pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    height, width, channels = SIZES[folder().name]
    image = image.convert("L" if channels == 1 else "RGB")
    if image.size != (width, height):
        image = image.resize((width, height))
    return np.asarray(image, np.uint8).reshape(height, width, channels)


def format_response(probabilities: npt.NDArray[np.float32]) -> dict[str, Any]:
    return {"label": int(probabilities.argmax()), "probabilities": probabilities.tolist()}


def onnx_scorer(threads: int = 2) -> Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.float32]]:
    """Return a function from images to probabilities, by ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        (folder() / "model.onnx").read_bytes(), options, providers=["CPUExecutionProvider"]
    )
    return lambda images: session.run(["probabilities"], {"images": images})[0]


def fastapi_app() -> Any:
    """FastAPI and ONNX Runtime, the work in FastAPI's thread pool."""
    from fastapi import FastAPI, Request
    from starlette.concurrency import run_in_threadpool

    app, score = FastAPI(), onnx_scorer()

    def work(body: bytes) -> dict[str, Any]:
        return format_response(score(read_pixels(Image.open(io.BytesIO(body)))[None])[0])

    @app.post("/predict")
    async def predict(request: Request) -> dict[str, Any]:
        return await run_in_threadpool(work, await request.body())

    return app


@bentoml.service(name="stock")
class Stock:
    """BentoML's own API route, as its tutorial writes it."""

    def __init__(self) -> None:
        self._score = onnx_scorer()

    @bentoml.api  # type: ignore[untyped-decorator]
    def predict(self, image: Image.Image, /) -> dict[str, Any]:
        return format_response(self._score(read_pixels(image)[None])[0])


def bare() -> None:
    """Decode and score in batches of 8 for 4 seconds, and print the rate; no network."""
    score, body = onnx_scorer(), (folder() / "image.png").read_bytes()

    def batch() -> None:
        score(np.stack([read_pixels(Image.open(io.BytesIO(body))) for _ in range(8)]))

    for _ in range(10):
        batch()
    start, images = time.perf_counter(), 0
    while time.perf_counter() - start < 4.0:
        batch()
        images += 8
    sys.stdout.write(f"{images / (time.perf_counter() - start)}\n")


def save_mlflow(kind: str, target: Path) -> None:
    """Save the model as MLflow's users do: ``torch`` flavour, or ``onnx`` inside a pyfunc."""
    import mlflow

    if kind == "torch":
        from mlflow.models import ModelSignature
        from mlflow.types import Schema, TensorSpec
        from safetensors.torch import load_file

        module = network(folder().name)
        module.load_state_dict(load_file(folder() / "weights.safetensors"))
        height, width, channels = SIZES[folder().name]
        # Without it MLflow hands torch float64.
        entry = TensorSpec(np.dtype(np.float32), (-1, channels, height, width))
        mlflow.pytorch.save_model(
            module,
            target,
            serialization_format="pickle",
            signature=ModelSignature(inputs=Schema([entry])),
        )
        return
    script = Path(__file__).with_name("serving_mlflow_model.py")
    mlflow.pyfunc.save_model(
        target, python_model=str(script), artifacts={"model": str(folder() / "model.onnx")}
    )


def mlflow_body(kind: str) -> str:
    """Return the JSON that MLflow's server is sent: numbers for torch, base64 for the pyfunc."""
    content = (folder() / "image.png").read_bytes()
    if kind == "torch":
        image = read_pixels(Image.open(io.BytesIO(content)))[None]
        return json.dumps({"inputs": (image.transpose(0, 3, 1, 2) / 255).round(6).tolist()})
    return json.dumps({"inputs": [base64.b64encode(content).decode()]})


def mlserver_body(image: Path) -> str:
    """Return the request of the Open Inference Protocol that MLServer is sent."""
    data = [base64.b64encode(image.read_bytes()).decode()]
    return json.dumps(
        {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": data}]}
    )


def serve_mlserver(place: Path, port: int) -> int:
    """Serve with MLServer's defaults, from an environment that the first call installs."""
    environment = place.parent / "mlserver_environment"
    if not environment.exists():
        venv.create(environment, with_pip=True)
        install = [str(environment / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*install, *_MLSERVER_REQUIREMENTS], check=True)
    models = place / "mlserver"
    models.mkdir(exist_ok=True)
    model = {
        "name": "model",
        "implementation": "serving_mlserver_model.Classifier",
        "parameters": {"uri": str(place / "model.onnx")},
    }
    (models / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    ports = {"HTTP": port, "GRPC": find_free_port(), "METRICS": find_free_port()}
    env = {
        **os.environ,
        **{f"MLSERVER_{name}_PORT": str(number) for name, number in ports.items()},
        "PYTHONPATH": str(Path(__file__).parent),
    }
    command = [str(environment / "bin" / "mlserver"), "start", str(models)]
    # It keeps its metrics in the working directory.
    return subprocess.run(command, env=env, cwd=place).returncode


def main() -> int:
    """Start what the arguments name."""
    name, place, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
    os.environ[FOLDER] = place
    if name == "bare":
        bare()
    elif name == "fastapi":
        import uvicorn

        uvicorn.run(fastapi_app(), port=port, access_log=False, log_level="warning")
    elif name == "bentoml":
        from _bentoml_impl.server import serve_http

        from benchmarks import serving_baselines

        service: Any = serving_baselines.Stock
        service.inject_config()
        serve_http(service, host="127.0.0.1", port=port)
    elif name == "mlserver":
        return serve_mlserver(Path(place), port)
    else:
        kind = name.removeprefix("mlflow_")
        target = Path(place) / f"mlflow_{kind}"
        if not target.exists():
            save_mlflow(kind, target)
        command = [sys.executable, "-m", "mlflow", "models", "serve", "-m", str(target)]
        options = ["--env-manager", "local", "--port", str(port), "--workers", "1"]
        # MLflow looks for uvicorn in PATH.
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        env = {**os.environ, "PATH": path}
        return subprocess.run([*command, *options], env=env).returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
