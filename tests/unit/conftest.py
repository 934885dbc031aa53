"""Servers that tests of the library talk to."""

from collections.abc import Callable, Iterator

import pytest

from tests.support.s3_server import WEED, S3Server


@pytest.fixture
def s3(
    engine: Callable[..., str], tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[S3Server]:  # fmt: skip
    """A server with the bucket ``images``; the environment is set to reach it."""
    server = S3Server(engine(str(WEED), "weed"), tmp_path_factory.mktemp("s3"))
    try:
        for name, value in server.environment.items():
            monkeypatch.setenv(name, value)
        yield server
    finally:
        server.kill()
