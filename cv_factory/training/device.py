"""Device, precision and number of processes of a training, checked before it starts."""

import logging
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cv_factory.config.train import TrainConfig
from cv_factory.cpu import fitting_threads, read_cpu_flags
from cv_factory.errors import TrainingError

_log = logging.getLogger(__name__)

#: Instruction sets of x86 processors that multiply bf16; without them it is emulated.
_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
#: Below it, the difference may be that of two short measurements.
_MIN_SLOWDOWN = 1.5
#: Smaller images gain nothing from bf16: the layers' overhead is what takes the time.
_SMALLEST_BF16_SIDE = 16
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def select_device(config: TrainConfig) -> torch.device:
    """Return the device type to train on, without an index.

    Raises:
        TrainingError: There is no GPU for ``train.device=cuda``, the device does not support
            ``train.precision``, or there is no compiler for ``train.compile``.
    """
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise TrainingError(
            "train.device is cuda, but PyTorch sees no GPU on this machine. Set it to auto or cpu, "
            "or let the stack's step operator run the step where there is one."
        )
    device = torch.device("cuda" if has_gpu and config.device != "cpu" else "cpu")
    _check_precision(config, device)
    if config.compile and device.type == "cpu":
        _check_compiler()
    return device


def resolve_precision(
    config: TrainConfig, device: torch.device, size: tuple[int, int]
) -> TrainConfig:
    """Return the settings with bf16 or fp32, which the device computes fast, in place of auto.

    Nothing is timed: equal machines get equal weights, however busy they are.

    Args:
        config: Training settings.
        device: Of the training.
        size: Height and width of the network's input.
    """
    if config.precision != "auto":
        return config
    has_bf16 = bool(_BF16_FLAGS & read_cpu_flags()) if device.type == "cpu" else _has_bf16()
    precision = "bf16" if has_bf16 and min(size) >= _SMALLEST_BF16_SIDE else "fp32"
    return config.model_copy(update={"precision": precision})


def count_processes(config: TrainConfig, device: torch.device) -> int:
    """Return the number of processes on this machine: ``train.processes``, or one a GPU.

    Raises:
        TrainingError: ``train.processes`` is larger than the number of GPUs.
    """
    if device.type == "cpu":
        return config.processes or 1
    gpus = torch.cuda.device_count()
    if config.processes is not None and config.processes > gpus:
        raise TrainingError(
            f"train.processes is {config.processes}, but there are only {gpus} GPUs. "
            f"Set it to {gpus} or less."
        )
    return config.processes or gpus


def describe_device(device: torch.device, processes: int = 1, nodes: int = 1) -> str:
    """Format the device for a message, such as ``the CPU (2 threads)``."""
    name = "the CPU" if device.type == "cpu" else torch.cuda.get_device_name(device)
    if processes * nodes > 1:
        machines = f" on each of {nodes} machines" if nodes > 1 else ""
        plural = "es" if processes > 1 else ""
        return f"{name} ({processes} process{plural}{machines})"
    return f"{name} ({torch.get_num_threads()} threads)" if device.type == "cpu" else name


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return the autocast context of a forward pass in fp32, bf16 or fp16."""
    dtype = _DTYPES[precision]
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype)


def limit_threads(processes: int) -> None:
    """Let torch use no more threads than this process's share of the CPUs, of which it sees all."""
    torch.set_num_threads(min(torch.get_num_threads(), max(1, fitting_threads() // processes)))


def seed_layers(seed: int, device: torch.device) -> None:
    """Seed the random numbers of layers such as dropout.

    ``torch.manual_seed`` formats the stack for every kind of device, a twentieth of a small step.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def deterministic(seed: int, device: torch.device, *, compiled: bool) -> Iterator[None]:
    """Seed torch and, on a CPU, require deterministic kernels; restore both at the end.

    Memory is not filled before it is written, as torch would do for kernels that read it so: none
    of ours does, and it takes a twentieth of the time.
    On a GPU some kernels have no deterministic variant, and those that have one are slower: there
    two trainings agree but for rounding.
    """
    # Torch's public function imports the compiler, to tell it as well: a second.
    require = torch.use_deterministic_algorithms if compiled else _require_deterministic_kernels
    before = torch.are_deterministic_algorithms_enabled()
    fill = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    benchmark = torch.backends.cudnn.benchmark
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        require(device.type == "cpu")
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = device.type == "cuda"
        try:
            yield
        finally:
            require(before)
            torch.utils.deterministic.fill_uninitialized_memory = fill  # type: ignore[attr-defined]
            torch.backends.cudnn.benchmark = benchmark


def _require_deterministic_kernels(mode: bool) -> None:
    torch._C._set_deterministic_algorithms(mode, warn_only=False)


def _check_precision(config: TrainConfig, device: torch.device) -> None:
    """Try the precision on one small layer: what a CPU can do depends on its instructions."""
    if config.precision in ("auto", "fp32"):
        return
    try:
        layer = torch.nn.Conv2d(4, 4, 3).to(device)
        with autocast(device, config.precision):
            answer = layer(torch.zeros(1, 4, 8, 8, device=device))
        answer.float().sum().backward()
        supported = device.type == "cpu" or config.precision != "bf16" or _has_bf16()
    except RuntimeError:
        supported = False
    if not supported:
        raise TrainingError(
            f"train.precision is {config.precision}, which {describe_device(device)} does not "
            "support. Set it to fp32."
        )
    if device.type == "cpu" and (ratio := _measure_slowdown(config.precision)) > _MIN_SLOWDOWN:
        _log.warning(
            "train.precision is %s, with which this processor takes %.1f times as long as with "
            "fp32. Set it to auto or fp32.",
            *(config.precision, ratio),
        )


def _measure_slowdown(precision: str) -> float:
    """Return how many times as long as in fp32 two convolutions take on the CPU, with backward."""
    convolutions = torch.nn.Sequential(
        torch.nn.Conv2d(32, 32, 3, padding=1), torch.nn.Conv2d(32, 32, 3, padding=1)
    )
    images = torch.zeros(16, 32, 16, 16).contiguous(memory_format=torch.channels_last)

    def measure(name: str) -> float:
        start = time.perf_counter()
        with autocast(torch.device("cpu"), name):
            outputs = convolutions(images)
        outputs.float().sum().backward()
        return time.perf_counter() - start

    # The shortest of some runs: the first prepare the kernels, and other processes may interrupt.
    seconds = {name: min(measure(name) for _ in range(5)) for name in ("fp32", precision)}
    return seconds[precision] / seconds["fp32"]


def _check_compiler() -> None:
    compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
    if shutil.which(compiler) is None:
        raise TrainingError(
            f"train.compile needs a C++ compiler on the CPU, and {compiler} is not installed. "
            "Install it, name another one in CXX, or set train.compile to false."
        )


def _has_bf16() -> bool:
    # In emulation it is slower than fp32.
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def local_device(kind: str, local_rank: int) -> torch.device:
    """Return the device of one of this machine's processes."""
    if kind == "cpu":
        return torch.device("cpu")
    torch.cuda.set_device(local_rank)
    return torch.device("cuda", local_rank)
