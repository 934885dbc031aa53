"""The configurations of the training and the validation pipeline."""

from typing import Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from cv_factory.config.data import DataConfig
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.export import CalibrationConfig, ExportConfig, FamiliarityConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.model import MODEL_SECTIONS, ModelConfig
from cv_factory.config.model_section import NetworkSection
from cv_factory.config.register import RegisterConfig
from cv_factory.config.search import SearchConfig, check_space
from cv_factory.config.section import Section
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.config.validation import ValidationConfig


class ValidationPipelineConfig(Section):
    """The configuration of the validation pipeline."""

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    validation: ValidationConfig = ValidationConfig()

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return all settings that can change a result, as JSON values: not where data lies."""
        return {**self.model_dump(mode="json"), "data": self.data.fingerprint_fields()}


class TrainingPipelineConfig(Section):
    """The configuration of the training pipeline."""

    MODEL_NAME_KEY: ClassVar[str | None] = "register.model_name"
    # ZenML rebuilds a pipeline's parameters by the names of their fields, not by alias.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    validation: ValidationConfig = ValidationConfig()
    transform: TransformConfig = TransformConfig()
    model: ModelConfig = MODEL_SECTIONS["small_cnn"](name="small_cnn")
    train: TrainConfig = TrainConfig()
    search: SearchConfig | None = Field(
        None, description="looks for model and training settings; without the section, none"
    )
    calibration: CalibrationConfig = CalibrationConfig()
    familiarity: FamiliarityConfig = FamiliarityConfig()
    export: ExportConfig = ExportConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    gates: list[GateConfig] = Field([])
    # "register" is a method of pydantic's base class, hence the alias.
    registration: RegisterConfig = Field(RegisterConfig(), alias="register")

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

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return all settings that can change a result, as JSON values.

        That is not where data lies, nor how often a checkpoint is written.
        """
        return {
            **self.model_dump(mode="json", by_alias=True),
            "data": self.data.fingerprint_fields(),
            "train": self.train.fingerprint_fields(),
        }

    def predictor_fields(self) -> dict[str, Any]:
        """Return the part of ``fingerprint_fields`` that can change the predictor itself."""
        sections = "data split transform model train search calibration familiarity export"
        fields = self.fingerprint_fields()
        return {name: fields[name] for name in sections.split()}
