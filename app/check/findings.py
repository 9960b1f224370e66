"""What a check finds out: one finding for each thing that was looked at, and what is done at the moment."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

Verdict = Literal["good", "doubtful", "wrong"]
VERDICTS: tuple[Verdict, ...] = ("good", "doubtful", "wrong")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        area: Where: settings, machine, disk, mqtt or kafka.
        check: What was looked at there; a name that stays the same.
        subject: Of what: an address, a filter, a topic, a directory.
        verdict: Whether it is as it should be.
        text: What was found.
        advice: What to do; empty if nothing is to be done.
    """

    area: str
    check: str
    subject: str
    verdict: Verdict
    text: str
    advice: str = ""

    def as_dictionary(self) -> dict[str, str]:
        """Return it for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Step:
    """Something that is done now and may take seconds."""

    text: str


@dataclass(frozen=True)
class Report:
    """Makes the findings of one area."""

    area: str

    def good(self, check: str, subject: str, text: str) -> Finding:
        """Return a finding of something that is as it should be."""
        return Finding(self.area, check, subject, "good", text)

    def doubtful(self, check: str, subject: str, text: str, advice: str) -> Finding:
        """Return a finding of something that the worker can do with, and that may not be meant."""
        return Finding(self.area, check, subject, "doubtful", text, advice)

    def wrong(self, check: str, subject: str, text: str, advice: str) -> Finding:
        """Return a finding of something that keeps messages from crossing."""
        return Finding(self.area, check, subject, "wrong", text, advice)


# Findings, and steps before those that take time; what it returns is for who goes on from there.
Looking = Generator[Finding | Step, None, Result]
