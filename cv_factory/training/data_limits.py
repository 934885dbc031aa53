"""Settings of a training that the number or the size of the training images rules out."""

from collections import Counter
from collections.abc import Iterator

import numpy as np

from cv_factory.config.split import SplitConfig
from cv_factory.config.suggestion import nearest
from cv_factory.config.training import TrainingPipelineConfig
from cv_factory.data.reading import sample_positions
from cv_factory.data.sources import ImageSource
from cv_factory.models import is_network
from cv_factory.reporting.numbers import format_count
from cv_factory.training.network_limits import ImageShape, find_problems
from cv_factory.transforms.pca import pooled_dimension

#: Sources of more images are not counted: no setting asks for as many.
_LARGEST_COUNTED = 100_000


def find_source_problems(config: TrainingPipelineConfig, source: ImageSource) -> list[str]:
    """Return a sentence for each setting that the source's images rule out, as far as one can tell.

    Nothing is decoded: sizes count where the configuration or an array gives them.
    """
    if len(source) > _LARGEST_COUNTED:
        return []
    positions = sample_positions(len(source), config.data.limit)
    parts, classes = Counter[str](), Counter[str]()
    for label, part in source.labels_and_parts(positions):
        parts[part] += 1
        if label is not None:
            classes[label] += 1
    n_train = _most_training_images(parts, len(source.class_names), config.split)
    if n_train < 1:
        return [
            "split.validation and split.test leave nothing to train on of "
            f"{len(positions)} images. Lower them."
        ]
    problems = list(_find_slice_problems(config, source.class_names))
    # A backbone gives features of one number for images of any size.
    shape = _peek_image_shape(config, source) if config.features is None else None
    search = config.search
    if search is not None:
        n_fit = n_train * (search.folds - 1) // search.folds
        problems += _find_fold_problems(search.folds, classes)
        return [*problems, *_find_component_problems(config, n_fit, shape)]
    problems += _find_component_problems(config, n_train, shape)
    if is_network(config.model):
        problems += find_problems(config.train, n_train, shape)
    return problems


def _most_training_images(parts: Counter[str], n_classes: int, config: SplitConfig) -> int:
    """Return how many images the split can leave to train on at most.

    Args:
        parts: Number of images by official part, empty for none.
        n_classes: Each may leave its part one image short.
        config: Section of the split.
    """
    official = [part for part in ("validation", "test") if config.keep_official_test]
    free = parts.total() - sum(parts[part] for part in official)
    drawn = 0
    for part in ("validation", "test"):
        if part not in official or not parts[part]:
            size = getattr(config, part)
            images = int(free * size) if isinstance(size, float) else size
            drawn += max(0, images - n_classes)
    return free - drawn


def _peek_image_shape(config: TrainingPipelineConfig, source: ImageSource) -> ImageShape | None:
    """Return the shape of the images if the configuration, or an array of the source, tells."""
    data = config.data
    if data.height and data.width and data.channels:
        return data.height, data.width, data.channels
    (record,) = source.records(np.zeros(1, np.int64))
    if data.height or data.channels or not isinstance(record.content, np.ndarray):
        return None
    height, width, channels = record.content.shape
    return height, width, channels


def _find_slice_problems(
    config: TrainingPipelineConfig, class_names: tuple[str, ...]
) -> Iterator[str]:
    for gate in config.applicable_gates:
        column, _, name = (gate.slice or "").partition("=")
        if column == "class" and name and name not in class_names:
            near = nearest(name, class_names)
            yield (
                f"A gate bounds {gate.metric} on {gate.slice}, and there is no such class."
                + (f" Did you mean {near!r}?" if near else "")
            )


def _find_fold_problems(folds: int, classes: Counter[str]) -> list[str]:
    """Refuse folds that a class of so few images, whatever the split leaves, cannot fill."""
    name = min(classes, key=lambda name: classes[name], default=None)
    if name is None or classes[name] >= folds:
        return []
    return [
        f"search.folds is {folds}, but class {name!r} has only "
        f"{format_count(classes[name], 'image')}. Lower it, or give more images."
    ]


def _find_component_problems(
    config: TrainingPipelineConfig, n_train: int, shape: ImageShape | None
) -> Iterator[str]:
    n_components, patches = config.transform.pca.n_components, config.transform.patches
    most = min(n_train - 1, pooled_dimension(shape)) if shape else n_train - 1
    if n_components is not None and n_components > most:
        of = f" of {pooled_dimension(shape)} values" if shape else ""
        yield (
            f"transform.pca.n_components is {n_components}, but {n_train} training images{of} have "
            f"at most {most} components. Lower it, leave it out, or give more images."
        )
    if shape is not None and patches.size > min(shape[:2]):
        yield (
            f"transform.patches.size is {patches.size} pixels, but images are only "
            f"{shape[0]}x{shape[1]}. Lower it."
        )
