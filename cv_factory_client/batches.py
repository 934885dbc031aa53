"""Batches of a stream of images, bounded in number and bytes."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cv_factory_client.errors import ServiceError


@dataclass(frozen=True)
class Batch:
    """Images of one request.

    Attributes:
        first: Position of the first one in the stream.
        images: Encoded images.
    """

    first: int
    images: list[bytes]

    @contextmanager
    def name_in_errors(self) -> Iterator[None]:
        """Prepend to the message of an error which images of the stream it is about."""
        try:
            yield
        except ServiceError as error:
            last = self.first + len(self.images) - 1
            error.args = (f"images {self.first} to {last} of the stream: {error}",)
            raise


def split_batches(images: Iterable[bytes], size: int, max_bytes: int) -> Iterator[Batch]:
    """Yield batches of at most ``size`` images and, if they hold several, ``max_bytes`` bytes.

    Raises:
        ValueError: ``size`` is less than 1.
    """
    if size < 1:
        raise ValueError(f"batch_size is {size}: a batch holds at least one image.")
    first, batch, n_bytes = 0, list[bytes](), 0
    for image in images:
        if batch and (len(batch) == size or n_bytes + len(image) > max_bytes):
            yield Batch(first, batch)
            first, batch, n_bytes = first + len(batch), [], 0
        batch.append(image)
        n_bytes += len(image)
    if batch:
        yield Batch(first, batch)
