"""The end of the demonstration: one table of its months, and the two versions side by side."""

from typing import Any

from demo.story import Story


def table_of(story: Story) -> str:
    """Text for a terminal."""
    lines = ["", f"{'month':>5} {'customers':>9} {'version':>8} {'left':>6} {'ROC-AUC':>8} {'log loss':>9}  watcher"]
    for month in story.months:
        decisions = list(dict.fromkeys(each["decision"] for each in decided(story, month["number"])))
        left, auc, loss = (_number(month[name], digits) for name, digits in (("left", 3), ("roc_auc", 4), ("log_loss", 4)))
        versions = "+".join(month["versions"])
        lines.append(
            f"{month['number']:>5} {month['rows']:>9} {versions:>8} {left:>6} {auc:>8} {loss:>9}  {', '.join(decisions)}"
        )
    lines.append("")
    lines += [
        f"{each['name']}: {each.get('result', each['kind'])}: {each['reason']}" for each in story.retrainings if "name" in each
    ]
    if both := story.compared:
        lines += [
            "",
            f"on {both.rows} final labels of the months that version {both.new} answered:",
            f"  version {both.old}: ROC-AUC {both.old_auc:.4f}, log loss {both.old_log_loss:.4f}",
            f"  version {both.new}: ROC-AUC {both.new_auc:.4f}, log loss {both.new_log_loss:.4f}",
            f"  difference {both.difference:+.4f}, 95 % interval [{both.low:+.4f}, {both.high:+.4f}]",
        ]
    return "\n".join([*lines, ""])


def decided(story: Story, number: int) -> list[dict[str, Any]]:
    """The checks between the month's first prediction and the next month's."""
    starts = [month["at"] for month in story.months]
    start = starts[number - 1]
    end = starts[number] if number < len(starts) else "9"
    return [each for each in story.checks if start <= each["at"] < end]


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"
