"""Plays months at their pace, and prints what the watcher decides meanwhile."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from demo.company import Company
from demo.story import gist
from demo.workspace import DemoError

MONTHS, MONTHS_AFTER, MOST_MONTHS = 6, 3, 12
"""How many months are played where nothing is to happen, with a new version, and until there is one.

A busy machine sees drift later, and a first candidate may be refused."""
RETRAIN_S = 600


class Director:
    """Plays the months at their pace, and prints what the watcher decides and does."""

    def __init__(self, records: Path, company: Company, month_s: float, tell: Callable[[str], None]) -> None:
        self._company, self._month_s, self._tell = company, month_s, tell
        self._records = records
        self._told: set[Path] = set()
        self._reasons: set[tuple[str, ...]] = set()

    def play(self, *, retrains: bool) -> None:
        """Months until a new version serves, if one is expected, and some more with it; else `MONTHS`."""
        first = self._company.serving()
        while len(self._company.months) < (MOST_MONTHS if retrains else MONTHS):
            self._month()
            if self._is_retraining():
                self._wait_for_retraining()
            if self._company.serving() != first:
                self._tell(f"version {self._company.serving()} answers: swapped without a restart")
                for _ in range(MONTHS_AFTER):
                    self._month()
                break
        self._end_of_month()

    def _month(self) -> None:
        self._end_of_month()
        month = self._company.play()
        self._tell(f"month {month.number}: {len(month.left)} customers scored by version {', '.join(sorted(month.versions))}")

    def _end_of_month(self) -> None:
        """Wait until the last month is over, then tell what became of its customers."""
        if not self._company.months or (last := self._company.months[-1]).outcomes_sent:
            return
        while time.time() < last.ended + self._month_s:
            self._watch()
            time.sleep(0.2)
        self._company.tell(last)

    def _watch(self) -> None:
        """Tell what the watcher has recorded since the last look."""
        for path in sorted([*self._records.glob("checks/*.json"), *self._records.glob("retrainings/*.json")]):
            if path not in self._told:
                self._told.add(path)
                self._report(json.loads(path.read_text()))

    def _report(self, record: dict[str, Any]) -> None:
        """Print one record. A decision with the reason of an earlier one, but for its figures, is not printed again."""
        if "decision" in record:
            if (reason := gist(record)) in self._reasons:
                return
            self._reasons.add(reason)
        what = record["decision"] if "decision" in record else f"{record['name']} {record.get('result', record['kind'])}"
        self._tell(f"    watcher: {what}: {record['reason'][:150]}")

    def _is_retraining(self) -> bool:
        names = {kind: len(list(self._records.glob(f"retrainings/*{kind}.json"))) for kind in ("started", "ended")}
        return names["started"] > names["ended"]

    def _wait_for_retraining(self) -> None:
        self._end_of_month()

        tell_stage, lines = stage_teller(self._tell), 0

        def is_over() -> bool:
            nonlocal lines
            self._watch()
            printed = [line for log in sorted(self._records.glob("runs/*.log"))[-1:] for line in log.read_text().splitlines()]
            for line in printed[lines:]:
                tell_stage(line)
            lines = len(printed)
            return not self._is_retraining()

        wait_for(is_over, RETRAIN_S, "the retraining to end")
        time.sleep(3)  # the server looks every second


def stage_teller(tell: Callable[[str], None]) -> Callable[[str], None]:
    """Takes the lines that the pipeline prints, and prints which stage begins."""

    def on_line(line: str) -> None:
        if line.startswith("Running stage"):
            tell(f"    pipeline: {line.split(chr(39))[1]}")

    return on_line


def wait_for(is_so: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait until something is so.

    Raises:
        DemoError: it did not come.
    """
    end = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > end:
            raise DemoError(f"waited {seconds:g} s for {what}; the logs are in the workspace")
        time.sleep(0.3)
