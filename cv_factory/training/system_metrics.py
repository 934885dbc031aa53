"""CPU, memory and GPU memory that a training uses."""

import psutil
import torch


class SystemMetrics:
    """CPU and memory use of this process since the last measurement."""

    def __init__(self, device: torch.device) -> None:
        """Start to count CPU time."""
        self._device = device
        self._process = psutil.Process()
        self._process.cpu_percent()

    def measure(self) -> dict[str, float]:
        """Return percent of one CPU since the last call, and memory in MB."""
        metrics = {
            "system_cpu_percent": self._process.cpu_percent(),
            "system_rss_mb": self._process.memory_info().rss / 1e6,
            "system_memory_percent": psutil.virtual_memory().percent,
        }
        if self._device.type == "cuda":
            metrics["system_gpu_mb"] = torch.cuda.max_memory_allocated(self._device) / 1e6
        return metrics
