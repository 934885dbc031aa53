"""The configurations of the training and the validation pipeline."""

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from cv_factory.artifacts.files import fingerprint
from cv_factory.config.data import DataConfig
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.export import CalibrationConfig, ExportConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.model import ModelConfig, NetworkSection, SmallCNNConfig
from cv_factory.config.orchestration import ZenMLConfig, check_steps
from cv_factory.config.register import RegisterConfig
from cv_factory.config.search import SearchConfig, check_space
from cv_factory.config.section import Section
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.config.validation import ValidationConfig

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
