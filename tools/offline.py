"""The bundle that installs without any registry: `python -m tools.offline DIRECTORY` makes it of the files as they are.

In it are the wheels of Connector, of all that it needs at run time, and of pip, for each Python and the processor that
are named below; the unit of systemd with its script that installs; the documents; and the sums of all of it. The wheels
are those of requirements/runtime.txt, by their hashes, so that two bundles of one commit are the same.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from packaging.requirements import Requirement

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")
MACHINE = "x86_64"  # faust-streaming has no wheels for others
# Those of glibc 2.34 and before, as RHEL 9 has it; Ubuntu 22.04 and Debian 12 have later ones.
PLATFORMS = tuple(
    f"{name}_{MACHINE}"
    for name in (
        *(f"manylinux_2_{minor}" for minor in range(34, 4, -1)),
        "manylinux2014",
        "manylinux2010",
        "manylinux1",
    )
)
SUMS = "SHA256SUMS"
# What lies in the bundle under which name.
FILES = {
    "LICENSE": "LICENSE",
    "CHANGELOG.md": "CHANGELOG.md",
    "requirements/runtime.txt": "requirements.txt",
    ".env.example": "connector.env",
    "image/systemd/connector.service": "connector.service",
    "image/systemd/connector": "connector",
    "image/systemd/install.sh": "install.sh",
}


class BundleError(Exception):
    """The bundle cannot be made; the text says why."""


def requirements_for(text: str, python: str) -> str:
    """Return the lines of a lock file that count for a Python on Linux; pip judges them by the one that runs it."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "platform_machine": MACHINE,
        "implementation_name": "cpython",
    }
    return "".join(
        entry for entry, named in _entries(text) if named.marker is None or named.marker.evaluate(environment)
    )


def _entries(text: str) -> Iterator[tuple[str, Requirement]]:
    """Yield each entry of a lock file, its hashes with it, and what it names."""
    plain = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)
    for entry in re.findall(r"^\S(?:.*\\\n)*.*\n", plain, re.MULTILINE):
        yield entry, Requirement(entry.partition("\\")[0].strip())


def fetch_wheels(source: Path, target: Path) -> None:
    """Fetch the wheels that a source tree locks, and pip, for each Python.

    Raises:
        BundleError: One is not to be had, or has not the sum that is locked.
    """
    runtime = (source / "requirements" / "runtime.txt").read_text(encoding="utf-8")
    dev = (source / "requirements" / "dev.txt").read_text(encoding="utf-8")
    pip = "".join(entry for entry, named in _entries(dev) if named.name == "pip")
    for python in PYTHONS:
        with tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8") as wanted:
            wanted.write(requirements_for(runtime, python) + pip)
            wanted.flush()
            _download(Path(wanted.name), python, target)


def _download(requirements: Path, python: str, target: Path) -> None:
    platforms = [part for platform in PLATFORMS for part in ("--platform", platform)]
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--only-binary", ":all:", "--require-hashes", "--implementation", "cp", "--python-version", python,
        *platforms, "--requirement", str(requirements), "--dest", str(target),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BundleError(f"the wheels for Python {python} cannot be fetched, without which there is no bundle "
                          f"(--without-bundle): {done.stderr.strip()[-2000:]}")  # fmt: skip


def bundle(source: Path, wheel: Path, target: Path, epoch_seconds: int) -> Path:
    """Write the bundle of a source tree and the wheel that was made of it into a directory; return its path.

    Raises:
        BundleError: Wheels cannot be fetched.
    """
    version = wheel.name.split("-")[1]
    with tempfile.TemporaryDirectory(prefix="connector-wheels-") as place:
        fetch_wheels(source, Path(place))
        contents = {f"wheels/{path.name}": path.read_bytes() for path in (*Path(place).iterdir(), wheel)}
    contents |= {name: (source / path).read_bytes() for path, name in FILES.items()}
    contents |= {f"docs/{path.name}": path.read_bytes() for path in (source / "docs").iterdir() if path.is_file()}
    contents[SUMS] = _sums(contents).encode()
    path = target / f"connector-{version}-offline-{MACHINE}.tar"
    _write(path, f"connector-{version}", contents, epoch_seconds)
    return path


def _sums(contents: dict[str, bytes]) -> str:
    return "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(contents.items()))


def _write(path: Path, top: str, contents: dict[str, bytes], epoch_seconds: int) -> None:
    """Write an archive that is the same each time; wheels are compressed as they are."""
    with tarfile.open(path, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in sorted(contents.items()):
            member = tarfile.TarInfo(f"{top}/{name}")
            member.size, member.mtime = len(data), epoch_seconds
            member.mode = 0o755 if data.startswith(b"#!") else 0o644
            archive.addfile(member, io.BytesIO(data))


def main(arguments: list[str]) -> int:
    """Make the bundle from the files as they are, for tests; return the exit status."""
    (target,) = map(Path, arguments)
    target.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="connector-wheel-") as place:
        command = [sys.executable, "-m", "uv", "build", "--quiet", "--offline", "--no-build-isolation", "--wheel"]
        subprocess.run(
            [*command, "--out-dir", place, str(REPOSITORY)], check=True, env={**os.environ, "UV_NO_CACHE": "1"}
        )
        (wheel,) = Path(place).glob("*.whl")
        try:
            print(bundle(REPOSITORY, wheel, target, epoch_seconds=0))
        except BundleError as error:
            print(f"offline: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
