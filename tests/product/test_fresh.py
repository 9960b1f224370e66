"""What `make fresh` is made of, without making a Debian: its verdict, and what it takes over of this machine."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.product import fresh_report

REPOSITORY = Path(__file__).resolve().parents[2]
PASSED = '<testcase classname="tests.test_a" name="test_b"/>'
CLOSING = "= 1 passed, 1 skipped in 60.01s (0:01:00) ="
A_REASON = fresh_report.EXPECTED[0].reason


def skipped(reason):
    """Return a test that was skipped, as pytest reports it."""
    return f'<testcase classname="tests.test_c" name="test_d"><skipped message="{reason}">c.py:1</skipped></testcase>'


def judged(tmp_path, capsys, *cases, log=CLOSING):
    """Return the exit code and what is printed for a report of such cases."""
    (tmp_path / "report.xml").write_text(f"<testsuites><testsuite>{''.join(cases)}</testsuite></testsuites>")
    (tmp_path / "log").write_text(log)
    return fresh_report.main([str(tmp_path / "report.xml"), str(tmp_path / "log")]), capsys.readouterr().out


# ---- the verdict


def test_a_skipped_test_with_an_expected_reason_is_shown_and_no_fault(tmp_path, capsys):
    code, said = judged(tmp_path, capsys, PASSED, skipped(f"{A_REASON}; and so on"))
    assert code == 0
    assert "1 of 2 tests were skipped\n" in said
    assert f"expected: {fresh_report.EXPECTED[0].why}\n    tests.test_c::test_d\n" in said
    assert said.endswith(f"{CLOSING}\n"), "the last line is pytest's own"


def test_a_skipped_test_with_another_reason_fails_and_is_named(tmp_path, capsys):
    code, said = judged(tmp_path, capsys, PASSED, skipped("the program xyz is not installed"))
    assert code == 1
    assert "skipped for a reason that nobody expects: tests.test_c::test_d: the program xyz is not installed" in said


@pytest.mark.parametrize("kind", ["failure", "error"])
def test_a_test_that_fails_is_named(kind, tmp_path, capsys):
    case = f'<testcase classname="tests.test_c" name="test_d"><{kind} message="x"/></testcase>'
    code, said = judged(tmp_path, capsys, PASSED, case)
    assert (code, "failed: tests.test_c::test_d" in said) == (1, True)


@pytest.mark.parametrize("cases", [(), (skipped(A_REASON),)])
def test_where_no_test_ran_that_is_no_success(cases, tmp_path, capsys):
    code, said = judged(tmp_path, capsys, *cases)
    assert (code, "no test ran" in said) == (1, True)


def test_without_a_report_it_fails(tmp_path, capsys):
    assert fresh_report.main([str(tmp_path / "none"), str(tmp_path / "none")]) == 1
    assert "did not get as far as the tests" in capsys.readouterr().out


def test_a_reason_that_counts_on_some_machines_only_does_not_count_on_others(monkeypatch):
    entry = fresh_report.Expected("no disks", "the kernel has none", lambda: False)
    monkeypatch.setattr(fresh_report, "EXPECTED", (entry,))
    assert fresh_report.Skipped("test", "no disks here").expected() is None


def test_each_expected_reason_is_given_by_a_test_and_says_why_it_is_no_fault():
    said = "\n".join(path.read_text(encoding="utf-8") for path in (REPOSITORY / "tests").rglob("*.py")
                     if path.name not in {"fresh_report.py", "test_fresh.py"})  # fmt: skip
    assert len(fresh_report.EXPECTED) < 10, "it is a short list"
    for entry in fresh_report.EXPECTED:
        assert entry.counts is not fresh_report.always or entry.reason in said
        assert len(entry.why) > 20


@pytest.mark.parametrize("line", [CLOSING, "1 failed, 3 warnings in 0.12s", "===== no tests ran in 0.01s ====="])
def test_the_last_closing_line_of_pytest_is_found(line):
    log = f"==> make test\n= 9 passed in 1.00s =\nother words in 3 s\n{line}\nmake: *** [Makefile:1: test] Error 1\n"
    assert fresh_report.closing_line(log) == line


# ---- what it takes over


def in_shell(command, **variables):
    """Return what a command prints that uses the functions of fresh_machine.sh."""
    given = {"PATH": os.environ["PATH"], "HOME": str(variables.pop("HOME", "/nonexistent")), **variables}
    script = f"set -euo pipefail; . tests/product/fresh_machine.sh; {command}"
    done = subprocess.run(
        ["bash", "-c", script], cwd=REPOSITORY, env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_variables_that_say_how_registries_are_reached_go_in_and_no_others():
    reaching = {"https_proxy": "http://p:1", "NO_PROXY": "x y", "PIP_INDEX_URL": "http://i", "GOPROXY": "http://g"}
    others = {"MQTT_BROKER_URL": "mqtt://b", "KAFKA_BROKER": "k", "PYTHONPATH": "/x", "MY_PROXY_TOKEN": "secret"}
    assert set(in_shell("reaching_variables", **reaching, **others).splitlines()) == {
        f"{name}={value}" for name, value in reaching.items()
    }


def test_an_authority_that_only_this_machine_trusts_goes_in(tmp_path, certificates):
    bundle = tmp_path / "bundle.crt"
    known = sorted(Path("/usr/share/ca-certificates").glob("*/*.crt"))[:2]
    ours = certificates.ca_file.read_text()
    bundle.write_text("".join(path.read_text() for path in known) + ours)
    in_shell(f"_give_authorities {tmp_path / 'there'}", SSL_CERT_FILE=str(bundle))
    assert [path.read_text() for path in (tmp_path / "there").iterdir()] == [ours]


def test_settings_of_pip_and_maven_and_what_they_name_go_in(tmp_path):
    home, root, wheels = tmp_path / "home", tmp_path / "root", tmp_path / "wheels"
    for name, text in ((".config/pip/pip.conf", f"[global]\nfind-links = {wheels}\n"), (".m2/settings.xml", "<x/>")):
        (home / name).parent.mkdir(parents=True)
        (home / name).write_text(text)
    wheels.mkdir()
    (wheels / "a.whl").write_text("")
    in_shell(f"_give_settings {root}; _give_named_paths {root}", HOME=home)
    assert "find-links" in (root / "root" / ".config/pip/pip.conf").read_text()
    assert (root / "root" / ".m2/settings.xml").read_text() == "<x/>"
    assert (root / str(wheels)[1:] / "a.whl").exists()


def test_continuous_integration_runs_the_checks_and_all_tests_in_an_empty_debian():
    commands = re.findall(r"^make .*$", (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["make check", "make fresh"]


def test_no_name_of_a_registry_is_written_in_it():
    for name in ("fresh.sh", "fresh_machine.sh", "fresh_report.py"):
        text = (REPOSITORY / "tests" / "product" / name).read_text(encoding="utf-8")
        assert not re.findall(r"\w+://(?!\$)", text), name
