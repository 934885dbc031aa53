"""The configurations of the training and the validation pipeline."""

from collections.abc import Iterator
from typing import Any, ClassVar

from pydantic import ConfigDict, Field, model_validator

from cv_factory.config.data import DataConfig
from cv_factory.config.evaluate import EvaluateConfig
from cv_factory.config.export import CalibrationConfig, ExportConfig, FamiliarityConfig
from cv_factory.config.features import FeaturesConfig
from cv_factory.config.gates import GateConfig
from cv_factory.config.model import MODEL_SECTIONS, ModelConfig
from cv_factory.config.model_section import NetworkSection
from cv_factory.config.register import RegisterConfig
from cv_factory.config.search import SearchConfig
from cv_factory.config.search_space import check_space
from cv_factory.config.section import Problem, Section, refuse
from cv_factory.config.split import SplitConfig
from cv_factory.config.train import TrainConfig
from cv_factory.config.transform import TransformConfig
from cv_factory.config.validation import ValidationConfig


class ValidationPipelineConfig(Section):
    """The configuration of the validation pipeline."""

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    validation: ValidationConfig = ValidationConfig()
    features: FeaturesConfig | None = Field(
        None,
        description="features of a pretrained backbone, by which labels are checked; without the "
        "section, they are not",
    )

    @model_validator(mode="after")
    def _check_combinations(self) -> "ValidationPipelineConfig":
        refuse(_find_limit_problems(self.data, self.validation))
        return self

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return all settings that can change a result, as JSON values: not where data lies."""
        fields = {**self.model_dump(mode="json"), "data": self.data.fingerprint_fields()}
        if self.features is None:
            del fields["features"]
        return fields


class TrainingPipelineConfig(Section):
    """The configuration of the training pipeline."""

    MODEL_NAME_KEY: ClassVar[str | None] = "register.model_name"
    # ZenML rebuilds a pipeline's parameters by the names of their fields, not by alias.
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    data: DataConfig = DataConfig()
    split: SplitConfig = SplitConfig()
    validation: ValidationConfig = ValidationConfig()
    transform: TransformConfig = TransformConfig()
    features: FeaturesConfig | None = Field(
        None,
        description="features of a pretrained backbone, on which a classical model is fitted; "
        "without the section, none",
    )
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
    def _check_combinations(self) -> "TrainingPipelineConfig":
        problems = [*_find_limit_problems(self.data, self.validation), *self._contradictions()]
        if "origin" in self.evaluate.slices and self.data.additional is None:
            message = "names origin, but no images are added: leave it out, or give data.additional"
            problems.append(Problem(("evaluate", "slices"), message))
        if self.search is not None:
            problems += check_space(self.search, self.model, self.train)
        refuse(problems)
        return self

    def _contradictions(self) -> Iterator[Problem]:
        """Yield settings that contradict each other, which a step would find out hours later."""
        for name in self.search.families if self.search else (self.model.name,):
            if self.export.is_reduced and not issubclass(MODEL_SECTIONS[name], NetworkSection):
                yield Problem(
                    ("export", "precision"),
                    f"is {self.export.precision}, and {name} is no network: leave it at float32",
                )
            if self.features is not None and issubclass(MODEL_SECTIONS[name], NetworkSection):
                yield Problem(
                    ("features",),
                    f"are for heads, and {name} is a network that is trained on pixels: remove the "
                    "section, or name a classical model, such as logistic_regression",
                )
        if self.features is not None and self.features.fine_tune:
            yield from self._find_fine_tuning_problems()
        if self.registration.deploy_after is not None and not self.applicable_gates:
            yield Problem(
                ("register", "deploy_after"),
                "deploys what has passed its gates, and there are none: give gates, or remove it",
            )
        for number, gate in enumerate(self.gates):
            message = self._find_unmeasured(gate) if self._is_applicable(gate) else ""
            if message:
                yield Problem(("gates", number), f"bounds {gate.metric}, {message}")

    def _find_fine_tuning_problems(self) -> Iterator[Problem]:
        if self.search is not None:
            yield Problem(
                ("search",),
                "would score heads on images that the fine-tuned backbone was trained on: remove "
                "the section, or set features.fine_tune=0",
            )
        processes = self.train.processes or 1
        if processes > 1:
            yield Problem(
                ("train", "processes"),
                f"is {processes}, and a backbone is fine-tuned in one process: leave it out",
            )

    @property
    def applicable_gates(self) -> list[GateConfig]:
        """The gates for images of any source, or of the one that is trained on."""
        return [gate for gate in self.gates if self._is_applicable(gate)]

    def _is_applicable(self, gate: GateConfig) -> bool:
        return gate.source in (None, self.data.source)

    def _find_unmeasured(self, gate: GateConfig) -> str:
        """Return why a gate's metric or slice would not be measured; empty if it is."""
        evaluate, metric = self.evaluate, gate.metric
        if gate.slice is not None and gate.slice.partition("=")[0] not in evaluate.slices:
            column = gate.slice.partition("=")[0]
            return f"on {gate.slice}, which is not measured: add {column} to evaluate.slices"
        if metric.startswith("latency_ms") and not evaluate.latency_runs:
            return "which evaluate.latency_runs=0 does not measure: raise it"
        needs = {
            "corruption_accuracy": (evaluate.robustness_images > 0, "robustness_images=0"),
            "flip_agreement": (evaluate.horizontal_flip, "horizontal_flip=false"),
        }
        if metric in needs and not needs[metric][0]:
            return f"which evaluate.{needs[metric][1]} does not measure: change it"
        if metric == "accuracy_lost_to_precision" and not self.export.is_reduced:
            return "which export.precision=float32 does not lose: remove the gate"
        if metric == "unfamiliar_share" and self.familiarity.method == "none":
            return "which familiarity.method=none does not measure: change it"
        return ""

    def fingerprint_fields(self) -> dict[str, Any]:
        """Return all settings that can change a result, as JSON values.

        That is not where data lies, nor how often a checkpoint is written.
        """
        fields = {
            **self.model_dump(mode="json", by_alias=True),
            "data": self.data.fingerprint_fields(),
            "train": self.train.fingerprint_fields(),
        }
        if self.features is None:
            # Predictors of earlier releases keep their fingerprint.
            del fields["features"]
        return fields

    def predictor_fields(self) -> dict[str, Any]:
        """Return the part of ``fingerprint_fields`` that can change the predictor itself."""
        sections = "data split transform features model train search calibration familiarity export"
        fields = self.fingerprint_fields()
        return {name: fields[name] for name in sections.split() if name in fields}


def _find_limit_problems(data: DataConfig, validation: ValidationConfig) -> Iterator[Problem]:
    if data.limit is not None and data.limit < validation.min_images:
        yield Problem(
            ("data", "limit"),
            f"is {data.limit}, and validation.min_images refuses fewer than "
            f"{validation.min_images}: raise the one or lower the other",
        )
