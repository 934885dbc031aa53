"""A running service that the test modules of a worker share."""

from collections.abc import Iterator

import pytest

from tests.support.digits_service import DigitsService


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DigitsService]:
    service = DigitsService(tmp_path_factory.mktemp("service"))
    try:
        service.wait()
        yield service
    finally:
        service.stop()
