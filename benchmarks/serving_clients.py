"""Clients that send requests without a pause and record every answer."""

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx


class Clients:
    """Threads of clients; an answer is its start, its end (s) and its status, 0 without one."""

    def __init__(self, url: str, image: bytes, headers: Mapping[str, str], clients: int) -> None:
        """Ask nothing yet."""
        self._url, self._image = url, image
        self._headers = {"Content-Type": "image/png", **headers}
        self._clients = clients
        self._enough = threading.Event()
        self.answers: list[tuple[float, float, int]] = []

    @contextmanager
    def asking(self) -> Iterator["Clients"]:
        """Ask during the block."""
        threads = [threading.Thread(target=self._ask) for _ in range(self._clients)]
        for thread in threads:
            thread.start()
        try:
            yield self
        finally:
            self._enough.set()
            for thread in threads:
                thread.join()

    def _ask(self) -> None:
        with httpx.Client(headers=self._headers, trust_env=False, timeout=60) as client:
            while not self._enough.is_set():
                start = time.monotonic()
                try:
                    status = client.post(self._url, content=self._image).status_code
                except httpx.HTTPError:
                    status = 0
                self.answers.append((start, time.monotonic(), status))

    def seconds(self) -> list[float]:
        """Return how long those took that were answered rightly."""
        return [end - start for start, end, status in self.answers if status == httpx.codes.OK]

    def lost(self) -> int:
        """Return how many had no answer, or another than they should."""
        return sum(status != httpx.codes.OK for _, _, status in self.answers)

    def wait_for_answer_after(self, moment: float) -> float:
        """Return when the first request that was sent after a moment had its right answer."""
        while True:
            answered = [
                end for start, end, status in self.answers if start > moment and status == 200
            ]
            if answered:
                return min(answered)
            time.sleep(0.005)
