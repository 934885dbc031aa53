"""Four versions of a model, and what the gates and an approver said of each."""

from tests.support.quick_settings import quick_training

GATES = (
    "gates=[{metric: accuracy, min: 0.3}, {metric: accuracy, max_drop_vs_production: 0.01},"
    " {metric: accuracy, min_gain_vs_production: 0.0}]"
)


def training(components: int, c: float = 1.0) -> list[str]:
    """A quick training run; more PCA components make a better model."""
    return quick_training(
        f"model.C={c}",
        f"transform.pca.n_components={components}",
        "register.manual_approval=true",
        GATES,
    )


#: The first version goes to production; of the others one is worse, one equal, one better.
COMMANDS = (
    training(8),
    ["promote", "1"],
    ["approve", "1", "--by", "Ada", "--reason", "read the card"],
    ["promote", "1", "--by", "Ada", "--reason", "first model"],
    training(3),
    training(8, c=1.05),
    training(32),
    ["approve", "4", "--by", "Ada", "--reason", "better beyond chance"],
)
