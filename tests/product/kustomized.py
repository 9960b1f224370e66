"""The manifests of k8s/ as kustomize renders them, and the definitions that they are held against, all on disk."""

from __future__ import annotations

import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from tools.brokers.process import ProcessError

KUSTOMIZE_VERSION = "5.7.1"
REPOSITORY = Path(__file__).resolve().parents[2]
OVERLAYS = REPOSITORY / "k8s" / "overlays"
TOOLS = REPOSITORY / ".tools" / f"kustomize-{KUSTOMIZE_VERSION}"
# kubernetes-validate brings the schemas of these; the oldest has every field that is used.
KUBERNETES_VERSIONS = ("1.30", kubernetes_validate.latest_version())
OPERATOR_GROUP = "monitoring.coreos.com/"


def _command() -> list[str]:
    """Return what renders: kustomize as built for the tests, or the one that kubectl has in it."""
    if (TOOLS / "kustomize").exists():
        return [str(TOOLS / "kustomize"), "build"]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        pytest.skip("needs kustomize, which `make brokers` builds where there is Go, or kubectl")
    return [kubectl, "kustomize"]


@cache
def rendered(directory: Path) -> tuple[dict[str, Any], ...]:
    """Return the manifests of a directory with a kustomization."""
    result = subprocess.run([*_command(), str(directory)], capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise ProcessError(f"{directory} cannot be rendered: {result.stderr}")
    return tuple(yaml.safe_load_all(result.stdout))


def documented_overlays(directory: Path) -> Path:
    """Copy k8s/, and make the overlays of docs/deploy.md in it, as its reader does; return where they are."""
    text = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    overlays = shutil.copytree(REPOSITORY / "k8s", directory / "k8s") / "overlays"
    wholes = [block for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL) if "kind: Kustomization" in block]
    for name, kustomization in zip(("mine", "line-2"), wholes, strict=True):
        (overlays / name).mkdir()
        (overlays / name / "kustomization.yaml").write_text(kustomization, encoding="utf-8")
    for name in ("settings", "secrets"):
        content = re.search(rf"{name}\.env <<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)
        assert content is not None, name
        (overlays / "mine" / f"{name}.env").write_text(content[1], encoding="utf-8")
    shutil.copy(overlays / "edge" / "settings.env", overlays / "line-2")
    return overlays


def the(kind: str, manifests: tuple[dict[str, Any], ...], name: str = "connector") -> dict[str, Any]:
    """Return the one manifest of a kind whose name begins so; a dashboard is a ConfigMap too."""
    named = [manifest for manifest in manifests if manifest["metadata"]["name"].startswith(name)]
    (found,) = (
        manifest for manifest in named if manifest["kind"] == kind and "dashboard" not in str(manifest["metadata"])
    )
    return found


def validate(manifest: dict[str, Any]) -> None:
    """Fail unless the manifest is what its definition says, unknown fields included.

    Kubernetes' own kinds are held against its schemas, those of the Prometheus operator against its definitions.
    """
    if not manifest["apiVersion"].startswith(OPERATOR_GROUP):
        for version in KUBERNETES_VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
        return
    path = TOOLS / "definitions" / f"monitoring.coreos.com_{manifest['kind'].lower()}s.yaml"
    if not path.exists():
        pytest.skip("needs the definitions of the Prometheus operator, which `make brokers` fetches where there is Go")
    jsonschema.Draft202012Validator(_strict(_schema(path))).validate(manifest)


def _schema(path: Path) -> dict[str, Any]:
    definition = yaml.safe_load(path.read_text(encoding="utf-8"))
    return definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def _strict(schema: Any) -> Any:
    """Return the schema without fields that it does not name; Kubernetes would drop these silently."""
    if isinstance(schema, list):
        return [_strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(part) for name, part in schema.items()}
    if strict.get("type") == "object" and strict.get("properties") and "additionalProperties" not in strict:
        strict["additionalProperties"] = False
    return strict
