"""One run of pytest in two parts: most tests in the copy of the project, then those of the user's table here."""

import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import pytest

from copied import COPY, IN_COPY, OF_THE_TABLE, ROOT, environment, refresh

HOOK = "pytest_cmdline_main"
NOTHING = pytest.ExitCode.NO_TESTS_COLLECTED


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Run both parts of what the command line names; returns the exit code of the first that failed."""
    if IN_COPY in os.environ or config.option.version or config.option.help:
        return None
    here, there = parts(config.args, config.invocation_params.dir)
    if hasattr(config, "workerinput"):  # a process of pytest-xdist, for the part here
        config.args = here or [str(OF_THE_TABLE[0])]
        return None
    report = Path(config.option.xmlpath).absolute() if config.option.xmlpath else None
    measures = bool(getattr(config.option, "cov_source", None))
    first = _run_in_copy(config, there, report, measures) if there else NOTHING
    failed = first not in (pytest.ExitCode.OK, NOTHING)
    if first == pytest.ExitCode.INTERRUPTED or (failed and config.option.maxfail):
        return first
    if not here:
        if not measures:
            return first
        # Coverage is combined and reported by the part here, even if it has no test.
        config.option.deselect = ["tests"]
    reported = report.read_bytes() if report and there else None
    config.args = here or [str(OF_THE_TABLE[0])]
    this = [plugin for plugin in config.pluginmanager.get_plugins() if getattr(plugin, HOOK, None) is pytest_cmdline_main]
    second = config.pluginmanager.subset_hook_caller(HOOK, this)(config=config)
    if report and reported:
        _add_suites(report, reported)
    return first if failed or second == NOTHING else second


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """True in the copy for the tests of the user's table."""
    return True if os.environ.get(IN_COPY) == str(ROOT) and collection_path in OF_THE_TABLE else None


def parts(arguments: list[str], start: Path, folders: Iterable[Path] = OF_THE_TABLE) -> tuple[list[str], list[str]]:
    """The arguments for here, and those for the copy; what contains one of the folders is for both."""
    here, there = [], []
    for argument in arguments:
        place = (start / argument.partition("::")[0]).resolve()
        if any(place.is_relative_to(folder) for folder in folders):
            here.append(argument)
        else:
            there.append(argument)
            here += [str(folder) for folder in folders if folder.is_relative_to(place) and folder.exists()]
    return here, there


def _run_in_copy(config: pytest.Config, arguments: list[str], report: Path | None, measures: bool) -> int:
    """Run pytest there with the options of this run; reports are written here."""
    positional = config.args if config.args_source is config.ArgsSource.ARGS else []
    kept = [str(each) for each in config.invocation_params.args if each not in positional or each in arguments]
    command = [sys.executable, "-m", "pytest", *(each.replace(str(ROOT), str(COPY)) for each in kept)]
    variables = environment()
    if report:
        command.append(f"--junitxml={report}")
    if measures:
        command = [*(each for each in command if not each.startswith("--cov-report")), "--cov-report=", "--cov-fail-under=0"]
        variables["COVERAGE_FILE"] = str(ROOT / ".coverage.copy")
    capture = config.pluginmanager.getplugin("capturemanager")
    capture.suspend_global_capture(in_=True)  # a debugger in a test reads from the terminal
    folder = refresh() / config.invocation_params.dir.resolve().relative_to(ROOT)
    process = subprocess.Popen(command, cwd=folder, env=variables)
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches that process too
    code = process.wait()
    signal.signal(signal.SIGINT, handler)
    capture.resume_global_capture()
    capture.suspend_global_capture()
    return code


def _add_suites(path: Path, other: bytes) -> None:
    """Add the test suites of a JUnit report to the report at `path`."""
    report = ET.parse(path)
    report.getroot().extend(ET.fromstring(other))
    report.write(path, encoding="utf-8", xml_declaration=True)
