"""A copy of the project with the contract, features, parameters and rows of the tests' company in place of the user's.

The tests run in it, so that they hold whatever table the user has adopted; but not `tests/dataset`, which is about the user's
table, and `tests/demo`, since the demo plays the shipped company.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
COMPANY = Path(__file__).parent / "company"
OF_THE_TABLE = (ROOT / "tests/dataset", ROOT / "tests/demo")
"""The tests that run on the user's table."""
COPY = ROOT / ".cache" / "company"
IN_COPY = "TESTS_IN_COPY"
"""The variable that is set where the tests run in the copy: its folder."""

LEFT_OUT = ("data/raw", "data/raw.dvc", "data/.gitignore")
"""What stays out: the user's rows, also where DVC holds them."""
SHARED = (".venv", ".cache")
"""Installed programs: the copy has links to these."""


class Indented(yaml.SafeDumper):
    """Writes lists as params.yaml has them: further in than their key."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Never without an indent."""
        super().increase_indent(flow, False)


def environment() -> dict[str, str]:
    """The variables with which the copy's own code is imported: the installed package is this checkout's."""
    path = os.pathsep.join(filter(None, [str(COPY / "src"), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, IN_COPY: str(COPY)}


def refresh() -> Path:
    """Bring the copy up to date, and commit what changed there; returns its folder."""
    COPY.parent.mkdir(exist_ok=True)
    with COPY.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (COPY / ".git").exists():
            COPY.mkdir(exist_ok=True)
            _git("init", "--quiet", "--initial-branch=main")
            (COPY / ".git/info/exclude").write_text("".join(f"/{name}\n" for name in SHARED))
        for name in SHARED:
            if (ROOT / name).exists() and not (COPY / name).is_symlink():
                (COPY / name).symlink_to(ROOT / name)
        _copy()
        _git("add", "--all")
        if _git("status", "--porcelain"):
            _git("commit", "--quiet", "--message", "The project on the tests' company")
    return COPY


def _copy() -> None:
    made, generated = dict(_made()), {"data/raw/customers.csv"}
    wanted = {name for name in _listed(ROOT) if (ROOT / name).is_file() and not _is_left_out(name)} - made.keys()
    for name in {*_listed(COPY)} - wanted - made.keys() - generated:
        (COPY / name).unlink(missing_ok=True)
        with suppress(OSError):
            os.removedirs((COPY / name).parent)
    for name in wanted:
        source, target = ROOT / name, COPY / name
        if not target.exists() or _state(source) != _state(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
    for name, content in made.items():
        target = COPY / name
        if not target.exists() or target.read_bytes() != content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    rows = COPY / "data/raw/customers.csv"
    if not rows.exists() or rows.stat().st_mtime < (COMPANY / "rows.py").stat().st_mtime:
        from company.rows import write

        rows.parent.mkdir(parents=True, exist_ok=True)
        write(rows)


def _made() -> Iterator[tuple[str, bytes]]:
    """Path → content of the files that are the company's."""
    contract = (ROOT / "src/churn/contract.py").read_text(encoding="utf-8")
    yield "src/churn/contract.py", with_tables(contract, (COMPANY / "tables.py").read_text(encoding="utf-8")).encode()
    yield "src/churn/features.py", (COMPANY / "features.py").read_bytes()
    shipped, own = (yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8")) for folder in (ROOT, COMPANY))
    yield "params.yaml", yaml.dump(merged(shipped, own), Dumper=Indented, sort_keys=False).encode()


def with_tables(contract: str, other: str) -> str:
    """The contract with the imports and the tables of another file in place of its tables."""
    exports, first, after = "__all__ = ", "FEATURE_TTL = ", "def of_role"
    imports = other[other.index("\nfrom ") : other.index(first)].strip()
    tables = other[other.index(first) :].strip()
    head, _, rest = contract.partition(exports)
    exported = rest[: rest.index("]\n") + 2]
    return f"{head}{imports}\n\n{exports}{exported}\n{tables}\n\n\n{rest[rest.index(after) :]}"


def merged(shipped: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """The parameters of `own`, with those of `shipped` that it lacks."""
    return shipped | {
        key: merged(shipped[key], value) if isinstance(value, dict) and isinstance(shipped.get(key), dict) else value
        for key, value in own.items()
    }


def _listed(folder: Path) -> list[str]:
    """The files of a tree that git does not ignore; of a project without a repository, by the rules of the copy's."""
    place = ["-C", str(folder)] if (folder / ".git").exists() else [f"--git-dir={COPY / '.git'}", f"--work-tree={folder}"]
    return _run(["git", *place, "ls-files", "-z", "--cached", "--others", "--exclude-standard"], os.environ).split("\0")[:-1]


def _is_left_out(name: str) -> bool:
    return any(Path(name).is_relative_to(path) for path in LEFT_OUT)


def _state(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_size, status.st_mtime_ns, status.st_mode


def _git(*words: str) -> str:
    """Run git in the copy, whatever the user's configuration says of commits."""
    identity = {f"GIT_{who}_{what}": "tests@localhost" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    return _run(["git", "-C", str(COPY), *words], {**os.environ, **identity, "GIT_CONFIG_GLOBAL": os.devnull})


def _run(command: list[str], variables: Any) -> str:
    # A hook of git, from which tests may be run, sets where its own repository is.
    ours = {name: value for name, value in variables.items() if name not in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE")}
    return subprocess.run(command, env=ours, capture_output=True, text=True, check=True).stdout


if __name__ == "__main__":
    # For programs that are not pytest: python tests/support/copied.py COMMAND …
    os.chdir(refresh())
    os.execvpe(sys.argv[1], sys.argv[1:], environment())
