"""Pictures and tables of a model's quality: PNG for people and MLflow, CSV for `dvc plots`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from churn.adapters.files import atomic_path
from churn.domain import metrics
from churn.domain.metrics import Labels, Probabilities

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = ("#0969da", "#9a6700", "#cf222e")


@contextmanager
def _axes(path: Path, title: str, x: str, y: str) -> Iterator["Axes"]:
    """Axes to draw on; saved as PNG at `path` when the block ends."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4.5), dpi=110, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    yield axes
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _table(frame: pd.DataFrame, path: Path) -> None:
    with atomic_path(path) as temporary:
        frame.round(6).to_csv(temporary, index=False)


def roc(y: Labels, models: dict[str, Probabilities], *, png: Path, csv: Path) -> None:
    """ROC curves; the CSV has the first model's."""
    from sklearn.metrics import roc_curve

    _curves(models, lambda p: roc_curve(y, p)[:2], ("false_positive_rate", "true_positive_rate"), "ROC", png, csv)


def precision_recall(y: Labels, models: dict[str, Probabilities], *, png: Path, csv: Path) -> None:
    """Precision over recall; the CSV has the first model's."""
    from sklearn.metrics import precision_recall_curve

    def curve(p: Probabilities) -> tuple[Any, Any]:
        precision, recall, _ = precision_recall_curve(y, p)
        return recall, precision

    _curves(models, curve, ("recall", "precision"), "Precision and recall", png, csv)


def calibration(y: Labels, models: dict[str, Probabilities], *, png: Path, csv: Path) -> None:
    """Observed churn rate over predicted probability in ten bins of equal count; the CSV has the first model's."""

    def curve(p: Probabilities) -> tuple[Any, Any]:
        points = metrics.calibration_curve(y, p)
        return points[:, 0], points[:, 1]

    _curves(models, curve, ("predicted_probability", "observed_churn_rate"), "Calibration", png, csv)


def lift(y: Labels, models: dict[str, Probabilities], *, png: Path, csv: Path) -> None:
    """Lift over the share of customers contacted; the CSV has the first model's."""
    shares = np.arange(0.05, 1.001, 0.05)

    def curve(p: Probabilities) -> tuple[Any, Any]:
        return shares, [metrics.lift(y, p, share) for share in shares]

    _curves(models, curve, ("share_contacted", "lift"), "Lift", png, csv)


def _curves(
    models: dict[str, Probabilities],
    curve: Callable[[Probabilities], tuple[Any, Any]],
    names: tuple[str, str],
    title: str,
    png: Path,
    csv: Path,
) -> None:
    points = {name: curve(p) for name, p in models.items()}
    with _axes(png, title, *(name.replace("_", " ") for name in names)) as axes:
        for index, ((name, (x, values)), colour) in enumerate(zip(points.items(), COLOURS, strict=False)):
            axes.plot(x, values, label=name, color=colour, linewidth=1.6, zorder=9 - index)
        if title in ("ROC", "Calibration"):
            axes.plot([0, 1], [0, 1], color="#8c959f", linestyle="--", linewidth=1)
    _table(pd.DataFrame(dict(zip(names, next(iter(points.values())), strict=True))), csv)


def confusion(y: Labels, p: Probabilities, threshold: float, *, png: Path, csv: Path) -> None:
    """Who is flagged at the threshold against who churned; the CSV has one row per customer, as `dvc plots` wants it."""
    flagged = p >= threshold
    counts = np.array(
        [[int((~y & ~flagged).sum()), int((~y & flagged).sum())], [int((y & ~flagged).sum()), int((y & flagged).sum())]]
    )
    with _axes(png, f"Confusion at threshold {threshold:.3f}", "decision", "outcome") as axes:
        axes.imshow(counts, cmap="Blues")
        axes.grid(visible=False)
        axes.set_xticks([0, 1], ["left alone", "contacted"])
        axes.set_yticks([0, 1], ["stayed", "churned"])
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if count > counts.max() / 2 else "black"
            axes.text(column, row, f"{count}", ha="center", va="center", color=colour, fontsize=14)
    words = {"actual": np.where(y, "churned", "stayed"), "predicted": np.where(flagged, "churned", "stayed")}
    _table(pd.DataFrame(words), csv)


def importance(names: tuple[str, ...], values: Any, *, png: Path, csv: Path) -> None:
    """Each feature's importance, largest first; the picture shows fifteen."""
    table = pd.DataFrame({"feature": names, "importance": values}).sort_values(["importance", "feature"], ascending=[False, True])
    shown = table.head(15).iloc[::-1]
    with _axes(png, "Importance", "share", "") as axes:
        axes.barh(shown["feature"], shown["importance"], color=COLOURS[0])
    _table(table, csv)


def loss(steps: Any, *, png: Path, csv: Path) -> None:
    """Log loss (steps, 2) per step of learning, on training rows and on a held-out fold."""
    table = pd.DataFrame(np.asarray(steps), columns=["train", "held_out"])
    table.insert(0, "step", range(1, len(table) + 1))
    with _axes(png, "Log loss per boosting step", "step", "log loss") as axes:
        for name, colour in zip(("train", "held_out"), COLOURS, strict=False):
            axes.plot(table["step"], table[name], label=name.replace("_", " "), color=colour, linewidth=1.6)
    _table(table, csv)
