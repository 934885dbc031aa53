"""Scores and hyperparameter importances of a search, as PNG."""

from collections.abc import Mapping, Sequence

from cv_factory.evaluation.plots.style import (
    BLUE,
    INK,
    LINE,
    get_class_color,
    render_png,
    set_heading,
    use_integer_ticks,
)


def search_history(
    scores: Sequence[float | None], model_families: Sequence[str], best: int, metric: str
) -> bytes:
    """Draw the score of every trial of a search.

    Args:
        scores: By trial; None of one that has none.
        model_families: By trial, the model's name.
        best: Index of the winner.
        metric: Name of the score.

    Returns:
        PNG.
    """
    names = sorted(set(model_families))
    with render_png(7.5, 3.8) as (figure, png):
        axis = figure.subplots()
        for place, name in enumerate(names):
            points = [
                (number, score)
                for number, (score, family) in enumerate(
                    zip(scores, model_families, strict=True), start=1
                )
                if family == name and score is not None
            ]
            color = get_class_color(place / max(1, len(names) - 1))
            axis.plot(*zip(*points, strict=True) if points else ((), ()), "o", color=color,
                      markersize=5, label=name)  # fmt: skip
        top = scores[best]
        assert top is not None, "the winner has a score"
        axis.axhline(top, color=LINE, zorder=0)
        axis.plot(best + 1, top, "o", markersize=11, markerfacecolor="none", color=INK)
        axis.set(xlabel="trial", ylabel=metric.replace("_", " "))
        set_heading(figure, f"Best of {len(scores)} trials: {model_families[best]}, {top:.4f}")
        use_integer_ticks(axis)
        axis.grid(axis="y")
        axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return png.getvalue()


def search_importances(importances: Mapping[str, Mapping[str, float]]) -> bytes:
    """Draw how much of the score's variance each setting explains, by model family.

    Args:
        importances: By model family, the share of each setting.

    Returns:
        PNG.
    """
    rows = [
        (f"{family}: {name}" if family != "all" else f"which {name}", share)
        for family, shares in importances.items()
        for name, share in sorted(shares.items(), key=lambda item: -item[1])
    ]
    with render_png(7.5, 0.32 * len(rows) + 1.2) as (figure, png):
        axis = figure.subplots()
        axis.barh([name for name, _ in rows], [100 * share for _, share in rows], color=BLUE)
        axis.invert_yaxis()
        axis.set(xlabel="share of the score's variance (%)")
        set_heading(figure, "What mattered: the family, and the settings within one")
        axis.grid(axis="x")
    return png.getvalue()
