"""What the bridge is built on: `python -m clients.dependencies sbom` lists it, `... audit` asks what is known of it.

Both read requirements/runtime.txt, the lock file. The list is a CycloneDX document that is the same every time.
Licences are those that the installed packages name; a package that is locked for another system only has none there.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

LOCK = Path(__file__).resolve().parents[1] / "requirements" / "runtime.txt"
# The exit codes of `audit`; the third is one of its own, as an audit that did not take place must not look like one.
NOTHING_KNOWN, VULNERABLE, NOT_AUDITED = 0, 1, 3
_LONGEST_LICENCE_CHARACTERS = 100  # some packages put the whole text there


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
    return document


def audit(arguments: tuple[str, ...] = ()) -> tuple[int, list[str]]:
    """Ask pip-audit's service about every locked package.

    Args:
        arguments: Further ones for pip-audit.

    Returns:
        The exit code, and what to say. Silence of the service, about one package or all, is not a pass.
    """
    done = _run("pip_audit", "--requirement", str(LOCK), "--require-hashes", "--disable-pip", "--format", "json",
                "--progress-spinner", "off", *arguments)  # fmt: skip
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
    return subprocess.run([sys.executable, "-m", module, *arguments], capture_output=True, text=True, check=False)


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
    print("usage: python -m clients.dependencies sbom | audit", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
