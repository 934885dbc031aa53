"""The training pipeline with a model and an evaluation that take next to no time."""

_SETTINGS = (
    "model.name=logistic_regression",
    "evaluate.bootstrap_samples=100",
    "evaluate.robustness_images=0",
    "evaluate.latency_runs=0",
    "evaluate.explained_per_class=0",
)


def quick_training(*settings: str) -> list[str]:
    """Return the arguments of run.py, with more settings such as ``gates=[]``."""
    words = [word for setting in (*_SETTINGS, *settings) for word in ("--set", setting)]
    return ["--pipeline", "training", *words]
