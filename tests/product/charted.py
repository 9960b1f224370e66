"""The Helm chart of k8s/helm as helm renders it, and what differs between two sets of manifests."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from tools.brokers.process import ProcessError

HELM_VERSION = "3.19.5"
REPOSITORY = Path(__file__).resolve().parents[2]
HELM = REPOSITORY / ".tools" / f"helm-{HELM_VERSION}" / "helm"
EXAMPLES = REPOSITORY / "k8s" / "helm"
CHART = EXAMPLES / "connector"
# The oldest that is supported; helm itself would otherwise take what it was built with.
KUBERNETES = "1.30.0"
# The logs of helm say that a link was followed; where the chart is packaged there is none.
OF_LINKS = "found symbolic link"
Manifests = tuple[dict[str, Any], ...]


def helm(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run helm, without what it says of links."""
    if not HELM.exists():
        pytest.skip("needs what `make chart-test` builds where there is Go: helm")
    done = subprocess.run([str(HELM), *map(str, arguments)], capture_output=True, text=True, check=False)
    done.stderr = "".join(line for line in done.stderr.splitlines(keepends=True) if OF_LINKS not in line)
    return done


def rendered(
    *files: str, values: Mapping[str, Any] | None = None, release: str = "connector", namespace: str = "connector",
    chart: Path = CHART,
) -> Manifests:  # fmt: skip
    """Return the manifests of a release, or raise with what helm says.

    Args:
        *files: of values, by their names in k8s/helm.
        values: further ones.
        release: its name.
        namespace: where it goes.
        chart: the directory, or a package.
    """
    return _rendered(files, json.dumps(values or {}), release, namespace, chart)


@cache
def _rendered(files: tuple[str, ...], values: str, release: str, namespace: str, chart: Path) -> Manifests:
    options = [option for name in files for option in ("--values", EXAMPLES / name)]
    for name, value in json.loads(values).items():
        options += ["--set-json", f"{name}={json.dumps(value)}"]
    done = helm("template", release, chart, "--namespace", namespace, "--kube-version", KUBERNETES, *options)
    if done.returncode != 0:
        raise ProcessError(done.stderr)
    return tuple(document for document in yaml.safe_load_all(done.stdout) if document)


def by_name(manifests: Manifests) -> dict[str, dict[str, Any]]:
    """Return the manifests by kind and name."""
    found = {f"{each['kind']} {each['metadata']['name']}": each for each in manifests}
    assert len(found) == len(manifests)
    return found


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Yield a line for each field in which two manifests, or sets of them, differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for name in sorted({*one, *other}):
            yield from differences(one.get(name, "nothing"), other.get(name, "nothing"), f"{path} / {name}")
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for number, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from differences(first, second, f"{path} / {number}")
    elif one != other:
        yield f"{path.removeprefix(' / ')}: kustomize has {_shown(one)}, the chart {_shown(other)}"


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
