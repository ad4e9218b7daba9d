"""A clone of this checkout, with its own virtual environment's commands, as a user has it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

SMALL = {
    "train.histories": [1.0],
    "train.inner_folds": 2,
    "train.cv_folds": 2,
    "train.cv_repeats": 1,
    "train.gradient_boosting.shapes": [{"max_depth": 2, "max_features": 0.1}],
    "train.gradient_boosting.n_estimators": 80,
    "evaluate.bootstrap_samples": 100,
}
"""Parameters of a pipeline that runs in a minute: key → value."""


class Project:
    """A clone in a folder of its own; commands run there with nothing of the caller's environment but PATH and HOME."""

    def __init__(self, folder: Path, home: Path) -> None:
        self.folder = folder
        self.first_output = ""
        self.environment = {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(home),
            # The installed package is this checkout's: the clone's own code goes first.
            "PYTHONPATH": str(folder / "src"),
            "DO_NOT_TRACK": "true",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_CONFIG_GLOBAL": str(home / ".gitconfig"),
        }

    def start(self, *command: str, environment: dict[str, str] | None = None) -> "subprocess.Popen[str]":
        """Start a command in a process group of its own."""
        return subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment | (environment or {}),
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def run(self, *command: str, exit_code: int = 0, environment: dict[str, str] | None = None) -> str:
        """Run a command to its end; returns what it printed."""
        process = self.start(*command, environment=environment)
        output, _ = process.communicate()
        assert process.returncode == exit_code, f"{' '.join(command)} exited {process.returncode}:\n{output}"
        return output

    def read(self, path: str) -> str:
        """The text of a file."""
        return (self.folder / path).read_text()

    def set(self, key: str, value: object) -> None:
        """Change one key of params.yaml, written a.b.c."""
        import yaml

        path = self.folder / "params.yaml"
        params = yaml.safe_load(path.read_text())
        *sections, last = key.split(".")
        section = params
        for name in sections:
            section = section[name]
        section[last] = value
        path.write_text(yaml.safe_dump(params, sort_keys=False))

    def restore(self) -> None:
        """params.yaml as committed."""
        self.run("git", "checkout", "--quiet", "params.yaml")


def clone(folder: Path, home: Path) -> Project:
    """The tracked and addable files of this checkout, committed in `folder`."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, text=True, capture_output=True, check=True
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    home.mkdir(parents=True, exist_ok=True)
    (home / ".gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.com\n")
    project = Project(folder, home)
    project.run("git", "init", "--quiet", "--initial-branch=main")
    project.run("git", "add", "--all")
    project.run("git", "commit", "--quiet", "--message", "A clean clone")
    return project


def replace_between(start: str, end: str, *, in_: Path, by: Path) -> None:
    """Put the file's text from `start` on in place of the other's from `start` to `end`."""
    shipped, other = in_.read_text(), by.read_text()
    in_.write_text(shipped[: shipped.index(start)] + other[other.index(start) :] + "\n\n" + shipped[shipped.index(end) :])
