"""Error messages of a source reach the user without a customer's id or attributes."""

import sqlite3
import traceback
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from churn.adapters import sources
from churn.adapters.sources import databases
from churn.contract import COLUMNS, ENTITY, TIMESTAMP
from churn.errors import SourceError
from factory import rows

ROOT = Path(__file__).parents[2]


def refusal(location: str, table: str = "customers") -> str:
    """The refusal as a log would have it, with the errors behind it."""
    with pytest.raises(SourceError) as refused:
        sources.read(location, table=table)
    return "".join(traceback.format_exception(refused.value))


@pytest.mark.reported
def test_a_view_of_postgresql_that_cannot_cast_a_value_does_not_quote_it(postgres_url: str) -> None:
    databases.write(rows(3), postgres_url, "castable")
    names = ", ".join(f'"{each.name}"' for each in COLUMNS if each.name not in (ENTITY, "member_months"))
    view = f'CREATE VIEW leaky AS SELECT {names}, "{ENTITY}", "{ENTITY}"::int AS member_months FROM castable'
    with sa.create_engine(
        postgres_url.replace("postgresql:", "postgresql+psycopg:"), poolclass=sa.NullPool
    ).begin() as connection:
        connection.execute(sa.text(view))

    message = refusal(postgres_url, "leaky")

    assert "InvalidTextRepresentation (SQLSTATE 22P02)" in message
    assert f"{ENTITY}-" not in message


@pytest.mark.reported
def test_a_csv_row_with_too_many_values_is_not_quoted(tmp_path: Path) -> None:
    lines = (ROOT / "data/raw/customers.csv").read_text().splitlines()[:5]
    (tmp_path / "customers.csv").write_text("\n".join([*lines, f"{lines[1]},more"]) + "\n")

    message = refusal(str(tmp_path / "customers.csv"))

    width = len(lines[0].split(","))
    assert f"customers.csv: line 6: expected {width} values, as in the header, got {width + 1}" in message
    assert "8504-XZKFR" not in message
    assert "Online invoice" not in message


@pytest.mark.reported
def test_text_that_sqlite_cannot_decode_is_not_quoted(tmp_path: Path) -> None:
    # By SQLAlchemy: with sqlite3's own connection, pandas changes for the whole process how SQLite stores times.
    (tmp_path / "crm.db").touch()
    databases.write(rows(3).astype({TIMESTAMP: str}), f"sqlite:///{tmp_path}/crm.db", "customers")
    with closing(sqlite3.connect(tmp_path / "crm.db")) as connection:
        connection.execute(f"UPDATE customers SET {ENTITY} = CAST(x'37353930FF' AS TEXT)")
        connection.commit()

    message = refusal(f"sqlite:///{tmp_path}/crm.db")

    assert f"Could not decode to UTF-8 column '{ENTITY}'" in message
    assert "8504" not in message
