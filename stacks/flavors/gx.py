"""Data validator flavor ``gx``: Great Expectations 1.x behind ZenML's interface.

ZenML's own flavor requires a version below 1.0. ``cv_factory.data.validation`` holds the
expectations; this connects them to the stack.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from zenml.data_validators import BaseDataValidator, BaseDataValidatorFlavor
from zenml.data_validators.base_data_validator import BaseDataValidatorConfig

if TYPE_CHECKING:
    from cv_factory.config.validation import ValidationConfig
    from cv_factory.curation.data_issues import DataIssues
    from cv_factory.data.dataset import ImageDataset
    from cv_factory.data.split import Split
    from cv_factory.data.validation.report import DataReport


class GXDataValidatorConfig(BaseDataValidatorConfig):
    """Empty: limits belong to the pipeline's configuration."""


class GXDataValidatorFlavor(BaseDataValidatorFlavor):
    """Flavor ``gx``."""

    @property
    def name(self) -> str:
        """Name of the flavor."""
        return "gx"

    @property
    def config_class(self) -> type[GXDataValidatorConfig]:
        """Configuration class."""
        return GXDataValidatorConfig

    @property
    def implementation_class(self) -> "type[GXDataValidator]":
        """Implementation class."""
        return GXDataValidator


class GXDataValidator(BaseDataValidator):
    """Validates an ImageDataset and its Split."""

    NAME: ClassVar[str] = "Great Expectations 1.x"
    FLAVOR: ClassVar[type[BaseDataValidatorFlavor]] = GXDataValidatorFlavor

    def data_validation(
        self,
        dataset: "ImageDataset",
        comparison_dataset: Any = None,
        check_list: Sequence[Any] | None = None,
        **kwargs: Any,
    ) -> "DataReport":
        """Check the dataset and its split against the expectations.

        Args:
            dataset: The ImageDataset to validate.
            comparison_dataset: An earlier ImageDataset as reference.
            check_list: Names of the expectations to check; None for all.
            **kwargs: ``split``, the division of the dataset, ``config``, the limits, and
                optionally ``data_issues``, the DataIssues of the dataset.

        Raises:
            ConfigError: ``check_list`` names an expectation that does not exist.
            DataError: An expectation could not be evaluated.
        """
        from cv_factory.data.validation.great_expectations import Reference, validate_dataset

        split: Split = kwargs["split"]
        config: ValidationConfig = kwargs["config"]
        data_issues: DataIssues | None = kwargs.get("data_issues")
        if check_list is not None:
            config = _select_expectations(config, check_list)
        return validate_dataset(
            dataset.manifest,
            class_names=dataset.class_names,
            split=dict(split.items()),
            config=config,
            unreadable=[(image.id, image.reason) for image in dataset.unreadable],
            notices=dataset.notices,
            images=dataset.images,
            reference=Reference(comparison_dataset.manifest, comparison_dataset.class_names)
            if comparison_dataset is not None
            else None,
            stored_values=dataset.stored_values,
            issues=None if data_issues is None else data_issues.issues,
            issue_thumbnails=None if data_issues is None else data_issues.thumbnails,
        )


def _select_expectations(config: "ValidationConfig", names: Sequence[str]) -> "ValidationConfig":
    """Return the configuration with all expectations off but those named.

    Raises:
        ConfigError: There is no such expectation.
    """
    from cv_factory.config.suggestion import suggest
    from cv_factory.config.validation import ExpectationName
    from cv_factory.errors import ConfigError

    valid = get_args(ExpectationName)
    for name in names:
        if name not in valid:
            raise ConfigError(f"There is no expectation {name!r}. {suggest(name, valid)}")
    off = dict.fromkeys(set(valid).difference(names), "off")
    return config.model_copy(update={"severity": {**config.severity, **off}})
