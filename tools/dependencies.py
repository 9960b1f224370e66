"""What the bridge is built on: `python -m tools.dependencies sbom` lists it, `... audit` asks what is known of it.

Both read requirements/runtime.txt, the lock file. The list is a CycloneDX document that is the same every time.
Licences are those that the installed packages name; a package that is locked for another system only has none there.
Some packages bring libraries in C and C++ inside, whose weaknesses are known by other names: these are listed as parts.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import confluent_kafka

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "runtime.txt"
# The exit codes of `audit`; the third is one of its own, as an audit that did not take place must not look like one.
NOTHING_KNOWN, VULNERABLE, NOT_AUDITED = 0, 1, 3
AUDIT_SECONDS = 300.0  # for all packages; a service that takes longer does not answer
_LONGEST_LICENCE_CHARACTERS = 100  # some packages put the whole text there


class Inside(NamedTuple):
    """A library that a package brings compiled.

    Attributes:
        name: of the library.
        licence: of the library.
        package: that brings it.
        files: how the names of the files begin that have it in them.
        version: what stands in these files, with the version as its group.
    """

    name: str
    licence: str
    package: str
    files: str
    version: bytes


_OF_KAFKA = ("confluent-kafka", "confluent_kafka.libs/librdkafka")
INSIDE = (
    Inside("openssl", "Apache-2.0", *_OF_KAFKA, rb"\0OpenSSL (\d+\.\d+\.\d+) "),
    Inside("zlib", "Zlib", *_OF_KAFKA, rb" inflate (\d+\.\d+[.\d]*) "),
    Inside("rocksdb", "Apache-2.0", "rocksdict", "rocksdict/rocksdict.", rb"rocksdb_build_git_tag:v(\d+\.\d+\.\d+)"),
)


class DependencyError(Exception):
    """A tool did not do what it was asked for; its own last words are the text."""


def licence_of(name: str, version: str) -> str:
    """Return what the installed package says, as an SPDX expression where it has one; empty if that is unknown."""
    try:
        # A mapping of its own kind, in which a name may occur several times.
        metadata: Any = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return ""
    if metadata["Version"] != version:
        return ""
    free_text = metadata.get("License") or ""
    classifiers = [line for line in metadata.get_all("Classifier") or () if line.startswith("License ::")]
    short = free_text if len(free_text) <= _LONGEST_LICENCE_CHARACTERS and "\n" not in free_text else ""
    return metadata.get("License-Expression") or short or ", ".join(line.split(" :: ")[-1] for line in classifiers)


def bill_of_materials() -> dict[str, Any]:
    """Return the CycloneDX document.

    Raises:
        DependencyError: cyclonedx-bom is missing or failed.
    """
    done = _run("cyclonedx_py", "requirements", "--output-reproducible", "--of", "JSON", str(LOCK))
    if done.returncode:
        raise DependencyError(_last_line(done.stderr))
    document: dict[str, Any] = json.loads(done.stdout)
    for component in document["components"]:
        component.pop("description", None)  # the line of the lock file, with all its hashes once more
        if licence := licence_of(component["name"], component["version"]):
            component["licenses"] = [{"license": {"name": licence}}]
            if inside := libraries_inside(component["name"]):
                component["components"] = inside
    return document


def libraries_inside(package: str) -> list[dict[str, Any]]:
    """Return the libraries that the installed package has in it, as parts of a CycloneDX document."""
    found = [(inside.name, version, inside.licence) for inside in INSIDE if inside.package == package
             for version in _versions(inside)]  # fmt: skip
    if package == "confluent-kafka":
        found.insert(0, ("librdkafka", confluent_kafka.libversion()[0], "BSD-2-Clause"))
    return [
        {"type": "library", "bom-ref": f"{package}/{name}", "name": name, "version": version,
         "licenses": [{"license": {"name": licence}}]}
        for name, version, licence in found
    ]  # fmt: skip


def _versions(inside: Inside) -> list[str]:
    """Return the version that an installed file names; none where the package has another form, as on other systems."""
    files = [file for file in importlib.metadata.files(inside.package) or () if str(file).startswith(inside.files)]
    found = {version.decode() for file in files for version in re.findall(inside.version, file.read_binary())}
    return sorted(found)


def audit(arguments: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Ask pip-audit's service about every locked package.

    Args:
        arguments: Further ones for pip-audit.

    Returns:
        The exit code, and what to say. Silence of the service, about one package or all, is not a pass.
    """
    try:
        done = _run("pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json",
                    "--progress-spinner", "off", *arguments)  # fmt: skip
    except subprocess.TimeoutExpired:
        return NOT_AUDITED, [f"NOT AUDITED: the service did not answer within {AUDIT_SECONDS:.0f} seconds"]
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return NOT_AUDITED, [f"NOT AUDITED: the service did not answer ({_last_line(done.stderr)})"]
    found = [(package, entry) for package in packages for entry in package.get("vulns", ())]
    silent = [package["name"] for package in packages if "skip_reason" in package]
    lines = [
        f"{package['name']} {package['version']}: {entry['id']}, mended in {', '.join(entry['fix_versions']) or 'none'}"
        for package, entry in found
    ]
    if silent:
        lines.append(f"NOT AUDITED: the service knows nothing of {len(silent)} of {len(packages)} packages: "
                     f"{', '.join(silent)}")  # fmt: skip
    if found:
        return VULNERABLE, lines
    return (NOT_AUDITED, lines) if silent or not packages else (NOTHING_KNOWN, [f"{len(packages)} packages: all well"])


def _run(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False,
                          timeout=AUDIT_SECONDS)  # fmt: skip


def _last_line(text: str) -> str:
    return next(reversed(text.strip().splitlines()), "no reason given")


def main(arguments: list[str]) -> int:
    """Do what the command line asks for; return the exit status."""
    if arguments == ["sbom"]:
        print(json.dumps(bill_of_materials(), indent=2, sort_keys=True))
        return 0
    if arguments[:1] == ["audit"]:
        status, lines = audit(tuple(arguments[1:]))
        print("\n".join(lines))
        return status
    print("usage: python -m tools.dependencies sbom | audit", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
