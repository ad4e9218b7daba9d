"""Tables of fictitious companies, each of another shape: what `churn init` has to draft a contract for."""

from pathlib import Path

import numpy as np
import pandas as pd


def _probability(
    *terms: "np.ndarray[tuple[int], np.dtype[np.float64]]", at: float
) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    return 1 / (1 + np.exp(-(at + sum(terms))))


def monthly(folder: Path) -> Path:
    """A row per account and month, true and false, months as 2026-01."""
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {"account_id": np.repeat(np.arange(1000, 1600), 5), "month": [f"2026-0{each}" for each in range(1, 6)] * 600}
    )
    rows["logins"] = rng.poisson(6, len(rows))
    rows["seats"] = rng.integers(1, 60, len(rows))
    rows["tier"] = rng.choice(["free", "team", "enterprise"], len(rows))
    rows["churned"] = np.where(rng.random(len(rows)) < _probability(-0.2 * rows.logins.to_numpy(float), at=-0.5), "true", "false")
    return _csv(rows, folder / "accounts.csv")


def many_categories(folder: Path) -> Path:
    """Ids with leading zeros, postcodes, a text of 400 values, another identifier, free text and a column twice."""
    rng = np.random.default_rng(2)
    n = 3000
    numbers = rng.permutation(10**5)[:n]
    rows = pd.DataFrame(
        {"CustomerNo": [f"{each:08d}" for each in numbers], "Postcode": [f"{each:05d}" for each in rng.integers(1000, 1012, n)]}
    )
    rows["Model"] = [f"M-{each}" for each in (rng.pareto(1, n) * 3).astype(int) % 400]
    rows["InvoiceNo"] = rng.permutation(10**6)[:n]
    rows["Notes"] = [f"The customer called about order {each}, and was told to wait for the technician." for each in numbers]
    rows["Usage GB"] = rng.gamma(2, 20, n).round(2)
    rows["UsageGB copy"] = rows["Usage GB"]
    rows["Country"] = "AT"
    rows["Status"] = np.where(rng.random(n) < _probability(-0.03 * rows["Usage GB"].to_numpy(), at=0.2), "churned", "stayed")
    return _csv(rows, folder / "customers.csv")


def dates_and_nulls(folder: Path) -> Path:
    """Parquet with timestamps, nulls in numbers, texts and booleans, and a closing date that gives the label away."""
    rng = np.random.default_rng(3)
    n = 2500
    rows = pd.DataFrame({"user_id": [f"u{each}" for each in range(n)], "snapshot_date": pd.Timestamp("2026-06-30", tz="UTC")})
    rows["joined"] = pd.Timestamp("2026-06-30") - pd.to_timedelta(rng.integers(1, 2000, n), unit="D")
    rows["rating"] = np.where(rng.random(n) < 0.2, np.nan, rng.integers(1, 6, n))
    rows["device"] = pd.Series(rng.choice(["ios", "android", "web"], n)).mask(rng.random(n) < 0.1)
    rows["push"] = pd.Series(rng.random(n) < 0.5).astype("boolean").mask(rng.random(n) < 0.1)
    rows["cancelled"] = rng.random(n) < _probability(-0.4 * np.nan_to_num(rows.rating.to_numpy()), at=0.0)
    rows["closed_on"] = pd.Timestamp("2026-07-15").to_datetime64()
    rows.loc[~rows.cancelled, "closed_on"] = pd.NaT
    rows.to_parquet(folder / "users.parquet", index=False)
    return folder / "users.parquet"


def three_percent(folder: Path) -> Path:
    """A folder of two parts, 3 % churned customers, 1 and 0."""
    rng = np.random.default_rng(4)
    n = 12_000
    rows = pd.DataFrame({"id": np.arange(n), "age": rng.integers(18, 90, n), "balance": rng.normal(1000, 900, n).round(2)})
    rows["gender"] = rng.choice(["f", "m", "x"], n)
    rows["exited"] = (rng.random(n) < _probability(-0.0009 * rows.balance.to_numpy(), at=-3.0)).astype(int)
    (folder / "bank").mkdir()
    _csv(rows.head(5000), folder / "bank/1.csv")
    _csv(rows.tail(7000), folder / "bank/2.csv")
    return folder / "bank"


def german(folder: Path) -> Path:
    """Semicolons, cp1252, decimal commas, umlauts, days first, N/A for a missing number, a column name twice."""
    rng = np.random.default_rng(5)
    n = 2000
    turnover = rng.gamma(2, 300, n)
    rows = pd.DataFrame({"Kunden-Nr.": np.arange(n) + 70000, "Stichtag": "30.06.2026", "Größe (m²)": rng.integers(20, 200, n)})
    rows["Umsatz €"] = [f"{each:.2f}".replace(".", ",") for each in turnover]
    rows["Anrufe"] = np.where(rng.random(n) < 0.1, "N/A", rng.integers(0, 9, n).astype(str))
    rows["Straße"] = rng.choice(["Haupt", "Ring", "Übrige"], n)
    rows["gekündigt"] = np.where(rng.random(n) < _probability(-0.003 * turnover, at=0.0), "Ja", "Nein")
    rows.insert(3, "Anrufe ", rng.integers(0, 4, n))
    text = rows.rename(columns={"Anrufe ": "Anrufe"}).to_csv(index=False, sep=";")
    (folder / "kunden.csv").write_bytes(text.encode("cp1252"))
    return folder / "kunden.csv"


def hostile_names(folder: Path) -> Path:
    """Names that are keywords, have spaces, =, quotation marks or nothing; a BOM; values with quotation marks and blanks."""
    rng = np.random.default_rng(6)
    n = 2000
    rows = pd.DataFrame({"Customer ID": [f"C{each}" for each in range(n)], "class": rng.choice(["a'b", 'say "hi"', " both "], n)})
    rows["from"] = rng.integers(0, 50, n)
    rows["From"] = rng.integers(0, 50, n)
    rows["plan=type"] = rng.choice(["x", "y"], n)
    rows["time"] = rng.random(n).round(3)
    rows["2nd line"] = rng.choice(["Yes", "No"], n)
    rows["model_fields"] = rng.integers(-30, 40, n)
    rows[""] = np.arange(n)
    rows["Churn"] = np.where(rng.random(n) < _probability(-0.06 * rows["from"].to_numpy(float), at=0.0), "Yes", "No")
    (folder / "names.csv").write_bytes(rows.to_csv(index=False).encode("utf-8-sig"))
    return folder / "names.csv"


def database(folder: Path) -> Path:
    """A table of SQLite with typed columns and a null."""
    import sqlalchemy as sa

    rng = np.random.default_rng(7)
    n = 2000
    rows = pd.DataFrame(
        {"customer_id": np.arange(n), "visits": rng.integers(0, 30, n).astype(float), "plan": rng.choice(["s", "m"], n)}
    )
    rows.loc[:50, "visits"] = np.nan
    rows["left"] = rng.random(n) < _probability(-0.1 * np.nan_to_num(rows.visits.to_numpy()), at=0.0)
    engine = sa.create_engine(f"sqlite:///{folder}/crm.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        rows.to_sql("customers", connection, index=False)
    return folder / "crm.db"


def _csv(rows: pd.DataFrame, path: Path) -> Path:
    rows.to_csv(path, index=False)
    return path
