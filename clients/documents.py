"""The tables of README that are made from the code: `python -m clients.documents` writes them anew.

Each stands between a pair of HTML comments, `<!-- NAME -->` and `<!-- end of NAME -->`. `make check` compares them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.metrics import METRICS
from app.settings import Variable, variables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

README = Path(__file__).resolve().parents[1] / "README.md"


def variables_table() -> str:
    """Return the environment variables as a Markdown table, the ones that everybody needs first."""
    return _table(("Variable", "Default", "Meaning"), (_variable_cells(variable) for variable in variables()))


def metrics_table() -> str:
    """Return the metrics as a Markdown table, in the order in which `/metrics` shows them."""
    rows = (
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), meaning, action)
        for name, (kind, labels, meaning, action) in METRICS.items()
    )
    return _table(("Metric", "Type", "Labels", "Meaning", "What to do"), rows)


def sections() -> dict[str, str]:
    """Return what belongs between the comments of each name."""
    return {"variables": variables_table(), "metrics": metrics_table()}


def rewritten(text: str) -> str:
    """Return README's text with every table as the code has it now.

    Raises:
        ValueError: A pair of comments is missing.
    """
    for name, table in sections().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        # A function, as backslashes of a table have no meaning here.
        text, found = pattern.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"README must have one pair of comments <!-- {name} --> and <!-- end of {name} -->")
    return text


def main() -> int:
    """Rewrite README; return the exit status."""
    before = README.read_text(encoding="utf-8")
    after = rewritten(before)
    README.write_text(after, encoding="utf-8")
    print("README.md is as it was" if after == before else "README.md has new tables")
    return 0


def _variable_cells(variable: Variable) -> tuple[str, str, str]:
    name = f"`{variable.name}`"
    if variable.file_name:
        name = f"{name}, `{variable.file_name}`"
    default = "required" if variable.required else (f"`{variable.default}`" if variable.default else "")
    meaning = variable.description
    if variable.example:
        meaning = f"{meaning} Example: `{variable.example}`"
    return name, default, meaning


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(_cell(cell) for cell in line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main())
