"""Latency of cameras of 30 images/s over WebSocket, against the same over ``POST /predict``.

Each camera has one connection and an image at fixed times, whether or not it has been answered: a
request that has to wait for the one before is counted from that time. 1 and 8 cameras, on the
machine of the service, in alternating order. ROUNDS (default 3), SECONDS (default 10), NAMES of
models (resnet18, small_cnn).
Run: python -m benchmarks.serving_camera [ROUNDS [SECONDS [NAME …]]]
"""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop
from websockets.asyncio.client import connect

from benchmarks.harness import Spread, describe_machine, parse_arguments, save_result
from benchmarks.serving import OURS, running, server
from benchmarks.serving_models import SIZES, write_bundle
from cv_factory.config.serving import ServingConfig
from cv_factory.processes.ports import find_free_port
from cv_factory.serving.auth.api_keys import add_key

IMAGES_PER_SECOND = 30
CAMERAS = (1, 8)
#: Sends the images of a camera from a time on (``perf_counter``); returns seconds of latency.
Camera = Callable[[int, str, bytes, float, int], Awaitable[list[float]]]


async def wait_until(moment: float) -> float:
    """Wait until a time; return the present one, or that one if it has passed already."""
    wait = moment - time.perf_counter()
    if wait < 0:
        return moment
    await asyncio.sleep(wait)
    return time.perf_counter()


async def websocket_camera(
    port: int, key: str, image: bytes, start: float, n_images: int
) -> list[float]:
    """Send images over a WebSocket connection."""
    sent: list[float] = []
    latencies = []
    headers = {"X-API-Key": key}
    url = f"ws://127.0.0.1:{port}/ws"
    async with connect(url, additional_headers=headers, proxy=None) as socket:
        await socket.recv()

        async def receive() -> None:
            for _ in range(n_images):
                answer = json.loads(await socket.recv())
                assert answer["predictions"], answer
                latencies.append(time.perf_counter() - sent[answer["frame"] - 1])

        receiver = asyncio.create_task(receive())
        for number in range(n_images):
            sent.append(await wait_until(start + number / IMAGES_PER_SECOND))
            await socket.send(image)
        await receiver
    return latencies


async def http_camera(
    port: int, key: str, image: bytes, start: float, n_images: int
) -> list[float]:
    """Send images as requests on one kept connection."""
    latencies = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: {key}\r\n"
        f"Content-Type: image/png\r\nContent-Length: {len(image)}\r\n\r\n"
    )
    for number in range(n_images):
        due = await wait_until(start + number / IMAGES_PER_SECOND)
        writer.write(head.encode() + image)
        response = await reader.readuntil(b"\r\n\r\n")
        length = int(response.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        assert json.loads(await reader.readexactly(length))["predictions"], response
        latencies.append(time.perf_counter() - due)
    writer.close()
    return latencies


ROUTES: dict[str, Camera] = {"/predict": http_camera, "/ws": websocket_camera}


def percentiles(
    camera: Camera, port: int, key: str, image: bytes, n_cameras: int, seconds: int
) -> dict[str, float]:
    """Return p50 and p99 in ms of some cameras at a time."""

    async def run() -> list[list[float]]:
        start = time.perf_counter() + 0.5
        delays = [n / n_cameras / IMAGES_PER_SECOND for n in range(n_cameras)]
        n_images = seconds * IMAGES_PER_SECOND
        cameras = [camera(port, key, image, start + delay, n_images) for delay in delays]
        return await asyncio.gather(*cameras)

    latencies = [1000 * seconds for camera in uvloop.run(run()) for seconds in camera]
    cuts = statistics.quantiles(latencies, n=100)
    return {"p50_ms": cuts[49], "p99_ms": cuts[98]}


def measure(model: str, folder: Path, rounds: int, seconds: int) -> dict[str, Any]:
    """Return the percentiles of all rounds, by route and number of cameras."""
    write_bundle(model, folder, ServingConfig())
    key = add_key(folder / "keys.json", "camera", ["predict"], None)
    port = find_free_port()
    target = server(OURS, folder, port)
    image = target.body.read_bytes()
    figures: dict[str, Any] = {route: {n: [] for n in CAMERAS} for route in ROUTES}
    with running(target, port, {"X-API-Key": key}):
        for camera in ROUTES.values():
            percentiles(camera, port, key, image, max(CAMERAS), 1)
        for number in range(rounds):
            for n in CAMERAS:
                for route in list(ROUTES) if number % 2 == 0 else list(ROUTES)[::-1]:
                    run = percentiles(ROUTES[route], port, key, image, n, seconds)
                    figures[route][n].append(run)
                    sys.stderr.write(f"{model} {route} {n}: {run}\n")
                    time.sleep(0.5)
    return figures


def main() -> int:
    """Measure, print and store the result."""
    rounds, seconds, names = parse_arguments(rounds=3, seconds=10, names=[])
    result: dict[str, Any] = {"machine": describe_machine(), "seconds": seconds}
    with tempfile.TemporaryDirectory() as directory:
        for model in [name for name in SIZES if name in names] or list(SIZES):
            result[model] = measure(model, Path(directory) / model, rounds, seconds)
    save_result("serving_camera", result)
    for model in SIZES.keys() & result.keys():
        for n in CAMERAS:
            http, websocket = (result[model][route][n] for route in ROUTES)
            pairs = zip(http, websocket, strict=True)
            ratio = Spread.of([b["p99_ms"] / a["p99_ms"] for a, b in pairs])
            sys.stdout.write(
                f"{model}, {n} cameras: p99 of /ws {ratio.median:.2f} x that of /predict "
                f"({ratio.min:.2f} to {ratio.max:.2f}, n={ratio.n})\n"
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
