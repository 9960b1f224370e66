"""How findings are written: a line each as soon as it is known, or an object of JSON each; and what they come to."""

from __future__ import annotations

import sys
from collections import Counter

from app.check.findings import VERDICTS, Finding, Step
from app.lines import escaped, escaped_json


class Output:
    """Writes findings to standard output, and what is done meanwhile to standard error."""

    def __init__(self, *, as_json: bool) -> None:
        """Begin; with `as_json`, each finding is one object on one line."""
        self._as_json = as_json
        self._counts: Counter[str] = Counter()

    def show(self, found: Finding | Step) -> None:
        """Write one finding, or what is done now."""
        if isinstance(found, Step):
            if not self._as_json:
                text = f"          ... {escaped(found.text)}"
                print(text, file=sys.stderr, flush=True)  # noqa: T201, a command speaks to its user
            return
        self._counts[found.verdict] += 1
        _write(escaped_json(found.as_dictionary()) if self._as_json else escaped(line(found)))

    def end(self) -> int:
        """Write what the findings come to, and return the exit code."""
        counts = {verdict: self._counts[verdict] for verdict in VERDICTS}
        text = ", ".join(f"{count} {verdict}" for verdict, count in counts.items())
        _write(escaped_json({"summary": counts}) if self._as_json else text)
        return 1 if counts["wrong"] else 0


def line(finding: Finding) -> str:
    """Return a finding for people: verdict, area, what was found, what to do."""
    advice = f". {finding.advice}" if finding.advice else ""
    return f"{finding.verdict:<9} {finding.area:<9} {finding.text}{advice}"


def _write(text: str) -> None:
    print(text, flush=True)  # noqa: T201, a command speaks to its user
