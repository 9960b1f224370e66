"""A release: built from a commit, the same each time, with everything in it. No brokers are needed."""

from __future__ import annotations

import re
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from clients import release

REPOSITORY = Path(__file__).resolve().parents[1]
VERSION = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a directory with a release; making it compares two builds."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("a release is made from a commit, and this is no git checkout")
    target = tmp_path_factory.mktemp("release") / "dist"
    release.release(target)
    return target


def committed(*folders):
    """Return the Python files of the last commit in the folders."""
    command = ["git", "ls-tree", "-r", "--name-only", "HEAD", *folders]
    names = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.split()
    return {name for name in names if name.endswith(".py")}


def test_a_release_has_wheel_sources_bill_of_materials_and_their_sums(built):
    assert {file.name for file in built.iterdir()} == {
        f"connector-{VERSION}-py3-none-any.whl", f"connector-{VERSION}.tar.gz", "sbom.json", release.SUMS,
    }  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--strict", release.SUMS], check=True, cwd=built, capture_output=True)
    assert len((built / release.SUMS).read_text().splitlines()) == 3


def test_wheel_and_sources_have_every_module(built):
    with zipfile.ZipFile(built / f"connector-{VERSION}-py3-none-any.whl") as wheel:
        packed = {name for name in wheel.namelist() if name.endswith(".py")}
    assert packed == committed("app", "agents", "tables", "clients")
    with tarfile.open(built / f"connector-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert names >= committed("app", "agents", "tables", "clients", "tests", "bench")
    assert names >= {"Makefile", "LICENSE", "README.md", "CHANGELOG.md", "requirements/runtime.txt", "docs/faults.md"}


def test_nothing_in_it_tells_when_where_and_by_whom_it_was_built(built):
    seconds = release.commit_seconds()
    with tarfile.open(built / f"connector-{VERSION}.tar.gz") as archive:
        for member in archive.getmembers():
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (seconds, 0, 0, "", "")
            assert member.mode in {0o644, 0o755}
    for file in built.iterdir():
        assert str(REPOSITORY).encode() not in file.read_bytes()


def test_two_builds_that_differ_are_no_release(monkeypatch, tmp_path):
    builds = iter("ab")
    monkeypatch.setattr(release, "build", lambda target: (target.mkdir(), (target / "file").write_text(next(builds))))
    with pytest.raises(release.ReleaseError, match="differ"):
        release.release(tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_what_is_not_committed_is_named_and_nothing_built(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(release, "_run", lambda *_command, **_options: b" M app/main.py\n")
    assert release.main([str(tmp_path / "dist")]) == 1
    assert "app/main.py" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_the_version_is_the_same_wherever_it_is_written():
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "app").rglob("*.py")]
    written = {found for text in texts for found in re.findall(r'version = "(\d+\.\d+\.\d+)"', text)}
    assert written == {VERSION}, "what /metrics says where the package is not installed"
