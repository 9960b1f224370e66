"""The documents say what the code does: tables, names, commands, tests. No brokers are needed."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from faust.types import _env as faust_environment
from faust.types.settings import Settings as FaustSettings
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from app.command_table import COMMANDS
from app.metric_definitions import METRICS
from app.metrics import Accounts, Gauges, Histogram
from app.pages.exposition import ConnectorCollector
from app.settings import NAMES, environment_example, variables
from app.settings.all_settings import TWINS
from app.version import VERSION
from tools.documents import SETTINGS, metrics_table, rewritten, sections, variables_tables

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = {
    str(path.relative_to(REPOSITORY)): path.read_text(encoding="utf-8")
    for path in sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])
}
README, SECURITY, CHANGELOG = DOCUMENTS["README.md"], DOCUMENTS["SECURITY.md"], DOCUMENTS["CHANGELOG.md"]
GUARANTEES, TROUBLESHOOTING = DOCUMENTS["docs/guarantees.md"], DOCUMENTS["docs/troubleshooting.md"]
FAULTS = DOCUMENTS["docs/faults.md"]
README_LINES = 150
NUMBERS_OF_FAULTS = {"W": 15, "D": 29, "N": 14, "M": 46, "K": 40, "F": 5, "C": 7, "T": 2, "O": 6, "S": 5}
LETTERS_OF_SECTIONS = ("W", "D", "N", "M", "K", "FCTOS")
UPPER_CASE_NAME = re.compile(r"(?<![.\w])[A-Z][A-Z0-9]*(?:_[A-Z0-9]+)+\b")
TYPED = re.compile(r"^(?:connector|install|kubectl) |[(=]|--")  # by an operator
UNITS = {"KiB": 1024, "MiB": 1024**2, "MB": 10**6, "ms": 0.001}
# Constants of a document's own text.
NO_VARIABLES = {
    "NOTIFY_SOCKET",
    "BASE_IMAGE",
    "CALF_TANSU_BIN",
    "OPENSSL_CONF",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "IMAGE_DEBIAN_SOURCES",
    "METRICS",
    "FORMAT_VERSION",
    "SOURCE_DATE_EPOCH",
}
REQUIRED = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "localhost",
    "MQTT_CLIENT_ID": "documents",
    "KAFKA_BROKER": "localhost",
    "TOPIC_LIST": "a:a",
}


def in_document(pattern):
    """Return (document, what was found) for a pattern with one group."""
    return sorted({(name, found) for name, text in DOCUMENTS.items() for found in re.findall(pattern, text)})


def code_of(text):
    """Return the blocks of shell commands in a document, with the lines of here-documents left out."""
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    return re.sub(r"<<'END'\n.*?^END$", "", blocks, flags=re.DOTALL | re.MULTILINE)


# ---- tables


@pytest.mark.parametrize("document", sections(), ids=lambda path: path.name)
def test_the_tables_of_the_documents_are_those_of_the_code(document):
    text = document.read_text(encoding="utf-8")
    assert rewritten(text, document) == text, "run: .venv/bin/python -m tools.documents"


def test_the_variables_table_has_a_row_for_every_setting():
    rows = [row for row in variables_tables().splitlines() if row.startswith("| `")]
    named = [re.match(r"\| `([A-Z0-9_]+)`", row)[1] for row in rows]
    assert sorted(named) == sorted(NAMES)
    assert all(row.count(" | ") == 2 for row in rows), "a cell must not break its row"
    by_name = dict(zip(named, rows, strict=True))
    assert all(variable.default in by_name[variable.name] for variable in variables())


def test_the_metrics_table_has_a_row_for_every_metric():
    rows = metrics_table().splitlines()[2:]
    assert [re.match(r"\| `(\w+)`", row)[1] for row in rows] == list(METRICS)
    assert all(meaning for _, _, meaning, _ in METRICS.values())


def test_a_document_without_its_comments_is_refused():
    text = SETTINGS.read_text(encoding="utf-8").replace("<!-- end of variables -->", "")
    with pytest.raises(ValueError, match="variables"):
        rewritten(text, SETTINGS)


def test_the_readme_is_short_and_leads_to_every_document():
    assert len(README.splitlines()) <= README_LINES, "what is a question of its own has its page in docs/"
    missing = [name for name in DOCUMENTS if name != "README.md" and f"({name}" not in README]
    # Those of a folder of their own are led to by the page of its name.
    assert not [name for name in missing if name.count("/") < 2]


def test_the_example_environment_is_made_from_the_settings():
    text = (REPOSITORY / ".env.example").read_text(encoding="utf-8")
    assert text == environment_example(), "run: .venv/bin/python -m app.settings > .env.example"


# ---- names


def test_every_metric_that_a_document_names_exists():
    of_histograms = {f"{name}_{part}" for name, entry in METRICS.items() if entry[0] == "histogram"
                     for part in ("bucket", "count", "sum")}  # fmt: skip
    unknown = [found for found in in_document(r"\b(connector_[a-z_]+)\b") if found[1] not in {*METRICS, *of_histograms}]
    assert not unknown


def test_every_variable_that_a_document_names_exists():
    known = {*NAMES, *(variable.file_name for variable in variables()), *NO_VARIABLES, *_variables_of_the_clients()}
    known |= {*TWINS}
    known |= {setting.env_name for setting in FaustSettings.SETTINGS.values()} | set(dir(faust_environment))
    unknown = [(name, found) for name, text in DOCUMENTS.items() for found in UPPER_CASE_NAME.findall(text)
               if found not in known]  # fmt: skip
    assert not unknown


def _variables_of_the_clients():
    """Return the upper-case texts in the code of clients and tools: the names of the variables that they read."""
    texts = set()
    for path in [*(REPOSITORY / "clients").rglob("*.py"), *(REPOSITORY / "tools").rglob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and UPPER_CASE_NAME.fullmatch(node.value):
                texts.add(node.value)
    return texts


@functools.cache
def _constants_of(module):
    """Return the numbers that a module gives names to, without importing it, as some want settings first."""
    numbers = {}
    tree = ast.parse((REPOSITORY / f"{module.replace('.', '/')}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign):
            (names,) = (each.elts if isinstance(each, ast.Tuple) else [each] for each in node.targets)
            values = node.value.elts if isinstance(node.value, ast.Tuple) else [node.value]
            numbers |= {
                name.id: _number(value, numbers) for name, value in zip(names, values, strict=False)
                if isinstance(name, ast.Name)
            }  # fmt: skip
    return numbers


def _number(value, known):
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.Mult):
        factors = _number(value.left, known), _number(value.right, known)
        return None if None in factors else factors[0] * factors[1]
    return known.get(value.id) if isinstance(value, ast.Name) else getattr(value, "value", None)


def test_the_bounds_in_numbers_are_those_of_the_code():
    rows = re.findall(r"^\| [^|]+ \| ([\d.,]+) ?(\w*) \| `([\w.]+)\.(\w+)` \|$", SECURITY, re.MULTILINE)
    bounds = SECURITY[SECURITY.index("| What | Bound |") : SECURITY.index("## What attacks have found")]
    assert len(rows) == bounds.count("` |"), "a row that is not of the form of the others"
    wrong = [
        f"{module}.{name} is {found}, and SECURITY.md says {number} {unit}"
        for number, unit, module, name in rows
        if (found := _constants_of(module).get(name)) != float(number.replace(",", "")) * UNITS.get(unit, 1)
    ]
    assert not wrong


@pytest.mark.parametrize("document", [name for name, text in DOCUMENTS.items() if ".py::test_" in text])
def test_every_test_that_a_document_names_exists(document):
    named = re.findall(r"(\w*/?test_\w+\.py)::(\w+)", DOCUMENTS[document])
    missing = [f"{file}::{name}" for file, name in named if name not in _tests_of(file)]
    assert not missing, f"rename them in {document}, or write them"


def test_every_promise_has_a_number_a_name_and_a_test():
    promises = re.search(r"<!-- promises -->\n(.*?)<!-- end of promises -->", GUARANTEES, re.DOTALL)[1]
    entries = re.split(r"^### ", promises, flags=re.MULTILINE)[1:]
    assert [entry.split()[0] for entry in entries] == [f"P{number}" for number in range(1, 11)]
    assert not [entry for entry in entries if "::test_" not in entry]


def test_the_readme_has_a_line_for_each_promise_that_begins_with_its_name():
    names = dict(re.findall(r"^### (P\d+) (.*)$", GUARANTEES, re.MULTILINE))
    lines = dict(re.findall(r"^- \*\*(P\d+)\*\* (.*)$", README, re.MULTILINE))
    assert list(names) == list(lines)
    assert not [number for number, name in names.items() if not lines[number].startswith(name)]


def test_a_promise_that_a_document_names_exists():
    """Faults have numbers too, with other letters; QoS and HTTP have theirs behind more than one letter."""
    assert not [(name, found) for name, found in in_document(r"(?<![\w`#-])P(\d+)\b") if not 1 <= int(found) <= 10]


def test_every_fault_names_a_test_or_the_reason_why_there_is_none():
    rows = [row.strip("| ").split(" | ") for row in FAULTS.splitlines() if re.match(r"\| [A-Z]\d", row)]
    numbers = [row[0] for row in rows]
    known = {f"{letter}{number}" for letter, last in NUMBERS_OF_FAULTS.items() for number in range(1, last + 1)}
    assert not [number for number in numbers if numbers.count(number) > 1], "take the next number that is free"
    assert not known.difference(numbers), "no fault is taken from the list"
    assert not [
        row for row in rows if len(row) != 4 or not re.match(r"`\w+/test_\w+\.py::test_\w+`|none\b.*: ", row[3])
    ]


def test_the_faults_stand_in_their_sections_in_the_order_of_their_numbers():
    sections = [re.findall(r"^\| ([A-Z])(\d+) ", part, re.MULTILINE) for part in FAULTS.split("\n## ")[1:]]
    for letters, rows in zip(LETTERS_OF_SECTIONS, sections, strict=True):
        places = [(letters.index(letter), int(number)) for letter, number in rows]
        assert places == sorted(places), "take the next number, and the place behind it"


@functools.cache
def _tests_of(file):
    path = REPOSITORY / "tests" / file
    if not path.exists():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    }


def test_every_file_that_a_document_names_exists():
    found = in_document(r"(?<![\w/.])((?:app|agents|tables|clients|bench|tests|requirements)/[\w/-]*(?:\.\w+)?)")
    links = in_document(r"\]\((?!https?:|#)([^)#]+)")
    assert found and links
    assert not [(name, path) for name, path in found if not (REPOSITORY / path).exists()]
    assert not [(name, link) for name, link in links if not ((REPOSITORY / name).parent / link).exists()]


def headings(text):
    """Return what the headings of a document are linked by."""
    return {
        re.sub(r"[^\w -]", "", line.lower()).replace(" ", "-") for line in re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    }


def test_every_link_to_a_heading_has_its_heading_in_whatever_document():
    broken = []
    for name, text in DOCUMENTS.items():
        for file, heading in re.findall(r"\]\((?!https?:)([^)#]*)#([^)]+)\)", text):
            target = ((REPOSITORY / name).parent / file).resolve() if file else REPOSITORY / name
            if heading not in headings(target.read_text(encoding="utf-8")):
                broken.append(f"{name}: {file}#{heading}")
    assert not broken


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "docs/troubleshooting.md", "docs/monitoring.md"])
def test_every_log_line_and_reason_that_is_quoted_is_said_by_the_code(document):
    """What stands after `Log:` is searched in the code's texts; words in capitals stand for what differs."""
    said = "\n".join(_texts_of_the_code())
    for quote in _quotes(DOCUMENTS[document]):
        for piece in re.split(r"\s*\b[A-Z]+(?::[A-Z]+)?\b\s*", quote):
            assert piece.strip(" :") in said, f"{quote!r}: nobody says {piece!r}"


def test_every_log_line_that_the_pages_of_day_two_quote_is_said_by_the_code():
    """There it is what stands in backticks and has five words; what differs is left out."""
    said = re.sub(r"%\w", "", "\n".join(_texts_of_the_code()))
    pages = "\n".join(text for name, text in DOCUMENTS.items() if name.startswith("docs/day-two/"))
    text = re.sub(r" *```.*?```", "", pages, flags=re.DOTALL)
    quotes = [" ".join(quote.split()) for quote in re.findall(r"`([a-z](?:[^`]*\s){4}[^`]*)`", text)]
    quotes = [quote for quote in quotes if not TYPED.search(quote)]
    assert quotes
    for quote in quotes:
        for piece in re.split(r"\b(?:N|TOPIC|REASON|\d+|resumed|Not authorized)\b", quote):
            assert piece.strip(" :") in said, quote


def _quotes(text):
    """Return what is quoted of the log: in the lines of symptoms, and behind `Log:` elsewhere."""
    in_symptoms = " ".join(re.findall(r"^- \*\*Log:\*\* (.*?)^- \*\*", text, re.DOTALL | re.MULTILINE))
    elsewhere = re.findall(r"(?:Log(?:, once a minute)?:|log:|or|Then:) `([a-z][^`]*)`", text)
    return [quote for quote in re.findall(r"`([^`]*)`", in_symptoms) if " " in quote] + elsewhere


def test_every_symptom_says_what_the_log_has_and_what_to_do():
    symptoms = re.split(r"^### ", TROUBLESHOOTING, flags=re.MULTILINE)[1:]
    assert len(symptoms) > 40
    parts = ("- **Log:** ", "- **What Connector does:** ", "- **What to do:** ")
    assert not [symptom.splitlines()[0] for symptom in symptoms if not all(part in symptom for part in parts)]
    assert len(_quotes(TROUBLESHOOTING)) > 40


def _texts_of_the_code():
    """Yield every text but docstrings."""
    for folder in ("app", "agents", "tables"):
        for path in (REPOSITORY / folder).rglob("*.py"):
            nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
            docstrings = {node.value for node in nodes if isinstance(node, ast.Expr)}
            for node in nodes:
                if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
                    yield node.value


# ---- commands


def test_every_make_target_that_a_document_names_exists():
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z0-9-]+):", makefile, re.MULTILINE))
    named = [(name, found) for name, text in DOCUMENTS.items()
             for found in re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE)]  # fmt: skip
    assert named
    assert not [(name, target) for name, target in named if target not in targets]


def test_every_command_that_a_document_names_exists():
    """Where it is called (`.venv/bin/connector drain`), and where a sentence names it."""
    commands = set(COMMANDS)
    named = list(in_document(r"(?:bin/|`|-- |exec connector )connector (?:--env-file \S+ )?([a-z][a-z-]*)"))
    assert {"run", "drain", "dead-letters", "plan"} <= {found for _, found in named}
    assert commands == set(re.findall(r"^\| \[`([a-z-]+)`\]\(#", DOCUMENTS["docs/commands.md"], re.MULTILINE))
    assert not [(name, command) for name, command in named if command not in commands]


def test_every_module_that_a_document_runs_exists_with_its_options():
    """Each `python -m ...` in a document names a module, and each of its options is in the module's help."""
    named = {module for _, module in in_document(r"python -m ([\w.]+)")} - {"pytest"}
    assert {"clients.publisher_mqtt", "clients.subscriber_kafka", "tools.documents", "app.settings"} <= named
    for module in named:
        path = REPOSITORY / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    for module in ("clients.publisher_mqtt", "clients.subscriber_kafka"):
        known = set(re.findall(r"--[a-z-]+", _output(module, "--help")))
        commands = code_of(README) + code_of(DOCUMENTS["docs/commands.md"]) + code_of(DOCUMENTS["docs/tutorial.md"])
        for line in re.findall(rf"python -m {re.escape(module)} (.*)", commands):
            assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def _output(*arguments):
    environment = {name: value for name, value in os.environ.items() if name not in NAMES} | REQUIRED
    result = subprocess.run(
        [sys.executable, "-m", *arguments], capture_output=True, text=True, check=True, cwd=REPOSITORY, env=environment
    )
    return result.stdout


def test_the_settings_in_the_readme_start_a_worker(tmp_path):
    """The `.env` to copy is complete: the settings load from it, and it names no variable that there is not."""
    text = re.search(r"<<'END'\n(.*?)^END$", README, re.DOTALL | re.MULTILINE)[1]
    assert {line.partition("=")[0] for line in text.splitlines()} <= set(NAMES)
    (tmp_path / ".env").write_text(text, encoding="utf-8")
    environment = {name: value for name, value in os.environ.items() if name not in NAMES}
    environment["PYTHONPATH"] = str(REPOSITORY)
    subprocess.run(
        [sys.executable, "-c", "from app.settings import load_settings; load_settings()"],
        check=True, cwd=tmp_path, env=environment,
    )  # fmt: skip


# ---- changelog


def test_the_changelog_has_a_section_for_what_is_not_released():
    sections = re.findall(r"^## \[(.*?)\]$", CHANGELOG, re.MULTILINE)
    assert sections[:2] == ["Unreleased", VERSION]
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


def test_the_changelog_says_each_thing_once_and_in_its_section():
    """Lines that several people add at once are merged by keeping all of them."""
    entries = [" ".join(entry.split()) for entry in re.findall(r"^- .*(?:\n  .*)*", CHANGELOG, re.MULTILINE)]
    assert len(entries) > 20
    assert not [entry for entry in entries if entries.count(entry) > 1]
    assert not re.findall(r"^(?!### ).+\n\n- .*", CHANGELOG, re.MULTILINE)
    for section in CHANGELOG.split("\n## [")[1:]:
        headings = re.findall(r"^### (\w+)$", section, re.MULTILINE)
        assert headings == [kind for kind in ("Added", "Changed", "Fixed", "Security") if kind in headings]


# ---- metrics as they are served


def test_the_metrics_that_are_served_have_the_documented_names_types_and_labels():
    accounts = Accounts()
    account = accounts["plant/#:plant"]
    account.dead_lettered["too_large"] += 1
    account.dropped["table_full"] += 1
    account.timestamps_replaced["missing"] += 1
    histograms = {name: Histogram() for name, entry in METRICS.items() if entry[0] == "histogram"}
    gauges = Gauges()
    gauges.register_labelled(
        kafka_refusals_total=lambda: {"POLICY_VIOLATION": 1},
        web_refusals_total=lambda: {"host": 1},
        tls_weakened=lambda: {"a": 1},
    )
    registry = CollectorRegistry()
    registry.register(ConnectorCollector(accounts, gauges, histograms, {"version": "1", "format": "1", "site": "oslo"}))
    served = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            name = re.sub(r"_(bucket|count|sum)$", "", sample.name) if family.type == "histogram" else sample.name
            # In this format of Prometheus an info is a gauge.
            kind = "info" if sample.name.endswith("_info") else family.type
            served[name] = (kind, set(sample.labels) - {"le"} if family.type == "histogram" else set(sample.labels))
    assert served == {name: (kind, set(labels)) for name, (kind, labels, _, _) in METRICS.items()}


def test_each_metric_shows_the_value_of_its_own_account():
    accounts = Accounts()
    account = accounts["route"]
    fields = (
        "received",
        "recovered",
        "delivered",
        "stored",
        "replayed",
        "undelivered",
        "undelivered_bytes",
        "in_flight",
        "properties_left_out",
        "received_bytes",
        "delivered_bytes",
    )
    for value, field in enumerate(fields, 101):
        setattr(account, field, value)
    account.dead_lettered["too_large"] = 7
    account.dropped["unmapped"] = 8
    account.timestamps_replaced["missing"] = 9
    histograms = {name: Histogram() for name, entry in METRICS.items() if entry[0] == "histogram"}
    families = ConnectorCollector(accounts, Gauges(), histograms, {"version": "1", "format": "1"}).collect()
    shown = {sample.name: sample.value for family in families for sample in family.samples if "route" in sample.labels}
    assert shown == {
        "connector_received_total": 101,
        "connector_recovered_total": 102,
        "connector_delivered_total": 103,
        "connector_stored_total": 104,
        "connector_replayed_total": 105,
        "connector_undelivered_messages": 106,
        "connector_undelivered_bytes": 107,
        "connector_in_flight_messages": 108,
        "connector_properties_left_out_total": 109,
        "connector_received_bytes_total": 110,
        "connector_delivered_bytes_total": 111,
        "connector_dead_lettered_total": 7,
        "connector_dropped_total": 8,
        "connector_timestamps_replaced_total": 9,
        "connector_imbalance_messages": 101 + 102 - 103 - 7 - 8 - 106 - 108,
    }


def test_somebody_knows_the_value_of_each_metric_without_labels():
    """A gauge that nobody registers would be 0 for ever, without an error."""
    registered = set()
    for path in (REPOSITORY / "app").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("gauges.register"):
                registered |= {f"connector_{keyword.arg}" for keyword in node.keywords}
    wanted = {name for name, (kind, labels, _, _) in METRICS.items() if not labels and kind in {"gauge", "counter"}}
    assert registered == wanted
