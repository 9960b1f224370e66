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

from tools import image_archive, image_packages, offline, release

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = re.search(r'^version = "(.*)"', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)[1]

IMAGE = f"connector-{VERSION}-image.tar.gz"
BUNDLE = f"connector-{VERSION}-offline-x86_64.tar"
WHEEL = f"connector-{VERSION}-py3-none-any.whl"

LOCKED = image_packages.parsed(release.DEBIAN_LOCK.read_text(encoding="utf-8"))


def image_in_place_of_one(_source, place, _commit):
    (place / IMAGE).write_bytes(b"image")
    return LOCKED


def wheels_in_place_of_those(_source, target):
    for name in ("pip-26.3-py3-none-any.whl", "rocksdict-0.3.29-cp311-cp311-manylinux_2_28_x86_64.whl"):
        (target / name).write_bytes(name.encode())


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Return a directory with a release; making it compares two builds."""
    if not (REPOSITORY / ".git").exists():
        pytest.skip("a release is made from a commit, and this is no git checkout")
    target = tmp_path_factory.mktemp("release") / "dist"
    with pytest.MonkeyPatch.context() as patch:
        # In place of one that takes minutes; `make release` builds a real one.
        patch.setattr(release, "_build_image", image_in_place_of_one)
        # In place of wheels that are fetched; `make systemd-test` has the real ones.
        patch.setattr(offline, "fetch_wheels", wheels_in_place_of_those)
        release.release(target, image=True, bundle=True)
    return target


def committed(*folders):
    """Return the files of the last commit, or those in the folders."""
    command = ["git", "ls-tree", "-r", "--name-only", "HEAD", *folders]
    return set(subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.split())


def test_a_release_has_wheel_sources_image_bundle_bill_of_materials_and_their_sums(built):
    assert {file.name for file in built.iterdir()} == {
        WHEEL, f"connector-{VERSION}.tar.gz", IMAGE, BUNDLE, "sbom.json", release.SUMS,
    }  # fmt: skip
    subprocess.run(["sha256sum", "--check", "--strict", release.SUMS], check=True, cwd=built, capture_output=True)
    assert len((built / release.SUMS).read_text().splitlines()) == 5


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
        release, "build", lambda target, _commit, **_: (target.mkdir(), (target / "file").write_text(next(builds)))
    )
    with pytest.raises(release.ReleaseError, match="differ"):
        release.release(tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_both_builds_are_of_the_commit_that_was_the_last_when_it_began(monkeypatch, tmp_path):
    """Somebody commits while the image is built, which takes minutes; its label must name what it was made from."""
    commits, built_from = iter(["first", "second"]), []
    monkeypatch.setattr(release, "last_commit", lambda: next(commits))
    monkeypatch.setattr(release, "build", lambda target, commit, **_: (target.mkdir(), built_from.append(commit)))
    release.release(tmp_path / "dist")
    assert built_from == ["first", "first"]
    sources = (REPOSITORY / "tools" / "release.py").read_text(encoding="utf-8")
    assert sources.count('"HEAD"') == 2, "the last commit is asked for in one place, and its time for a lock"


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
    monkeypatch.setattr(release, "release", lambda _target, *, image, **_: wanted.append(image) or "")
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
    monkeypatch.setattr(release, "release", lambda _target, *, image, **_: wanted.append(image) or "")
    assert release.main([str(tmp_path / "dist"), "--without-image"]) == 0
    assert "without the image" in capsys.readouterr().out
    assert wanted == [False]


# ---- the bundle for systems without a registry


def unpacked(built, place):
    """Unpack the bundle, and return the directory in it."""
    with tarfile.open(built / BUNDLE) as archive:
        archive.extractall(place, **release.SAFELY)
    return place / f"connector-{VERSION}"


def test_the_bundle_has_everything_that_an_installation_needs_each_with_its_sum(built, tmp_path):
    place = unpacked(built, tmp_path)
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    wheels = {f"wheels/{name}" for name in (WHEEL, "pip-26.3-py3-none-any.whl",
                                            "rocksdict-0.3.29-cp311-cp311-manylinux_2_28_x86_64.whl")}  # fmt: skip
    assert wheels <= files
    assert set(offline.FILES.values()) <= files
    assert {name for name in committed("docs") if name.count("/") == 1} <= files
    summed = {line.split("  ")[1] for line in (place / offline.SUMS).read_text().splitlines()}
    assert summed == files - {offline.SUMS}
    assert (place / "requirements.txt").read_bytes() == (REPOSITORY / "requirements" / "runtime.txt").read_bytes()


def test_files_of_a_bundle_that_are_not_those_of_the_release_are_named_and_nothing_is_installed(built, tmp_path):
    """With no program at hand that could: a wheel may have been altered on the way into a plant."""
    place = unpacked(built, tmp_path)
    (tmp_path / "bin").mkdir()
    for program in ("dirname", "sha256sum"):
        (tmp_path / "bin" / program).symlink_to(shutil.which(program))
    command = [shutil.which("sh"), str(place / "install.sh")]
    (place / "wheels" / WHEEL).write_bytes(b"altered")
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={"PATH": str(tmp_path / "bin")})
    assert done.returncode == 1
    assert f"wheels/{WHEEL}: FAILED" in done.stdout + done.stderr
    assert "these are not the files of the release" in done.stderr


@pytest.mark.parametrize("python", offline.PYTHONS)
def test_a_bundle_has_the_versions_that_are_locked_for_each_python_with_their_hashes(python):
    """pip would judge them by the Python that builds the release."""
    locked = (REPOSITORY / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    wanted = offline.requirements_for(locked, python)
    names = re.findall(r"^([a-z][a-z0-9-]*)==", wanted, re.MULTILINE)
    assert len(names) == len(set(names)), "one version of each"
    assert set(names) == set(re.findall(r"^([a-z][a-z0-9-]*)==", locked, re.MULTILINE)) - {"colorama"}
    assert wanted.count("--hash=sha256:") > len(names)
    older = ("multidict==7.1.0" in wanted, "multidict==7.2" in wanted)
    assert older == ((True, False) if python == "3.10" else (False, True))


# ---- Debian's packages


def test_the_lock_names_what_debian_has_in_the_image_each_with_its_version():
    names = [package.name for package in LOCKED]
    assert {"python3", "ca-certificates", "libc6", "libssl3"} <= set(names)
    assert names == sorted(set(names))
    assert {package.architecture for package in LOCKED} <= {"amd64", "all"}
    assert image_packages.lock_of(LOCKED) == release.DEBIAN_LOCK.read_text(encoding="utf-8")


def test_other_packages_of_debian_than_were_looked_at_are_named_and_no_release(capsys):
    python = next(package for package in LOCKED if package.name == "python3")
    others = [*(package for package in LOCKED if package is not python), python._replace(version="99"),
              image_packages.Package("netcat", "1", "amd64")]  # fmt: skip
    with pytest.raises(release.ReleaseError, match="make lock-debian") as error:
        release.check_debian(others[1:], debian_of_today=False)
    for line in (f"python3: {python.version} is locked, the image has 99", "netcat: not there is locked",
                 f"{LOCKED[0].name}: {LOCKED[0].version} is locked, the image has none"):  # fmt: skip
        assert line in str(error.value)
    release.check_debian(others, debian_of_today=True)
    assert "the image has 99" in capsys.readouterr().out
    release.check_debian(LOCKED, debian_of_today=False)


def test_the_bill_of_materials_of_the_image_has_debians_packages_beside_those_of_python():
    of_python = {"bomFormat": "CycloneDX", "components": [{"name": "aiohttp"}]}
    found = [image_packages.Package("libc6", "2.36-9+deb12u10", "amd64"), image_packages.Package("x", "1:2~3", "all")]
    document = image_packages.bill_of_materials(of_python, found)
    assert [part["name"] for part in document["components"]] == ["aiohttp", "libc6", "x"]
    assert document["components"][1]["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64"
    assert document["components"][2]["purl"] == "pkg:deb/debian/x@1%3A2~3?arch=all"
    assert len(of_python["components"]) == 1


@pytest.mark.parametrize("line", ["libc6 2.36", "libc6 2.36 amd64 main", "libc6"])
def test_a_lock_that_was_written_by_hand_is_checked(line):
    with pytest.raises(ValueError, match="name, version and architecture"):
        image_packages.parsed(f"{image_packages.HEADER}{line}\n")


def test_what_is_not_committed_is_named_and_nothing_built(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(release, "_run", lambda *_command, **_options: b" M app/main.py\n")
    assert release.main([str(tmp_path / "dist")]) == 1
    assert "app/main.py" in capsys.readouterr().err
    assert not (tmp_path / "dist").exists()


def test_the_version_is_the_same_wherever_it_is_written():
    texts = [path.read_text(encoding="utf-8") for path in (REPOSITORY / "app").rglob("*.py")]
    written = {found for text in texts for found in re.findall(r'(?i)\bversion = "(\d+\.\d+\.\d+)"', text)}
    assert written == {VERSION}, "what /metrics and `connector --version` say"
