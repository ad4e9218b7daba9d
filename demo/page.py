"""The demonstration as one HTML page without a script: a timeline of drift, performance, decisions and the swap."""

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

from churn.adapters.files import atomic_path
from demo.story import Story, gist
from demo.table import decided

WIDTH, HEIGHT, LEFT = 960, 150, 60
COLOURS = {"keep": "#2da44e", "warn": "#d4a72c", "retrain": "#cf222e", "data incident": "#8250df", "insufficient data": "#8c959f"}


def write_page(story: Story, path: Path, failure: str) -> None:
    """Write the page; `failure` says why the demonstration failed, empty if it did not."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(loader=PackageLoader("demo"), undefined=StrictUndefined, autoescape=True)
    page = environment.get_template("demo.html").render(
        story=story, failure=failure, timeline=timeline(story), summarised=summarised, colours=COLOURS
    )
    with atomic_path(path) as temporary:
        temporary.write_text(page)


def summarised(story: Story, number: int) -> list[tuple[str, int]]:
    """What the watcher decided in that month, and how often with the same reason but for its figures, which are the first's."""
    checks = decided(story, number)
    first = {gist(each): f"{each['decision']}: {each['reason']}" for each in reversed(checks)}
    return [(first[reason], times) for reason, times in Counter(map(gist, checks)).items()]


def timeline(story: Story) -> dict[str, Any]:
    """What the page draws, in its own coordinates: times across, values upwards."""
    moments = [_seconds(each["at"]) for each in (*story.checks, *story.months)]
    first, last = min(moments), max(moments)

    def x(at: str) -> float:
        return LEFT + (WIDTH - LEFT - 10) * (_seconds(at) - first) / max(last - first, 1)

    def y(value: float, low: float, high: float) -> float:
        return HEIGHT - 20 - (HEIGHT - 30) * (min(max(value, low), high) - low) / (high - low)

    worst = [(each, _worst(each)) for each in story.checks]
    months = [each for each in story.months if each["roc_auc"] is not None]
    low = min((min(each["roc_auc"], each["first_roc_auc"]) for each in months), default=0.8) // 0.05 * 0.05
    high = low + max(0.1, -(-(max((each["roc_auc"] for each in months), default=0.9) - low) // 0.05) * 0.05)

    def aucs(name: str, months: list[dict[str, Any]], who: str) -> list[tuple[float, float, str]]:
        return [
            (x(each["at"]), y(each[name], low, high), f"month {each['number']}, {who}: ROC-AUC {each[name]:.3f}")
            for each in months
        ]

    return {
        "width": WIDTH,
        "height": HEIGHT,
        "left": LEFT,
        "months": [(x(each["at"]), each["number"]) for each in story.months],
        "drift": [(x(each["at"]), y(found[1], 0, 1), f"{found[0]} PSI {found[1]:.2f}") for each, found in worst if found],
        "bound": y(0.2, 0, 1),
        "auc": aucs("roc_auc", months, "the version that answered"),
        "first_auc": aucs("first_roc_auc", [each for each in months if each["versions"] != months[0]["versions"]], "version 1"),
        "auc_grid": [(round(value, 2), y(value, low, high)) for value in (low, (low + high) / 2, high)],
        "psi_grid": [(value, y(value, 0, 1)) for value in (0, 0.5, 1)],
        "decisions": [
            (x(each["at"]), each["decision"], f"{each['at'][11:19]} {each['decision']}: {each['reason']}")
            for each in story.checks
        ],
        "retrainings": [(x(each["at"]), each.get("result", each["kind"])) for each in story.retrainings],
        "swaps": [
            (x(each["promoted_at"]), each["number"])
            for each in story.versions
            if each["promoted_at"] and _seconds(each["promoted_at"]) >= first
        ],
    }


def _worst(check: dict[str, Any]) -> tuple[str, float] | None:
    """The feature that moved most in the short window."""
    drift = check["windows"][0]["drift"]
    if not drift:
        return None
    name, value = max(((each["name"], each["value"]) for each in [*drift["features"], drift["score"]]), key=lambda each: each[1])
    return name, value


def _seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()
