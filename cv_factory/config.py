"""The schemas of the pipeline configurations: what may be asked for, and within which bounds.

Every model forbids unknown keys and coerces nothing, so that a misspelt or mistyped setting is an
error instead of a default. Reading the YAML is ``cv_factory.config_file``'s job.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from cv_factory.artifact_files import fingerprint
from cv_factory.config_data import DataConfig as DataConfig
from cv_factory.config_export import ExportConfig as ExportConfig
from cv_factory.config_model import BackboneSection as BackboneSection
from cv_factory.config_model import ClassicalSection as ClassicalSection
from cv_factory.config_model import EfficientNetLite0Config as EfficientNetLite0Config
from cv_factory.config_model import LightGBMConfig as LightGBMConfig
from cv_factory.config_model import LogisticRegressionConfig as LogisticRegressionConfig
from cv_factory.config_model import MLPConfig as MLPConfig
from cv_factory.config_model import MobileNetV2Config as MobileNetV2Config
from cv_factory.config_model import ModelConfig as ModelConfig
from cv_factory.config_model import NetworkSection as NetworkSection
from cv_factory.config_model import PatchPCAConfig as PatchPCAConfig
from cv_factory.config_model import PCAConfig as PCAConfig
from cv_factory.config_model import RandomForestConfig as RandomForestConfig
from cv_factory.config_model import ResNet18Config as ResNet18Config
from cv_factory.config_model import SmallCNNConfig as SmallCNNConfig
from cv_factory.config_model import TorchvisionModelConfig as TorchvisionModelConfig
from cv_factory.config_model import TransformConfig as TransformConfig
from cv_factory.config_model import UMAPConfig as UMAPConfig
from cv_factory.config_model import WhitenedCNNConfig as WhitenedCNNConfig
from cv_factory.config_model import XGBoostConfig as XGBoostConfig
from cv_factory.config_search import SearchConfig as SearchConfig
from cv_factory.config_search import check_space
from cv_factory.config_section import Fraction, RegisteredName, Seed
from cv_factory.config_section import Section as Section
from cv_factory.config_train import TrainConfig as TrainConfig
from cv_factory.metric_names import (
    DATA_METRICS,
    LOSS_METRICS,
    QUALITY_METRICS,
    ROBUSTNESS_METRICS,
    GateMetric,
)


def _check_part_size(size: float) -> float:
    if 0.0 < size < 1.0:
        return size
    if size < 2 or not float(size).is_integer():
        raise ValueError("a share above 0 and below 1, such as 0.2, or a number of images from 2")
    return int(size)


PartSize = Annotated[
    int | float,
    AfterValidator(_check_part_size),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 1},
                {"type": "integer", "minimum": 2},
            ]
        }
    ),
]


class SplitConfig(Section):
    """How images are divided into train, validation and test."""

    seed: Seed = 0
    validation: PartSize = Field(
        0.2, description="share of the images (0.2), or how many of them (500)"
    )
    test: PartSize = Field(0.2, description="as validation; unused with an official test split")
    keep_official_test: bool = Field(
        True, description="use the source's own test split, and validation split, where it has one"
    )

    @model_validator(mode="after")
    def _check_sum(self) -> "SplitConfig":
        shares = sum(size for size in (self.validation, self.test) if isinstance(size, float))
        if shares >= 1.0:
            raise ValueError(
                f"validation + test is {shares:g}: nothing is left to train on (keep it below 1)"
            )
        return self


ExpectationName = Literal[
    "brightness",
    "class_imbalance",
    "class_shares_as_reference",
    "contrast",
    "duplicate_pixels",
    "image_aspect",
    "image_side",
    "label_conflicts",
    "labels_as_reference",
    "min_images",
    "min_images_per_class",
    "near_duplicates",
    "no_group_leakage",
    "no_leakage",
    "sharpness",
    "statistics_as_reference",
]


class ValidationConfig(Section):
    """What a dataset must fulfil before anything is fitted on it."""

    min_images: int = Field(20, ge=1)
    min_images_per_class: int = Field(5, ge=1)
    max_class_imbalance: float = Field(
        20.0, ge=1.0, description="largest class / smallest class; above it is a warning"
    )
    max_duplicate_share: Fraction = Field(
        0.05, description="share of images whose pixels stand in the dataset twice; a warning"
    )
    brightness: list[Fraction] = Field(
        [0.01, 0.99], min_length=2, max_length=2, description="mean pixel value / 255; a warning"
    )
    contrast: list[Fraction] = Field(
        [0.005, 1.0], min_length=2, max_length=2, description="standard deviation / 255; a warning"
    )
    sharpness: list[Fraction] = Field(
        [0.001, 1.0], min_length=2, max_length=2, description="mean |Laplacian| / 1020; a warning"
    )
    side: list[Annotated[int, Field(ge=1)]] = Field(
        [4, 20_000], min_length=2, max_length=2, description="pixels of the original; a warning"
    )
    max_aspect_ratio: float = Field(
        10.0, ge=1.0, description="longer side / shorter side of the original; a warning"
    )
    near_duplicate_bits: int = Field(
        2, ge=0, le=15, description="perceptual hashes of 64 bits that differ in no more are alike"
    )
    max_near_duplicate_share: Fraction = Field(
        0.1, description="share of images that look like one in another part; a warning"
    )
    reference: str | None = Field(
        None,
        min_length=1,
        description="dataset to compare with: name, or id, of a stored 'dataset' artifact version",
    )
    max_reference_shift: float = Field(
        0.5, gt=0.0, description="of a mean, in the reference's standard deviations; a warning"
    )
    max_class_share_shift: Fraction = Field(
        0.1, description="of a class's share of the images, against the reference; a warning"
    )
    severity: dict[ExpectationName, Literal["error", "warning", "off"]] = Field(
        {}, description="by expectation, such as label_conflicts: error"
    )


class CalibrationConfig(Section):
    """Whether probabilities are calibrated on the validation images before export."""

    method: Literal["none", "temperature"] = Field(
        "none", description="temperature: one number that sharpens or softens all probabilities"
    )


class EvaluateConfig(Section):
    """How the exported predictor is measured on the test split."""

    bootstrap_samples: int = Field(1000, ge=100, le=100_000)
    confidence: float = Field(0.95, gt=0.5, lt=1.0)
    seed: Seed = 0
    top_k: int = Field(3, ge=2, le=100, description="for the top-k accuracy")
    calibration_bins: int = Field(15, ge=2, le=100)
    slices: list[str] = Field(
        ["class", "size", "brightness", "contrast", "sharpness"],
        description="class, size, or any column of the manifest; numbers are cut into quantiles",
    )
    slice_quantiles: int = Field(4, ge=2, le=20)
    min_slice_images: int = Field(
        20, ge=1, description="smaller slices are shown, but neither ranked nor gated"
    )
    robustness_images: int = Field(
        500, ge=0, description="test images that are corrupted and scored again; 0 for none"
    )
    horizontal_flip: bool = Field(False, description="labels survive a mirror image: check it")
    latency_runs: int = Field(50, ge=0, le=10_000, description="timed calls; 0 for none")
    explained_per_class: int = Field(
        1, ge=0, le=8, description="right and wrong images of each class that are explained"
    )


_BOUNDS = ("min", "max", "max_drop_vs_production", "min_gain_vs_production")


class GateConfig(Section):
    """One condition that a model must meet to be staged; exactly one bound is given."""

    metric: GateMetric
    min: float | None = Field(
        None, ge=0.0, le=1.0, description="absolute: the metric must be at least this"
    )
    max: float | None = Field(
        None, ge=0.0, description="absolute: the loss, cost or count must be at most this"
    )
    max_drop_vs_production: float | None = Field(
        None,
        ge=0.0,
        description="relative: fails where the metric lies further below production's, on the same "
        "test images, and the difference is beyond chance",
    )
    min_gain_vs_production: float | None = Field(
        None,
        ge=0.0,
        description="relative: fails unless the metric lies this far above production's, on the "
        "same test images, and the difference is beyond chance",
    )
    slice: str | None = Field(
        None,
        min_length=1,
        description="COLUMN=VALUE (class=cat), or COLUMN for the worst slice of it",
    )
    explained: dict[str, str] = Field(
        {}, description="data_errors, data_warnings: expectations that may fail, with the reason"
    )

    @model_validator(mode="after")
    def _check_bound(self) -> "GateConfig":
        given = [name for name in _BOUNDS if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"give exactly one of {', '.join(map(repr, _BOUNDS))}")
        is_compared = self.metric in QUALITY_METRICS + LOSS_METRICS
        more_is_better = self.metric in QUALITY_METRICS + ROBUSTNESS_METRICS
        if given[0].endswith("vs_production") and not is_compared:
            raise ValueError(f"{self.metric} is not compared with production; give 'min' or 'max'")
        if given[0] in ("min", "max") and (given[0] == "min") != more_is_better:
            right = "min" if more_is_better else "max"
            raise ValueError(f"{self.metric} is bounded by {right!r}, not by {given[0]!r}")
        if self.slice is not None and self.metric not in ("accuracy", "log_loss"):
            raise ValueError("on slices, 'accuracy' and 'log_loss' are measured")
        if self.explained and self.metric not in DATA_METRICS:
            raise ValueError(f"'explained' belongs to {' and '.join(DATA_METRICS)}")
        return self

    @property
    def bound(self) -> tuple[str, float]:
        """Name and value of the one bound."""
        name = next(name for name in _BOUNDS if getattr(self, name) is not None)
        return name, float(getattr(self, name))


class RegisterConfig(Section):
    """Under which name the model is registered, and what promotion needs."""

    model_name: RegisteredName = "cv_factory"
    manual_approval: bool = Field(
        False, description="production needs: run.py approve VERSION --by NAME --reason ..."
    )


class StepResources(Section):
    """What one step asks for; which machine that is, the stack decides."""

    cpu_count: float | None = Field(None, gt=0)
    gpu_count: int | None = Field(None, ge=0)
    memory: str | None = Field(None, pattern=r"^[0-9]+(KB|KiB|MB|MiB|GB|GiB|TB|TiB)$")


class ZenMLConfig(Section):
    """ZenML's own settings of the run."""

    enable_cache: bool = True
    run_name: str | None = Field(None, min_length=1)
    tags: list[str] = Field([])
    resources: dict[str, StepResources] = Field(
        {}, description="by step name, such as train: {gpu_count: 1}"
    )


def check_steps(zenml: ZenMLConfig, steps: tuple[str, ...]) -> None:
    """Refuse settings of a step that the pipeline does not have.

    Raises:
        ValueError: Names the steps that it has.
    """
    for name in zenml.resources:
        if name not in steps:
            raise ValueError(f"zenml.resources names {name!r}; the steps are {', '.join(steps)}")


TRAINING_STEPS = (
    "ingest",
    "split",
    "validate_data",
    "fit_transform",
    "search",
    "train",
    "export_float",
    "export",
    "evaluate",
    "register",
)


VALIDATION_STEPS = TRAINING_STEPS[:3]


class ValidationPipelineConfig(Section):
    """Everything that the validation pipeline can be told."""

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    validation: ValidationConfig = ValidationConfig()
    zenml: ZenMLConfig = ZenMLConfig()

    @model_validator(mode="after")
    def _check_step_names(self) -> "ValidationPipelineConfig":
        check_steps(self.zenml, VALIDATION_STEPS)
        return self

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that can change a result (not caching, nor where data lies)."""
        content = self.model_dump(mode="json", exclude={"zenml": True})
        return fingerprint({**content, "data": self.data.without_location()})


class TrainingPipelineConfig(Section):
    """Everything that the training pipeline can be told."""

    # ZenML rebuilds a pipeline's parameters by the names of their fields, not by alias.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    validation: ValidationConfig = ValidationConfig()
    transform: TransformConfig = TransformConfig()
    model: ModelConfig = SmallCNNConfig()
    train: TrainConfig = TrainConfig()
    search: SearchConfig | None = Field(
        None, description="looks for model and training settings; without the section, none"
    )
    calibration: CalibrationConfig = CalibrationConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gates: list[GateConfig] = Field([])
    # "register" is a method of pydantic's base class, hence the alias.
    registration: RegisterConfig = Field(RegisterConfig(), alias="register")
    zenml: ZenMLConfig = ZenMLConfig()

    @model_validator(mode="after")
    def _check_step_names(self) -> "TrainingPipelineConfig":
        check_steps(self.zenml, TRAINING_STEPS)
        return self

    @model_validator(mode="after")
    def _check_search(self) -> "TrainingPipelineConfig":
        if self.search is not None:
            check_space(self.search, self.model, self.train)
        return self

    @model_validator(mode="after")
    def _check_precision(self) -> "TrainingPipelineConfig":
        # What a search finds may be a network, whatever is named here.
        is_known = self.search is None
        if self.export.is_reduced and is_known and not isinstance(self.model, NetworkSection):
            raise ValueError(
                f"export.precision is {self.export.precision}, and {self.model.name} is no "
                "network: leave it at float32"
            )
        return self

    def fingerprint(self) -> str:
        """Return the SHA-256 of all that can change a result.

        That is not caching, nor where data lies, nor how often a checkpoint is written.
        """
        return fingerprint(self._shaping())

    def predictor_fingerprint(self) -> str:
        """Return the SHA-256 of the sections that shape the predictor itself."""
        content = self._shaping()
        shaping = (
            "data",
            "split",
            "transform",
            "model",
            "train",
            "search",
            "calibration",
            "export",
        )
        return fingerprint({name: content[name] for name in shaping})

    def _shaping(self) -> dict[str, Any]:
        content = self.model_dump(mode="json", by_alias=True, exclude={"zenml": True})
        return {**content, "data": self.data.without_location(), "train": self.train.shaping()}
