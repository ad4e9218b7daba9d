"""Which roles, names and kinds `churn init` proposes for columns."""

import dataclasses
import errno
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from churn.adapters.sources.whole import Whole
from churn.adopt import code, init
from churn.adopt.columns import RawColumn, named, snake_case
from churn.adopt.definitions import CONTRACT
from churn.adopt.draft import LeftOut, draft, text
from churn.adopt.roles import Wanted, choose
from churn.errors import ConfigError

N = 400
LABEL = ["Yes", "No", "No", "No"] * (N // 4)
IDS = [f"c{each}" for each in range(N)]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
OBVIOUS = Wanted()


def columns(*, repairable: bool = True, **values: Any) -> list[RawColumn]:
    return [RawColumn(name, pa.array(each), repairable=repairable) for name, each in values.items()]


def proposed(values: Any, *, name: str = "x", repairable: bool = True) -> str:
    """The kind that is proposed for a column beside an entity and a label, or the reason to leave it out."""
    table = columns(repairable=repairable, customer_id=[f"c{each}" for each in range(N)], churned=LABEL, **{name: values})
    (found,) = draft(table, choose(table, Wanted(), None), now=datetime(2026, 11, 1, tzinfo=UTC)).features
    return f"left out: {found.reason}" if isinstance(found, LeftOut) else found.kind


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("TotalCharges", "total_charges"),
        ("Überziehung (€)", "ueberziehung_eur"),
        ("customerID", "customer_id"),
        ("2nd line", "column_2nd_line"),
        ("a-b.c", "a_b_c"),
        ("日本", "column"),
    ],
)
def test_a_raw_name_becomes_snake_case(raw: str, name: str) -> None:
    assert snake_case(raw) == name


def test_names_are_unique_and_free() -> None:
    raws = ["Plan", "plan", "class", "time", "Churn", "model_fields"]

    names = named(raws)

    assert names["plan"] == "plan"
    assert len(set(names.values())) == len(raws)
    assert not {"class", "time", "churn", "model_fields"} & set(names.values())
    assert names["Churn"] == "churned"


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([str(each % 13) for each in range(N)], "Integer(0, 50)"),
        ([f"{each % 13 / 4}" for each in range(N)], "Real(0, 10)"),
        ([each % 13 - 6.5 for each in range(N)], "Real(-20, 20)"),
        ([2000 + each % 20 for each in range(N)], "Integer(1900, 2100)"),
        (["TRUE", "FALSE", "TRUE", "TRUE", "FALSE"] * (N // 5), 'Flag("TRUE", "FALSE")'),
        ([True, False, True, True, False] * (N // 5), "Flag()"),
        ([1, 0, 1, 1, 0] * (N // 5), 'Flag("1", "0")'),
        (["red", "it's", "blue", 'a "b"', "red"] * (N // 5), """Category(('a "b"', "blue", "it's", "red"))"""),
        ([f"{each % 7:03d}" for each in range(N)], "Category"),
        ([f"city {each % 45}" for each in range(N)], "Grouped(commonest=20)"),
        (["same"] * N, "left out: constant"),
        ([None] * N, "left out: empty"),
        ([[1]] * N, "left out: values of the type"),
        (np.arange(N).astype("timedelta64[s]"), "left out: values of the type"),
        (
            np.resize(np.array(["9999-12-31", "2020-01-01"], dtype="datetime64[s]"), N),
            "left out: a date before 1678 or after 2261",
        ),
        ([1e300 * each for each in range(N)], "left out: larger than the model's numbers"),
        (["1e400", *map(str, range(N - 1))], "left out: 400 different texts"),
        (["true", "False", "True", "false", "true"] * (N // 5), "Flag()"),
        (["missing", "null", "no value", "no value 2", None] * (N // 5), "Category"),
        (LABEL, "left out: the same values as churned"),
        ([each == "Yes" for each in LABEL], "left out: gives the label away"),
        ([f"{each % 13} EUR" for each in range(N)], "left out: numbers with other signs"),
        ([f"A long sentence that a person wrote about order {each} last week" for each in range(N)], "left out: free text"),
    ],
)
def test_a_column_gets_the_kind_of_its_values(values: Any, kind: str) -> None:
    assert proposed(values).startswith(kind)


def test_numbers_with_words_for_null_are_repaired_only_where_a_file_can_be_rewritten() -> None:
    values = ["N/A" if each % 9 == 0 else str(each % 13) for each in range(N)]

    assert proposed(values).startswith("Integer")
    assert proposed(values, repairable=False).startswith("left out: numbers that are not written as such")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        (Wanted(label="plan"), "--label plan: expected two values, got 3"),
        (Wanted(label="nope"), "--label nope: expected a column of the table, got none"),
        (Wanted(label="gone", positive="maybe"), "--positive maybe: expected a value of gone"),
        (Wanted(label="gone", entity="holes"), "--entity holes: expected identifiers in every row"),
        (Wanted(label="gone", timestamp="plan"), "--timestamp plan: expected dates in every row"),
        (Wanted(label="gone", entity="plan", timestamp="none"), "--entity plan: expected one row per customer"),
        (Wanted(), "--label (the column that says whether the customer churned; likely: gone)"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_with_the_reason(wanted: Wanted, message: str) -> None:
    table = columns(
        customer_id=[str(each) for each in range(N)],
        plan=["a", "b", "c", "c"] * (N // 4),
        holes=[None, "x", "y", "z"] * (N // 4),
        gone=LABEL,
    )

    with pytest.raises(ConfigError) as refused:
        choose(table, wanted, None)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["plain", "it's", 'say "hi"', "both ' and \"", "back\\slash", "tab\t", "ü"])
def test_a_text_is_written_as_python_reads_it(value: str) -> None:
    assert eval(text(value)) == value


def roles_of(wanted: Wanted = OBVIOUS, **values: Any) -> Any:
    return choose(columns(**{"customer_id": IDS, "x": range(N)} | values), wanted, None)


@pytest.mark.parametrize("values", [[2**60 + each for each in range(N)], np.arange(N, dtype="uint64") + 2**63])
def test_whole_numbers_of_64_bits_identify_customers(values: Any) -> None:
    assert roles_of(customer_id=values, churned=LABEL).entity.raw == "customer_id"


def test_a_float_that_may_stand_for_several_numbers_identifies_nobody() -> None:
    with pytest.raises(ConfigError, match="--entity customer_id: expected identifiers"):
        roles_of(Wanted(entity="customer_id"), customer_id=[2.0**53 + 2 * each for each in range(N)], churned=LABEL)


@pytest.mark.parametrize(
    ("name", "values"),
    [("churned", {"Yes": "1", "No": "2"}), ("is_active", {"Yes": "0", "No": "1"}), ("Retained", {"Yes": "No", "No": "Yes"})],
)
def test_a_value_that_may_mean_a_customer_who_stayed_is_asked_for(name: str, values: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="--positive"):
        roles_of(Wanted(label=name), **{name: [values[each] for each in LABEL]})


@pytest.mark.parametrize(
    ("name", "values", "yes"),
    [
        ("churned", {"Yes": "1", "No": "0"}, "1"),
        ("is_inactive", {"Yes": "Y", "No": "N"}, "Y"),
        ("active", {"Yes": "left"}, "left"),
    ],
)
def test_the_value_that_says_so_means_churned(name: str, values: dict[str, str], yes: str) -> None:
    assert roles_of(Wanted(label=name), **{name: [values.get(each, "here") for each in LABEL]}).yes == yes


def test_times_with_a_zone_in_some_rows_only_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="--timestamp as_of: expected a time zone in every row or in none, got one in 200 of 400"
    ):
        roles_of(as_of=["2026-01-01T00:00:00", "2026-01-01T00:00:00Z"] * (N // 2), churned=LABEL)


def drafted(**values: Any) -> Any:
    table = columns(customer_id=IDS, x=[each % 13 for each in range(N)], churned=LABEL, **values)
    return draft(table, choose(table, Wanted(), None), now=NOW)


def test_rows_of_the_future_are_refused() -> None:
    with pytest.raises(ConfigError, match="--timestamp as_of: expected rows whose label can be known, got 400 of 400"):
        drafted(as_of=["2030-01-01"] * N)


def test_a_few_rows_of_the_future_leave_the_horizon_as_it_is() -> None:
    assert drafted(as_of=["2199-01-01", *["2026-01-01"] * (N - 1)]).horizon == timedelta(days=30)


@pytest.mark.parametrize(
    ("newest", "outdated"), [("2026-09-02", None), ("2026-08-31", datetime(2026, 8, 31, tzinfo=UTC))], ids=["fresh", "old"]
)
def test_rows_that_are_too_old_to_be_served_are_told(newest: str, outdated: datetime | None) -> None:
    times = [str(datetime.fromisoformat(newest).date() - timedelta(days=30 * ago)) for ago in range(4)]

    assert drafted(as_of=times * (N // 4)).outdated == outdated


def test_the_timestamp_of_a_snapshot_gets_a_name_that_is_free() -> None:
    taken = {name: [each % 7 for each in range(N)] for name in ("event_timestamp", "snapshot_time", "snapshot_time_2")}

    assert drafted(**taken).timestamp_name == "snapshot_time_3"


def test_points_separate_thousands_where_another_column_has_decimal_commas() -> None:
    texts = ["999", "1.234"] * (N // 2)
    found = Whole(pa.table({"sales": texts, "price": ["1,5", "2,25"] * (N // 2)}), (Path("sales.csv"),), separator=";")

    sales, _ = init._columns(found)

    assert sales.numbers is not None
    assert set(sales.numbers) == {999, 1234}
    assert set(sales.repair.applied(sales.values)) == {"999", "1234"}


@pytest.mark.parametrize("name", ['a"""b.csv', "a\\xb.csv", "a\nb.csv", "ends\\"])
def test_the_name_of_the_table_cannot_end_the_docstring(name: str) -> None:
    shipped = CONTRACT.read_text()

    written = code.contract(shipped, drafted(), name)

    compile(written, "contract.py", "exec")
    assert "drafted by `churn init` from" in str(compile(written, "contract.py", "exec").co_consts[0])


def planned(folder: Path, *files: Path, location: str = "", odd: tuple[str, ...] = ()) -> init.Plan:
    """A plan to put the files into data/raw, where another table and the results of its runs are."""
    (folder / "data/raw").mkdir(parents=True, exist_ok=True)
    (folder / "data/raw/old.csv").write_text("old")
    (folder / "mlflow.db").write_text("old")
    for each in ("contract.py", "features.py", "params.yaml"):
        (folder / each).write_text("old")
    for file in files:
        file.write_text("id\n1\n")
    texts = {folder / each: "new" for each in ("contract.py", "features.py", "params.yaml")}
    plan = init.Plan(location or str(files[0]), Whole(pa.table({"id": ["1"]}), files, odd), drafted(), texts, (), "")
    return dataclasses.replace(plan, deleted=tuple(init._deleted(plan)))


def contents(folder: Path) -> dict[str, str]:
    return {str(each.relative_to(folder)): each.read_text() for each in folder.rglob("*") if each.is_file()}


def failing(error: BaseException, after: int) -> Callable[[Any], Any]:
    """Makes a function raise from its call number `after` on, once it has done half of its work."""
    calls = count()

    def make(function: Any) -> Any:
        def called(*given: Any, **named: Any) -> Any:
            result = function(*given, **named)
            if next(calls) >= after:
                raise error
            return result

        return called

    return make


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("after", range(4))
def test_a_draft_that_is_interrupted_or_has_no_room_changes_nothing(
    error: BaseException, after: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plan = planned(tmp_path, tmp_path / "mine.csv")
    before, make = contents(tmp_path), failing(error, after)
    monkeypatch.setattr(Path, "write_text", make(Path.write_text))
    monkeypatch.setattr(shutil, "copyfile", make(shutil.copyfile))

    with pytest.raises(ConfigError if isinstance(error, OSError) else KeyboardInterrupt):
        init.write(plan)

    assert contents(tmp_path) == before


def test_a_draft_takes_the_place_of_all_that_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    init.write(planned(tmp_path, tmp_path / "_mine.csv"))

    texts = dict.fromkeys(("contract.py", "features.py", "params.yaml"), "new")
    assert contents(tmp_path) == texts | {"_mine.csv": "id\n1\n", "data/raw/mine.csv": "id\n1\n"}


def test_parts_in_data_raw_that_are_rewritten_are_not_there_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/raw").mkdir(parents=True)

    parts = (Path("data/raw/a.csv"), Path("data/raw/b.csv"))
    init.write(planned(tmp_path, *parts, location="data/raw", odd=("values are separated by ';'",)))

    assert [each.name for each in (tmp_path / "data/raw").iterdir()] == ["raw.csv"]


def test_a_table_in_a_folder_of_results_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data/online").mkdir(parents=True)

    with pytest.raises(ConfigError, match="expected a table outside of data/online, which is deleted"):
        init._require_outside(planned(tmp_path, Path("data/online/mine.csv")))
