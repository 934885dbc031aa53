"""Settings of a network's training that the number or the size of the training images rules out."""

from collections.abc import Iterator

from cv_factory.config.train import TrainConfig

ImageShape = tuple[int, int, int]


def find_problems(
    config: TrainConfig, n_train: int, image_shape: ImageShape | None, processes: int = 1
) -> list[str]:
    """Return a sentence for each setting of a network's training that does not fit the images.

    Args:
        config: Training settings.
        n_train: Number of training images.
        image_shape: Height, width and channels; None while they are unknown.
        processes: Number of processes on all machines.
    """
    return [*_find_batch_problems(config, n_train, processes), *_find_sizes(config, image_shape)]


def _find_batch_problems(config: TrainConfig, n_train: int, processes: int) -> Iterator[str]:
    batch_size, parts = config.choose_batch_size(n_train), processes * config.accumulate
    if batch_size > n_train:
        yield (
            f"train.batch_size is {batch_size}, but there are at most {n_train} training images. "
            f"Set it to {n_train} or less, or leave it out."
        )
    if batch_size < 2 * parts:
        yield (
            f"train.batch_size is {batch_size}, which {processes} processes with "
            f"train.accumulate={config.accumulate} cannot share: each part needs two images. "
            f"Set it to {2 * parts} or more."
        )


def _find_sizes(config: TrainConfig, image_shape: ImageShape | None) -> Iterator[str]:
    for name in ("crop_padding", "cutout"):
        if image_shape is not None and getattr(config, name) >= min(image_shape[:2]):
            yield (
                f"train.{name} is {getattr(config, name)} pixels, but images are only "
                f"{image_shape[0]}x{image_shape[1]}. Lower it."
            )
