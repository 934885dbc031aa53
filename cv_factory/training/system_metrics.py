"""What a training takes of the machine: processor, memory and graphics memory."""

import psutil
import torch


class SystemMetrics:
    """Measures this process and those that it started, from one call to the next."""

    def __init__(self, device: torch.device) -> None:
        """Begin to count processor time."""
        self._device = device
        self._process = psutil.Process()
        self._process.cpu_percent()

    def take(self) -> dict[str, float]:
        """Return percent of one CPU since the last call, and memory in MB."""
        metrics = {
            "system_cpu_percent": self._process.cpu_percent(),
            "system_rss_mb": self._process.memory_info().rss / 1e6,
            "system_memory_percent": psutil.virtual_memory().percent,
        }
        if self._device.type == "cuda":
            metrics["system_gpu_mb"] = torch.cuda.max_memory_allocated(self._device) / 1e6
        return metrics
