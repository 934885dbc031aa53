"""The names of everything that is measured of a predictor, and of what its data were found to be.

Gates name them, the evaluation computes them; this is the only list of them.
"""

from typing import Literal, get_args

#: More is better.
QualityMetric = Literal[
    "accuracy",
    "macro_precision",
    "macro_recall",
    "macro_f1",
    "top_k_accuracy",
    "roc_auc",
    "pr_auc",
]
#: Less is better.
LossMetric = Literal["log_loss", "brier", "expected_calibration_error"]
#: Mean accuracy over all corruptions, and share of images whose class survives a mirror image.
RobustnessMetric = Literal["corruption_accuracy", "flip_agreement"]
#: Measured by the evaluation beside the metrics: what a gate may bound from above.
CostMetric = Literal[
    "latency_ms_batch_1_p50",
    "latency_ms_batch_1_p95",
    "latency_ms_batch_32_p50",
    "latency_ms_batch_32_p95",
    "size_mb",
    "parameters",
    "operations",
    "accuracy_lost_to_precision",
]
#: Unmet expectations about the data, by severity.
DataMetric = Literal["data_errors", "data_warnings"]
#: What a gate may name.
GateMetric = Literal[QualityMetric, LossMetric, RobustnessMetric, CostMetric, DataMetric]

QUALITY_METRICS: tuple[str, ...] = get_args(QualityMetric)
LOSS_METRICS: tuple[str, ...] = get_args(LossMetric)
ROBUSTNESS_METRICS: tuple[str, ...] = get_args(RobustnessMetric)
DATA_METRICS: tuple[str, ...] = get_args(DataMetric)
#: Computed from labels and probabilities alone.
METRIC_NAMES = QUALITY_METRICS + LOSS_METRICS
