"""What a release consists of: `python -m clients.release` builds it from the last commit into dist/.

Wheel, source archive, bill of materials and their SHA-256 sums are the same for everybody who builds the same commit
with the same lock file. The image is the same as long as Debian's packages are; docs/releases.md says what that means.
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

from clients import image_archive
from clients.dependencies import DependencyError, bill_of_materials

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).resolve().parents[1]
SUMS = "SHA256SUMS"
# The first Pythons 3.10 and 3.11, as Debian 12's, know no filters yet; what is unpacked is git's own.
SAFELY: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}


class ReleaseError(Exception):
    """It cannot be built, or not twice in the same way; the text says why."""


def _run(*command: str, directory: Path = REPOSITORY, **environment: str) -> bytes:
    done = subprocess.run(command, cwd=directory, env={**os.environ, **environment}, capture_output=True, check=False)
    if done.returncode:
        raise ReleaseError(f"{' '.join(command)}: {done.stderr.decode(errors='replace').strip()[-2000:]}")
    return done.stdout


def commit_seconds() -> int:
    """Return when the last commit was made, in seconds since 1970: the only time that a release knows."""
    return int(_run("git", "log", "-1", "--format=%ct"))


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


def build(target: Path, *, image: bool = False) -> None:
    """Build wheel, source archive, image if wanted, bill of materials and sums from the last commit.

    Raises:
        ReleaseError: A tool failed; its own last words are in the text.
    """
    target.mkdir(parents=True, exist_ok=True)
    epoch_seconds = commit_seconds()
    with tempfile.TemporaryDirectory(prefix="connector-release-") as place:
        source = Path(place) / "source"
        source.mkdir()
        with tarfile.open(fileobj=io.BytesIO(_run("git", "archive", "HEAD"))) as archive:
            archive.extractall(source, **SAFELY)  # noqa: S202  # nosec B202 - git made the archive
        # Without isolation: the lock file has what is built with, and nothing is fetched.
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation"]
        _run(*command, "--sdist", "--wheel", "--python", sys.executable, "--out-dir", str(Path(place) / "built"),
             directory=source, SOURCE_DATE_EPOCH=str(epoch_seconds), PYTHONHASHSEED="0")  # fmt: skip
        for file in sorted((Path(place) / "built").glob("connector-*")):
            data = file.read_bytes()
            (target / file.name).write_bytes(_repacked(data, epoch_seconds) if file.suffix == ".gz" else data)
        if image:
            _build_image(source, target, epoch_seconds)
    (target / "sbom.json").write_text(json.dumps(bill_of_materials(), indent=2) + "\n", encoding="utf-8")
    (target / SUMS).write_text(sums(target), encoding="utf-8")


def _build_image(source: Path, target: Path, epoch_seconds: int) -> None:
    """Build the image from a commit's files, with the commit's own script."""
    (wheel,) = target.glob("*.whl")
    version, revision = wheel.name.split("-")[1], _run("git", "rev-parse", "HEAD").decode().strip()
    given = source.parent / "image.tar"
    _run(str(source / "image" / "release.sh"), str(source), str(given), version, revision,
         SOURCE_DATE_EPOCH=str(epoch_seconds))  # fmt: skip
    image_archive.settle(given, target / f"connector-{version}-image.tar.gz", f"connector:{version}")


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


def release(target: Path, *, image: bool = False) -> str:
    """Build twice, compare, and put one of them into a directory; return its sums.

    Raises:
        ReleaseError: The two differ, or one could not be built.
    """
    previous_mask = os.umask(0o022)
    try:
        with tempfile.TemporaryDirectory(prefix="connector-release-") as place:
            first, second = Path(place) / "first", Path(place) / "second"
            build(first, image=image)
            build(second, image=image)
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


def main(arguments: Sequence[str] | None = None) -> int:
    """Build the release; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m clients.release", description=__doc__)
    parser.add_argument("target", nargs="?", type=Path, default=REPOSITORY / "dist", help="directory (default: dist)")
    parser.add_argument("--without-image", action="store_true", help="leave out the image")
    given = parser.parse_args(arguments)
    try:
        check_committed()
        print(release(given.target, image=_with_image(wanted=not given.without_image)), end="")
    except (ReleaseError, DependencyError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    print(f"built twice, the same each time: {given.target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
