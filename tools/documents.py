"""The tables of the documents that are made from the code: `python -m tools.documents` writes them anew.

Each stands between a pair of HTML comments, `<!-- NAME -->` and `<!-- end of NAME -->`. `make check` compares them.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from app.metric_definitions import METRICS
from app.settings import Variable, variables
from app.settings.bridge import BridgeSettings
from app.settings.kafka import KafkaSettings
from app.settings.mqtt import MqttSettings
from app.settings.process import ProcessSettings
from app.settings.producer_config import REFUSED, REFUSED_BEGINNINGS
from app.settings.producer_properties import GROUPS
from app.settings.routes import RoutesSettings
from app.settings.section import Section

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
SETTINGS = REPOSITORY / "docs" / "settings.md"
METRICS_PAGE = REPOSITORY / "docs" / "metrics.md"
KAFKA_CLIENT = REPOSITORY / "docs" / "kafka-client.md"
# The headings of docs/settings.md, and the fields below each.
SETTINGS_SECTIONS: dict[str, type[Section]] = {
    "MQTT": MqttSettings,
    "Kafka": KafkaSettings,
    "Routes": RoutesSettings,
    "Table and replay": BridgeSettings,
    "Process, log and web pages": ProcessSettings,
}


def variables_tables() -> str:
    """Return the environment variables as Markdown tables, a section for each, the main ones of it first."""
    return "".join(
        f"\n## {heading}\n\n{_variables_table(section.model_fields)}\n"
        for heading, section in SETTINGS_SECTIONS.items()
    )


def _variables_table(fields: Container[str]) -> str:
    own = (_variable_cells(variable) for variable in variables() if variable.name.lower() in fields)
    return _table(("Variable", "Default", "Meaning"), own)


def metrics_table() -> str:
    """Return the metrics as a Markdown table, in the order in which `/metrics` shows them."""
    rows = (
        (f"`{name}`", kind, ", ".join(f"`{label}`" for label in labels), meaning, action)
        for name, (kind, labels, meaning, action) in METRICS.items()
    )
    return _table(("Metric", "Type", "Labels", "Meaning", "What to do"), rows)


def properties_table() -> str:
    """Return what KAFKA_PRODUCER_CONFIG may set, as a Markdown table."""
    rows = (
        (about, f"`{name}`", kind.allowed) for about, properties in GROUPS.items() for name, kind in properties.items()
    )
    return _table(("About", "Property", "Allowed"), rows)


def refused_table() -> str:
    """Return what it may not set, with the reasons, as a Markdown table."""
    beginnings = {f"{beginning}*": reason for beginning, reason in REFUSED_BEGINNINGS.items()}
    return _table(("Property", "Why not"), ((f"`{name}`", why) for name, why in {**REFUSED, **beginnings}.items()))


def sections() -> dict[Path, dict[str, str]]:
    """Return what belongs between the comments of each name, by document."""
    return {
        SETTINGS: {"variables": variables_tables()},
        METRICS_PAGE: {"metrics": metrics_table()},
        KAFKA_CLIENT: {"properties": properties_table(), "refused": refused_table()},
    }


def rewritten(text: str, document: Path) -> str:
    """Return a document's text with every table as the code has it now.

    Raises:
        ValueError: A pair of comments is missing.
    """
    for name, table in sections()[document].items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end of {name} -->)", re.DOTALL)
        # A function, as backslashes of a table have no meaning here.
        text, found = pattern.subn(lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text)  # type: ignore[misc]
        if found != 1:
            pair = f"<!-- {name} --> and <!-- end of {name} -->"
            raise ValueError(f"{document.name} must have one pair of comments {pair}")
    return text


def main() -> int:
    """Rewrite the documents; return the exit status."""
    for document in sections():
        before = document.read_text(encoding="utf-8")
        after = rewritten(before, document)
        document.write_text(after, encoding="utf-8")
        print(f"{document.name} {'is as it was' if after == before else 'has new tables'}")
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
