"""A release: built from a commit, the same each time, with everything in it. No brokers are needed."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from clients import image_archive, release

REPOSITORY = Path(__file__).resolve().parents[1]
VERSION = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]

IMAGE = f"connector-{VERSION}-image.tar.gz"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a directory with a release; making it compares two builds."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("a release is made from a commit, and this is no git checkout")
    target = tmp_path_factory.mktemp("release") / "dist"
    with pytest.MonkeyPatch.context() as patch:
        # In place of one that takes minutes; `make release` builds a real one.
        patch.setattr(release, "_build_image", lambda _source, place, _seconds: (place / IMAGE).write_bytes(b"image"))
        release.release(target, image=True)
    return target


def committed(*folders):
    """Return the files of the last commit, or those in the folders."""
    command = ["git", "ls-tree", "-r", "--name-only", "HEAD", *folders]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.split())


def test_a_release_has_wheel_sources_image_bill_of_materials_and_their_sums(built):
    assert {file.name for file in built.iterdir()} == {
        f"connector-{VERSION}-py3-none-any.whl", f"connector-{VERSION}.tar.gz", IMAGE, "sbom.json", release.SUMS,
    }  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--strict", release.SUMS], check=True, cwd=built, capture_output=True)
    assert len((built / release.SUMS).read_text().splitlines()) == 4


def test_the_wheel_has_every_module_and_the_sources_have_everything(built):
    with zipfile.ZipFile(built / f"connector-{VERSION}-py3-none-any.whl") as wheel:
        packed = {name for name in wheel.namelist() if name.endswith(".py")}
    modules = committed("app", "agents", "tables", "clients")
    assert packed == {name for name in modules if name.endswith(".py")}
    with tarfile.open(built / f"connector-{VERSION}.tar.gz") as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    of_the_repository = {".ci/run", ".gitignore", "MANIFEST.in"}
    assert committed() - names <= of_the_repository


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
    monkeypatch.setattr(
        release, "build", lambda target, **_: (target.mkdir(), (target / "file").write_text(next(builds)))
    )
    with pytest.raises(release.ReleaseError, match="differ"):
        release.release(tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def pushed(path, container, layer=b"files"):
    """Make an archive of an image as buildah does."""
    description = {"container": container, "container_config": {"Hostname": container[:4]}, "os": "linux",
                   "config": {"Hostname": container[:4], "Healthcheck": {"Test": ["CMD", "check"]}}}  # fmt: skip
    listed = [{"Config": f"{container}.json", "RepoTags": [f"localhost/{container}"], "Layers": ["layer.tar"]}]
    contents = {"layer.tar": layer, f"{container}.json": json.dumps(description).encode(),
                "manifest.json": json.dumps(listed).encode()}  # fmt: skip
    with tarfile.open(path, "w") as archive:
        for name, data in contents.items():
            member = tarfile.TarInfo(name)
            member.size, member.mtime = len(data), 1
            archive.addfile(member, io.BytesIO(data))
    return path


def test_the_same_image_of_two_containers_is_one_archive_with_all_that_it_says(tmp_path):
    archives = []
    for container in ("first", "second"):
        archives.append(tmp_path / f"{container}.tar.gz")
        image_archive.settle(pushed(tmp_path / f"{container}.tar", container), archives[-1], "connector:1")
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as archive:
        contents = {name: archive.extractfile(name).read() for name in archive.getnames()}
    (listed,) = json.loads(contents["manifest.json"])
    described = contents[listed["Config"]]
    assert listed["RepoTags"] == ["connector:1"]
    assert listed["Config"] == f"{hashlib.sha256(described).hexdigest()}.json"
    assert json.loads(described) == {"os": "linux", "config": {"Healthcheck": {"Test": ["CMD", "check"]}}}
    assert [contents[name] for name in listed["Layers"]] == [b"files"]


def test_images_with_other_files_are_other_archives(tmp_path):
    for layer in (b"files", b"filez"):
        pushed(tmp_path / "given.tar", "container", layer)
        image_archive.settle(tmp_path / "given.tar", tmp_path / layer.decode(), "connector:1")
    assert (tmp_path / "files").read_bytes() != (tmp_path / "filez").read_bytes()


def test_where_no_image_can_be_built_it_says_so_and_releases_the_rest(monkeypatch, tmp_path, capsys):
    wanted = []
    monkeypatch.setattr(release, "check_committed", lambda: None)
    monkeypatch.setattr(release, "release", lambda _target, *, image: wanted.append(image) or "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "bash").symlink_to(shutil.which("bash"))
    (tmp_path / "bin" / "tr").symlink_to(shutil.which("tr"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert release.main([str(tmp_path / "dist")]) == 0
    assert capsys.readouterr().out.startswith("without the image: it is built as root on Debian or Ubuntu")
    assert wanted == [False]


def test_an_image_that_is_not_wanted_is_not_built(monkeypatch, tmp_path, capsys):
    wanted = []
    monkeypatch.setattr(release, "check_committed", lambda: None)
    monkeypatch.setattr(release, "release", lambda _target, *, image: wanted.append(image) or "")
    assert release.main([str(tmp_path / "dist"), "--without-image"]) == 0
    assert "without the image" in capsys.readouterr().out
    assert wanted == [False]


def test_what_is_not_committed_is_named_and_nothing_built(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(release, "_run", lambda *_command, **_options: b" M app/main.py\n")
    assert release.main([str(tmp_path / "dist")]) == 1
    assert "app/main.py" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_the_version_is_the_same_wherever_it_is_written():
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "app").rglob("*.py")]
    written = {found for text in texts for found in re.findall(r'version = "(\d+\.\d+\.\d+)"', text)}
    assert written == {VERSION}, "what /metrics says where the package is not installed"
