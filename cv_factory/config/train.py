"""The section ``train``: how a network is optimized, on which device, and how often it is saved."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from cv_factory.config.section import Section, Seed

#: Bounds of a batch whose size is not given, and the steps that an epoch is to have then.
_SMALLEST_BATCH, _LARGEST_BATCH, _LEAST_STEPS = 16, 256, 16


class TrainConfig(Section):
    """Training of a network; classical models use seed and class weights alone."""

    seed: Seed = 0
    epochs: int = Field(9, ge=1, le=10_000)
    batch_size: Annotated[int, Field(ge=2, le=65_536)] | None = Field(
        None,
        description="images a step, over all processes and nodes together; null: a power of two "
        "from 16 to 256 that makes 16 steps an epoch or more, and no more than there are",
    )
    accumulate: int = Field(
        1, ge=1, le=1024, description="parts that a batch is worked off in, to save memory"
    )
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="sgd: with Nesterov momentum")
    momentum: float = Field(0.9, ge=0.0, lt=1.0, description="of sgd")
    learning_rate: float = Field(4e-3, gt=0.0, le=10.0, description="the highest of the schedule")
    schedule: Literal["one_cycle", "cosine", "linear", "constant"] = "one_cycle"
    warmup: float = Field(
        0.3, ge=0.0, lt=1.0, description="share of all steps in which the learning rate rises"
    )
    weight_decay: float = Field(0.01, ge=0.0, le=1.0)
    clip_norm: float | None = Field(
        None, gt=0.0, description="longest gradient, as the norm over all parameters"
    )
    label_smoothing: float = Field(0.1, ge=0.0, lt=1.0)
    class_weights: Literal["none", "balanced"] = Field(
        "none", description="balanced: a class counts as much as another, however many images"
    )
    ema_decay: float | None = Field(
        None,
        gt=0.0,
        lt=1.0,
        description="of the moving average of the weights that becomes the model",
    )
    early_stopping: int | None = Field(
        None, ge=1, description="epochs without a better validation accuracy, after which to stop"
    )
    crop_padding: int = Field(
        2, ge=0, le=64, description="pixels of padding for the random crop; 0 for none"
    )
    horizontal_flip: bool = Field(False, description="labels must survive a mirror image")
    flip: Literal["random", "alternating"] = Field(
        "random", description="alternating: every second epoch each image is mirrored"
    )
    cutout: int = Field(
        0, ge=0, le=512, description="side of a square that is blanked out, in pixels; 0 for none"
    )
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="auto: bf16 for images of 16 pixels and more where the processor or GPU has "
        "instructions for it, else fp32",
    )
    compile: bool = Field(False, description="torch.compile: needs a C++ compiler, or a GPU")
    channels_last: bool = True
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="auto: a GPU if there is one"
    )
    processes: int | None = Field(
        None, ge=1, le=64, description="on each machine; default: one a GPU, or one on the CPU"
    )
    resident_mb: int = Field(
        2048,
        ge=0,
        description="images up to this size stay on the device; larger sets are streamed",
    )
    checkpoint_seconds: float = Field(
        60.0, ge=0.0, description="least time between two checkpoints"
    )
    keep_checkpoints: int = Field(2, ge=1, le=100)

    @model_validator(mode="after")
    def _check_combinations(self) -> "TrainConfig":
        if self.batch_size is not None and self.accumulate > self.batch_size:
            raise ValueError(
                f"accumulate is {self.accumulate}, but batch_size is only {self.batch_size}"
            )
        if self.flip == "alternating" and not self.horizontal_flip:
            raise ValueError(
                "flip says how images are mirrored: set horizontal_flip to true as well"
            )
        return self

    def choose_batch_size(self, n_train: int) -> int:
        """Return ``batch_size`` or, where it is not given, one that suits the training images."""
        if self.batch_size is not None:
            return self.batch_size
        # The largest power of two up to a sixteenth of the images.
        power = 1 << max(0, (n_train // _LEAST_STEPS).bit_length() - 1)
        least = 2 * self.accumulate * (self.processes or 1)
        return max(2, min(n_train, max(_SMALLEST_BATCH, least, min(power, _LARGEST_BATCH))))

    def resolve(self, n_train: int) -> "TrainConfig":
        """Return the settings with which ``n_train`` images are trained on."""
        return self.model_copy(update={"batch_size": self.choose_batch_size(n_train)})

    def fingerprint_fields(self) -> dict[str, object]:
        """Return the settings that can change the weights, as JSON values."""
        housekeeping = {"resident_mb", "checkpoint_seconds", "keep_checkpoints"}
        return self.model_dump(mode="json", exclude=housekeeping)
