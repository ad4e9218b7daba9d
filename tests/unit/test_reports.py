from datetime import UTC, datetime
from typing import Any

from churn.domain.version import Version
from churn.pipeline.reports import lineage_of, table_of_versions

CHAMPION = Version(
    number="10",
    created_at=datetime(2026, 2, 1, 12, 30, 59, tzinfo=UTC),
    aliases=("candidate", "production"),
    tags={
        "gate": "passed",
        "promoted_at": "2026-02-01T12:45:00+00:00",
        "git_sha": "abc123",
        "params": '{"train": {"seed": 7, "gradient_boosting": {"depths": [2, 3]}}}',
        "mlflow.user": "somebody",
    },
    metrics={"test.roc_auc": 0.84321, "test.log_loss": 0.41, "test.ece": 0.0123456789},
    run_id="run-10",
)


def version(number: str, **changed: Any) -> Version:
    plain: dict[str, Any] = {"aliases": (), "tags": {}, "metrics": {}, "run_id": "run", "created_at": CHAMPION.created_at}
    return Version(number=number, **plain | changed)


def test_a_table_has_a_line_per_version_under_its_header() -> None:
    header, line = table_of_versions([CHAMPION]).splitlines()

    assert header.split("  ")[0] == "version"
    assert line.split() == [
        *("10", "candidate,", "production", "0.8432", "0.4100", "0.0123", "passed"),
        *("2026-02-01", "12:30", "2026-02-01", "12:45"),
    ]


def test_columns_of_the_table_are_aligned() -> None:
    header, first, second = table_of_versions([CHAMPION, version("9", tags={"gate": "failed: ece"})]).splitlines()

    for column, cells in {"aliases": ("candidate", " "), "gate": ("passed", "failed"), "test.ece": ("0.0123", "-")}.items():
        start = header.index(column)
        assert first[start:].startswith(cells[0])
        assert second[start:].startswith(cells[1])


def test_versions_keep_the_given_order() -> None:
    lines = table_of_versions([version("11"), version("10"), version("9")]).splitlines()

    assert [line.split()[0] for line in lines] == ["version", "11", "10", "9"]


def test_a_version_without_an_evaluation_is_shown_as_not_evaluated() -> None:
    _, line = table_of_versions([version("3")]).splitlines()

    assert line.split() == ["3", "-", "-", "-", "not", "evaluated", "2026-02-01", "12:30", "-"]


def test_no_line_has_trailing_spaces() -> None:
    assert all(line == line.rstrip() for line in table_of_versions([CHAMPION, version("9")]).splitlines())


def test_an_empty_table_has_the_command_to_make_a_version() -> None:
    assert table_of_versions([]) == "no versions yet; run `make repro`"


def test_lineage_lists_the_origin_of_a_version() -> None:
    assert lineage_of(CHAMPION).splitlines() == [
        "version: 10",
        "made: 2026-02-01T12:30:59+00:00",
        "run: run-10",
        "gate: passed",
        "git_sha: abc123",
        "promoted_at: 2026-02-01T12:45:00+00:00",
        "params:",
        "  train:",
        "    seed: 7",
        "    gradient_boosting:",
        "      depths: [2, 3]",
        "metrics:",
        "  test.ece: 0.0123457",
        "  test.log_loss: 0.41",
        "  test.roc_auc: 0.84321",
    ]


def test_lineage_of_a_version_without_tags_has_empty_sections() -> None:
    assert lineage_of(version("3")).splitlines()[-2:] == ["params:", "metrics:"]
