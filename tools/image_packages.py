"""The Debian packages of the image: image/debian.lock names those that a person has seen, with their versions.

Debian keeps no old packages where it keeps new ones, so a build takes those of the day, which Debian signed. A release
compares them with the lock: what has another version is named, and gets in only when somebody wants that. The bill of
materials of the image is made from what is in it, not from the lock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Sequence

HEADER = "# The Debian packages of the image: name, version, architecture. `make lock-debian` writes it.\n"


class Package(NamedTuple):
    """A package as dpkg names it."""

    name: str
    version: str
    architecture: str


def parsed(text: str) -> list[Package]:
    """Return the packages of a lock, or of a list that image/builder.sh made.

    Raises:
        ValueError: A line is none of the three words.
    """
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    if wrong := [line for line in lines if len(line) != len(Package._fields)]:
        raise ValueError(f"name, version and architecture are expected, not {' '.join(wrong[0])}")
    return [Package(*line) for line in lines]


def lock_of(packages: Sequence[Package]) -> str:
    """Return the text of the lock for an image that has these."""
    return HEADER + "".join(f"{' '.join(package)}\n" for package in packages)


def differences(locked: Sequence[Package], found: Sequence[Package]) -> list[str]:
    """Say what is in the image and not in the lock, or the other way round; the architecture is not compared."""
    before, now = ({package.name: package.version for package in packages} for packages in (locked, found))
    return [
        f"{name}: {before.get(name, 'not there')} is locked, the image has {now.get(name, 'none')}"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
    ]


def bill_of_materials(of_python: dict[str, Any], packages: Sequence[Package]) -> dict[str, Any]:
    """Return the CycloneDX document of the image: what the bridge is built on, and what Debian has in it."""
    of_debian = [
        {
            "type": "library",
            "bom-ref": f"debian/{package.name}",
            "name": package.name,
            "version": package.version,
            "purl": f"pkg:deb/debian/{package.name}@{_escaped(package.version)}?arch={package.architecture}",
        }
        for package in packages
    ]
    return {**of_python, "components": [*of_python["components"], *of_debian]}


def _escaped(version: str) -> str:
    """Return a version as addresses of packages write it."""
    return quote(version, safe="~")
