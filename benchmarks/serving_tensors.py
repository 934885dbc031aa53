"""Batches of 8 images in every form of a request: base64, numbers in JSON, binary tensors.

One service of a model with an API key, rate limits and logs on; in each round ``wrk`` sends each
form over 8 connections, in alternating order. The ratios are of images/s, binary to JSON, of one
round.
ROUNDS (default 5), SECONDS of load (default 3), NAMES of models (small_cnn, resnet18).
Run: python -m benchmarks.serving_tensors [ROUNDS [SECONDS [NAME …]]]
"""

import base64
import dataclasses
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.serving import OURS, Server, cpu_seconds, running, server, wrk
from benchmarks.serving_models import SIZES, write_bundle
from cv_factory.config.serving import ServingConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import add_key

BATCH = 8
#: A binary form, and one in JSON that it is compared with.
PAIRS = (
    ("v2 binary pixels", "v2 JSON pixels"),
    ("v2 binary pixels", "/predict/batch"),
    ("v2 binary images", "v2 JSON images"),
)
_JSON, _BINARY = "application/json", "application/octet-stream"


def forms(model: str, folder: Path, target: Server) -> dict[str, Server]:
    """Write the bodies; return what is sent, by name."""
    png = (folder / "image.png").read_bytes()
    height, width, channels = SIZES[model]
    pixels = np.asarray(Image.open(folder / "image.png")).reshape(1, height, width, channels)
    batch = np.repeat(pixels, BATCH, 0)
    text = base64.b64encode(png).decode()
    image = {"name": "image", "datatype": "BYTES", "shape": [BATCH]}
    tensor = {"name": "pixels", "datatype": "UINT8", "shape": [*batch.shape]}
    elements = (len(png).to_bytes(4, "little") + png) * BATCH
    path = f"/v2/models/{model}/infer"

    def form(name: str, where: str, head: dict[str, Any], binary: bytes = b"") -> Server:
        body = json.dumps(head).encode()
        headers = {"Inference-Header-Content-Length": str(len(body))} if binary else {}
        (folder / name).write_bytes(body + binary)
        return dataclasses.replace(
            target,
            path=where,
            content_type=_BINARY if binary else _JSON,
            body=folder / name,
            headers=headers,
        )

    def inputs(tensor: dict[str, Any], binary: bytes = b"", **data: Any) -> dict[str, Any]:
        parameters = {"parameters": {"binary_data_size": len(binary)}} if binary else {}
        return {
            "inputs": [{**tensor, **data, **parameters}],
            "parameters": {"binary_data_output": bool(binary)},
        }

    return {
        "/predict/batch": form("batch", "/predict/batch", {"images": [text] * BATCH}),
        "v2 JSON images": form("images", path, inputs(image, data=[text] * BATCH)),
        "v2 binary images": form("images_binary", path, inputs(image, elements), elements),
        "v2 JSON pixels": form("pixels", path, inputs(tensor, data=batch.tolist())),
        "v2 binary pixels": form(
            "pixels_binary", path, inputs(tensor, batch.tobytes()), batch.tobytes()
        ),
    }


def measure(model: str, folder: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Return images/s, p50 and p99 (ms), and CPU time of an image (ms), by form and round."""
    serving = {
        "rate": {"per_key": 1e6, "per_address": 1e6},
        # All connections have a batch in it, and may have the next.
        "batching": {"queue_size": 256},
        "log": {"predictions": str(folder / "predictions")},
    }
    write_bundle(model, folder, ServingConfig.model_validate(serving))
    authorization = f"Bearer {add_key(folder / 'keys.json', 'load', ['predict'], None)}"
    port = find_free_port()
    target = server(OURS, folder, port)
    figures: dict[str, list[dict[str, float]]] = {}
    with running(target, port, {"Authorization": authorization}) as (process, _):
        family = [process, *process.children(recursive=True)]
        loads = forms(model, folder, target)
        for number in range(rounds + 1):
            names = list(loads) if number % 2 else list(loads)[::-1]
            for name in names:
                before = cpu_seconds(family)
                url = f"http://127.0.0.1:{port}{loads[name].path}"
                measured = wrk(loads[name], url, authorization, 8, seconds)
                images = BATCH * measured["rate"]
                cpu_ms = 1000 * (cpu_seconds(family) - before) / (images * seconds)
                # The first round warms up.
                if number:
                    figure = {"images": images, "cpu_ms": cpu_ms}
                    figures.setdefault(name, []).append({**measured, **figure})
    return figures


def report(model: str, figures: dict[str, Any]) -> dict[str, Any]:
    """Print one model's figures and ratios and return them."""
    n_rounds = len(next(iter(figures.values())))
    print(f"{model}, batches of {BATCH}, 8 connections, medians of {n_rounds} rounds")
    for name, rounds in figures.items():
        images, cpu, p50, p99 = (
            Spread.of([r[key] for r in rounds]).median for key in ("images", "cpu_ms", "p50", "p99")
        )
        latency = f"p50/p99 {p50:.1f}/{p99:.1f} ms"
        print(f"  {name:18} {images:6.0f} images/s, {cpu:.3f} CPU ms an image, {latency}")
    ratios = {}
    for binary, text in PAIRS:
        pairs = zip(figures[binary], figures[text], strict=True)
        ratio = Spread.of([b["images"] / t["images"] for b, t in pairs])
        ratios[f"{binary} to {text}"] = dataclasses.asdict(ratio)
        print(f"  {binary} to {text}: {ratio.median:.2f} ({ratio.min:.2f} to {ratio.max:.2f})")
    return {"figures": figures, "ratios": ratios}


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds, names = parse_arguments(rounds=5, seconds=3, names=[])
    if shutil.which("wrk") is None:
        sys.stderr.write("This benchmark needs wrk (Debian: apt-get install wrk).\n")
        return 2
    result: dict[str, Any] = {"machine": describe_machine(), "seconds": seconds}
    with tempfile.TemporaryDirectory() as directory:
        for model in [name for name in SIZES if name in names] or list(SIZES):
            figures = measure(model, Path(directory) / model, rounds, seconds)
            result[model] = report(model, figures)
    save_result("serving_tensors", result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
