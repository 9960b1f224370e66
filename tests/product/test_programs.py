"""Every program that files of the project call is installed by files of the project; without brokers.

Held against each other: what `called_programs` finds; the pairs PROGRAM=PACKAGE of the scripts that install; what the
README has its reader install; what no Debian is without; and, each with its reason, what a reader of a document brings.
"""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.support import called_programs

REPOSITORY = Path(__file__).resolve().parents[2]
FOLDERS = ("agents", "app", "bench", "clients", "docs", "image", "tables", "tests", "tools", ".ci")
READERS = {
    ".py": called_programs.of_python,
    ".sh": called_programs.of_script,
    ".md": called_programs.of_document,
    "": called_programs.of_script,
}
# Of packages that are essential or required: Debian is not installed without them.
OF_EVERY_DEBIAN = {
    "apt-config", "apt-get", "awk", "bash", "cat", "chmod", "chown", "chroot", "cmp", "cp", "cut", "date", "dd", "diff",
    "dirname",
    "dpkg", "dpkg-query", "env", "expand", "expr", "find", "flock", "grep", "groupadd", "head", "id", "install",
    "ln", "ls", "mkdir", "mktemp", "mv", "nice", "nologin", "nsenter", "readlink", "realpath", "rm", "rmdir", "sed",
    "setpriv", "sh", "sha256sum", "sleep", "sort", "stat", "tail", "tar", "tee", "timeout", "touch", "tr", "uname",
    "unshare", "useradd", "wc", "xargs",
}  # fmt: skip
# Called only where they are found, or by who reads a document and has them.
NOT_OURS = {
    "connector": "what the document installs before",
    "docker": "the image is built and run with it by who has it",
    "helm": "the chart is installed with it by who has it; `make chart-test` builds it for the tests",
    "journalctl": "comes with systemd, where the service runs",
    "kafka-acls.sh": "comes with Kafka, whose operator calls it",
    "kafka-configs.sh": "the same; the tests call what it calls",
    "kubectl": "the manifests are applied with it; the tests take it where there is no kustomize",
    "systemctl": "comes with systemd, and is called where that runs",
    "cyclonedx_py": "a module of Python, in .venv",
    "pip_audit": "a module of Python, in .venv",
}
INSTALLERS = {
    "bench": ("tests/support/installers/install-*.sh", "bench/install-*.sh"),
    "image": ("tests/support/installers/install-*.sh", "tests/product/build-image.sh"),
    "Makefile": ("tests/**/*.sh", "bench/*.sh"),
    **dict.fromkeys(
        ("tests/product/build-service.sh", "tests/product/service_machine.py", "tests/product/service_checks.py"),
        ("tests/product/build-service.sh", "tests/support/installers/install-*.sh"),
    ),
    "docs/monitoring.md": ("tests/support/installers/install-*.sh",),
}
USUAL_INSTALLERS = ("tests/support/installers/install-*.sh",)


def files():
    """Return the files that may call something."""
    found = [path for folder in FOLDERS for path in sorted((REPOSITORY / folder).rglob("*")) if path.is_file()]
    found = [path for path in found if path.suffix in READERS and "." not in path.parent.name]
    found = [path for path in found if "corpus" not in path.parts]  # of the fuzzers: bytes of every kind
    return [*found, REPOSITORY / ".ci" / "run", *REPOSITORY.glob("*.md"), REPOSITORY / "Makefile"]


@functools.cache
def called(path):
    """Return the programs that a file calls."""
    reader = called_programs.of_makefile if path.name == "Makefile" else READERS[path.suffix]
    return reader(path.read_text(encoding="utf-8"))


def functions_of_the_scripts():
    """Return the names of functions that scripts have for each other."""
    scripts = [path for path in files() if path.suffix == ".sh"]
    texts = [path.read_text(encoding="utf-8") for path in scripts]
    return {name for text in texts for name in re.findall(r"^(\w+)\(\)", text, re.MULTILINE)}


def installed_by(*patterns):
    """Return the programs for which scripts know the package."""
    texts = [path.read_text(encoding="utf-8") for pattern in patterns for path in REPOSITORY.glob(pattern)]
    calls = [call for text in texts for call in re.findall(r"\$\(missing_packages ([^)]*)\)", text)]
    return {pair.partition("=")[0] for call in calls for pair in call.split()}


def prerequisites():
    """Return the packages of the README's first line, whose programs have the same names."""
    line = re.search(r"`apt-get install ([^`]*)`", (REPOSITORY / "README.md").read_text(encoding="utf-8"))[1]
    return set(line.split())


def missing():
    """Return (file, program) for each program that nobody installs."""
    functions = functions_of_the_scripts()
    lost = []
    for path in files():
        name = str(path.relative_to(REPOSITORY))
        installers = INSTALLERS.get(name) or INSTALLERS.get(name.partition("/")[0]) or USUAL_INSTALLERS
        installers = ("tests/**/*.sh",) if "image" in path.name else installers
        there = installed_by(*installers) | prerequisites() | OF_EVERY_DEBIAN | functions | set(NOT_OURS)
        lost += [(name, program) for program in sorted(called(path) - there)]
    return lost


def test_every_program_that_is_called_is_installed_by_the_projects_own_files():
    assert not missing(), "name program and package in a script that installs, or say in NOT_OURS who has it"


@pytest.mark.parametrize("program", ["mosquitto_pub", "curl", "mkfs.ext4", "git"])
def test_a_program_that_is_no_longer_installed_is_missed(program, monkeypatch):
    there = installed_by
    monkeypatch.setattr(f"{__name__}.installed_by", lambda *patterns: there(*patterns) - {program})
    assert program in {name for _, name in missing()}


def test_each_reason_is_needed():
    """What nobody calls any more needs no reason."""
    everything = {program for path in files() for program in called(path)}
    assert not set(NOT_OURS) - everything


@pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="only Debian knows what it is never without")
def test_what_every_debian_has_is_essential_or_required():
    paths = {program: shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") for program in OF_EVERY_DEBIAN}
    names = {program: Path(path).resolve() for program, path in paths.items() if path}
    assert set(names) == OF_EVERY_DEBIAN
    # Since /bin is a link to /usr/bin, a file is known by either name.
    candidates = {str(path).removeprefix(prefix) for path in names.values() for prefix in ("", "/usr")}
    found = subprocess.run(["dpkg-query", "--search", *candidates], capture_output=True, text=True, check=False).stdout
    owners = dict(reversed(line.split(": ", 1)) for line in found.splitlines())
    packages = {program: owners.get(str(path)) or owners[str(path).removeprefix("/usr")]
                for program, path in names.items()}  # fmt: skip
    said = subprocess.run(
        ["dpkg-query", "--show", "--showformat", "${Package} ${Essential} ${Priority}\n", *set(packages.values())],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    # Apt is what the README calls first.
    surely = {"apt"} | {line.split()[0] for line in said.splitlines() if {"yes", "required"} & set(line.split()[1:])}
    assert not {program: package for program, package in packages.items() if package not in surely}


# ---- the reader


@pytest.mark.parametrize(
    ("script", "programs"),
    [
        ("a | b && c || d; e &\nf", "a b c d e f"),
        ("if ! a; then b; else c; fi; while d; do e; done", "a b c d e"),
        ("for x in a b; do c; done", "c"),
        ('x="$(a "$(b c)")" d | e', "a b d e"),
        ("x=(a b) y+=(c)\nd", "d"),
        ("[[ a < b && c ]] && d", "d"),
        ("a <b >c 2>&1 | d", "a d"),
        ("a # b; c\n# d\ne", "a e"),
        ("cat <<'END'\na\nEND\nb", "b cat"),
        ("a <<END | b\nc\nEND\n", "a b"),
        ("f() {\n    a\n}\nf b", "a"),
        ("exec env X=1 a b", "a"),
        ("sh -c 'echo $$ > x; exec a'", "a sh"),
        (".venv/bin/a; tests/b.sh; /usr/sbin/c; $d; echo e", "c"),
        ("a \\\n  b | c", "a c"),
        ("diff <(a) <(b c)", "a b diff"),
        ("command -v a >/dev/null || b", "b"),
        ("(a) 2>&1 | b", "a b"),
    ],
)
def test_the_reader_of_shells_finds_what_a_shell_would_start(script, programs):
    assert called_programs.of_shell(script) == set(programs.split())


def test_the_reader_of_modules_finds_lists_and_names():
    module = """
command = ["a", "-b"]
inside = ["/usr/bin/c", "d"]
names = ["e", "f"]
subprocess.run(["g", h], check=True)
shutil.which("i")
run("mkfs.ext4", "-q")
def _command(): return ["j", "k"]
"""
    assert called_programs.of_python(module) == {"a", "c", "g", "i", "mkfs.ext4", "j"}


def test_the_reader_of_makefiles_finds_the_recipes():
    text = "X := $(shell y)\nall: b\n\t@a | $(BIN)/c\n\t-d $(if $(E),f $(G))\n\tA=$$(g) h\n"
    assert called_programs.of_makefile(text) == {"a", "d", "g", "h"}
