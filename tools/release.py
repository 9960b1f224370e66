"""What a release consists of: `python -m tools.release` builds it from the last commit into dist/.

Wheel, source archive, bill of materials, the bundle for systems without a registry (`offline`) and their SHA-256 sums
are the same for everybody who builds the same commit with the same lock file. The image is the same as long as Debian's
packages are, and a release has the versions that image/debian.lock names; docs/releases.md says what that means.
To be sure of it, everything is built twice, in two places, and compared.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tools import image_archive, image_packages, offline
from tools.dependencies import DependencyError, bill_of_materials

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"
DEBIAN_LOCK = REPOSITORY / "image" / "debian.lock"
# The first Pythons 3.10 and 3.11, as Debian 12's, know no filters yet; what is unpacked is git's own.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class ReleaseError(Exception):
    """It cannot be built, or not twice in the same way; the text says why."""


def _run(*command: str, directory: Path = REPOSITORY, **environment: str) -> bytes:
    done = subprocess.run(command, cwd=directory, env={**os.environ, **environment}, capture_output=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    return done.stdout


def last_commit() -> str:
    """Return the id of the last commit. All of a release is made from it, though another one be made meanwhile."""
    return _run("git", "rev-parse", "HEAD").decode().strip()


def commit_seconds(commit: str = "HEAD") -> int:
    """Return when a commit was made, in seconds since 1970: the only time that a release knows."""
    return int(_run("git", "log", "-1", "--format=%ct", commit))


def check_committed() -> None:
    """See that a release would have everything.

    Raises:
        ReleaseError: Files differ from the last commit.
    """
    if changed := _run("git", "status", "--porcelain", "--untracked-files=normal").decode().strip():
        raise ReleaseError(f"commit these first, as a release is made from a commit:\n{changed}")


def image_hindrance() -> str:
    """Return why the image cannot be built on this machine, empty if it can."""
    return _run("bash", "-c", ". image/builder.sh && image_hindrance").decode().strip()


def build(
    target: Path, commit: str, *, image: bool = False, bundle: bool = False, debian_of_today: bool = False
) -> None:
    """Build wheel, source archive, image and bundle if wanted, bills of materials and sums from a commit.

    Raises:
        ReleaseError: A tool failed; its own last words are in the text. Or Debian has other packages than are locked.
    """
    target.mkdir(parents=True, exist_ok=True)
    epoch_seconds = commit_seconds(commit)
    with tempfile.TemporaryDirectory(prefix="connector-release-") as place:
        source = Path(place) / "source"
        source.mkdir()
        with tarfile.open(fileobj=io.BytesIO(_run("git", "archive", commit))) as archive:
            archive.extractall(source, **SAFELY)  # noqa: S202  # nosec B202 - git made the archive
        # Without isolation: the lock file has what is built with, and nothing is fetched.
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
        _run(*command, "--sdist", "--wheel", "--python", sys.executable, "--out-dir", str(Path(place) / "built"),
             directory=source, SOURCE_DATE_EPOCH=str(epoch_seconds), PYTHONHASHSEED="0")  # fmt: skip
        for file in sorted((Path(place) / "built").glob("connector-*")):
            data = file.read_bytes()
            (target / file.name).write_bytes(_repacked(data, epoch_seconds) if file.suffix == ".gz" else data)
        if bundle:
            (wheel,) = target.glob("*.whl")
            offline.bundle(source, wheel, target, epoch_seconds)
        if image:
            check_debian(_build_image(source, target, commit), debian_of_today=debian_of_today)
    _write(target / "sbom.json", bill_of_materials())
    (target / SUMS).write_text(sums(target), encoding="utf-8")


def _build_image(source: Path, target: Path, commit: str) -> list[image_packages.Package]:
    """Build the image from a commit's files, with the commit's own script; return what Debian has in it."""
    (wheel,) = target.glob("*.whl")
    version = wheel.name.split("-")[1]
    given, listed = source.parent / "image.tar", source.parent / "packages"
    _run(str(source / "image" / "release.sh"), str(source), str(given), str(listed), version, commit,
         SOURCE_DATE_EPOCH=str(commit_seconds(commit)))  # fmt: skip
    image_archive.settle(given, target / f"connector-{version}-image.tar.gz", f"connector:{version}")
    packages = image_packages.parsed(listed.read_text(encoding="utf-8"))
    document = image_packages.bill_of_materials(bill_of_materials(), packages)
    _write(target / f"connector-{version}-image.sbom.json", document)
    return packages


def check_debian(found: Sequence[image_packages.Package], *, debian_of_today: bool) -> None:
    """See that the image has the Debian packages that somebody looked at; say which it has in their place, if wanted.

    Raises:
        ReleaseError: It has others, and they are not wanted.
    """
    locked = image_packages.parsed(DEBIAN_LOCK.read_text(encoding="utf-8"))
    lines = "\n".join(image_packages.differences(locked, found))
    if lines and not debian_of_today:
        raise ReleaseError(
            f"Debian has other packages than image/debian.lock names:\n{lines}\n"
            "Look at them. Then `make lock-debian` and commit, or release with ARGS=--debian-of-today"
        )
    if lines:
        print(f"other Debian packages than image/debian.lock names, as you asked:\n{lines}", flush=True)


def lock_debian() -> None:
    """Write image/debian.lock from an image of the files as they are.

    Raises:
        ReleaseError: It could not be built.
    """
    with tempfile.TemporaryDirectory(prefix="connector-release-") as place:
        given, listed = Path(place) / "image.tar", Path(place) / "packages"
        _run("image/release.sh", ".", str(given), str(listed), "0", "0", SOURCE_DATE_EPOCH=str(commit_seconds()))
        packages = image_packages.parsed(listed.read_text(encoding="utf-8"))
    DEBIAN_LOCK.write_text(image_packages.lock_of(packages), encoding="utf-8")


def _write(path: Path, document: dict[str, Any]) -> None:
    path.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def _repacked(data: bytes, epoch_seconds: int) -> bytes:
    """Return a source archive without what differs from place to place: times, owners, order."""
    result = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as given,
        gzip.GzipFile(filename="", mode="wb", fileobj=result, mtime=epoch_seconds) as compressed,
        tarfile.open(fileobj=compressed, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for member in sorted(given.getmembers(), key=lambda each: each.name):
            member.mtime, member.uid, member.gid, member.uname, member.gname = epoch_seconds, 0, 0, "", ""
            member.pax_headers = {}
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            archive.addfile(member, given.extractfile(member) if member.isfile() else None)
    return result.getvalue()


def sums(directory: Path) -> str:
    """Return the SHA-256 sums of a directory's files, as `sha256sum --check` reads them."""
    files = sorted(file for file in directory.iterdir() if file.name != SUMS)
    return "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)


def release(target: Path, *, image: bool = False, bundle: bool = False, debian_of_today: bool = False) -> str:
    """Build twice, compare, and put one of them into a directory; return its sums.

    Raises:
        ReleaseError: The two differ, or one could not be built.
    """
    previous_mask = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(prefix="connector-release-") as place:
            first, second = Path(place) / "first", Path(place) / "second"
            commit = last_commit()
            for directory in (first, second):
                build(directory, commit, image=image, bundle=bundle, debian_of_today=debian_of_today)
            if (built := sums(first)) != sums(second):
                raise ReleaseError(f"two builds of one commit differ:\n{built}{sums(second)}")
            target.mkdir(parents=True, exist_ok=True)
            for old in target.iterdir():
                old.unlink()
            for file in first.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
    finally:
        os.umask(previous_mask)
    return built


def _with_image(*, wanted: bool) -> bool:
    """Return whether to build the image, and say so, as it takes minutes or is missing in what is published."""
    hindrance = image_hindrance() if wanted else "as you asked"
    print(f"without the image: {hindrance}" if hindrance else "with the image, which takes minutes", flush=True)
    return not hindrance


def _locked() -> int:
    """Write the lock of Debian's packages, or say why not; return the exit status."""
    if hindrance := image_hindrance():
        print(f"release: no image can be built: {hindrance}", file=sys.stderr)
        return 1
    lock_debian()
    print("written: image/debian.lock; `git diff image/debian.lock` shows what changed")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the release; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.release", description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=REPOSITORY / "dist", help="directory (default: dist)")
    parser.add_argument("--without-image", action="store_true", help="leave out the image")
    parser.add_argument("--without-bundle", action="store_true", help="leave out the bundle, which fetches wheels")
    parser.add_argument(
        "--debian-of-today", action="store_true", help="take other packages than image/debian.lock names"
    )
    parser.add_argument("--lock-debian", action="store_true", help="write image/debian.lock, and nothing else")
    given = parser.parse_args(arguments)
    try:
        if given.lock_debian:
            return _locked()
        check_committed()
        image = _with_image(wanted=not given.without_image)
        bundle = not given.without_bundle
        print(release(given.target, image=image, bundle=bundle, debian_of_today=given.debian_of_today), end="")
    except (ReleaseError, DependencyError, offline.BundleError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"built twice, the same each time: {given.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
