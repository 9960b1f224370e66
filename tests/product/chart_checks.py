"""The commands of docs/helm.md, with helm on a real API server and its controllers: `make k8s-test`.

Not part of `make test`, as helm and the control plane take long to build. There is no kubelet: `Cluster` says what is
real, so a pod is ready when the test says so.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.product.charted import CHART, HELM, REPOSITORY
from tests.product.kubernetes_checks import bind
from tests.product.kubernetes_cluster import Cluster, RefusedError
from tests.support.oracle import wait_until

DOCUMENT = (REPOSITORY / "docs" / "helm.md").read_text(encoding="utf-8")
NAMESPACE = "connector"
INSTALL = "helm install north connector-0.2.0.tgz --namespace connector --values north.yaml"
UPGRADE = "helm upgrade north connector-0.2.0.tgz --namespace connector --values north.yaml"
STATUS = "kubectl --namespace connector rollout status statefulset north-connector"


@pytest.fixture
def cluster(tmp_path):
    with Cluster(tmp_path / "cluster") as running:
        yield running


@pytest.fixture
def folder(tmp_path):
    """Return where one who follows the document is: the chart with what it links to, the values, two passwords."""
    shutil.copytree(REPOSITORY / "k8s", tmp_path / "k8s", symlinks=True)
    values = re.search(r"```yaml\n(.*?)```", DOCUMENT, re.DOTALL)
    assert values is not None
    (tmp_path / "north.yaml").write_text(values[1], encoding="utf-8")
    for name in ("MQTT_USER_PASSWORD", "KAFKA_SASL_PASSWORD"):
        (tmp_path / name).write_text(f"of {name}\n", encoding="utf-8")
    return tmp_path


@pytest.fixture
def typed(cluster, folder):
    """Return what runs a command of the document as it stands there."""

    def run(command: str) -> str:
        assert command in re.sub(r"\\\n *", "", DOCUMENT), "it is in the document"
        return cluster.typed(command, folder, HELM.parent)

    return run


def change(folder: Path, **values: object) -> None:
    """Change values in the file, as an editor does; the name of one in another has two underscores."""
    text = yaml.safe_load((folder / "north.yaml").read_text(encoding="utf-8"))
    for name, value in values.items():
        *path, last = name.split("__")
        where = text
        for part in path:
            where = where[part]
        where[last] = value
    (folder / "north.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")


def prepare(typed) -> None:
    """Do what stands before the installation."""
    typed("helm package k8s/helm/connector")
    typed("kubectl create namespace connector")
    typed("kubectl label namespace connector pod-security.kubernetes.io/enforce=restricted")
    typed(
        "kubectl --namespace connector create secret generic connector-secrets "
        "--from-file=MQTT_USER_PASSWORD --from-file=KAFKA_SASL_PASSWORD"
    )


def revision(cluster: Cluster) -> str:
    return cluster.pods(NAMESPACE)["north-connector-0"]["metadata"]["labels"]["controller-revision-hash"]


def wait_for_another_pod(cluster: Cluster, before: str) -> None:
    wait_until(lambda: "north-connector-0" in cluster.pods(NAMESPACE) and revision(cluster) != before, "a new pod")


def claim(cluster: Cluster) -> dict:
    return cluster.get("pvc", "data-north-connector-0", "--namespace", NAMESPACE)


def test_what_the_document_has_typed_installs_upgrades_goes_back_and_leaves_the_volume(cluster, folder, typed):
    prepare(typed)
    said = typed(INSTALL)
    assert "Warning" not in said and "needs the Secret connector-secrets" in said
    cluster.become_ready(NAMESPACE, "north-connector-0")
    typed(STATUS)
    first, volume = revision(cluster), claim(cluster)["metadata"]["uid"]

    typed(UPGRADE)
    assert revision(cluster) == first, "nothing has changed"
    change(folder, settings__LOG_LVL="debug")
    typed(UPGRADE)
    wait_for_another_pod(cluster, first)
    second = revision(cluster)
    change(folder, existingSecret__version="2026-12-01")
    cluster.become_ready(NAMESPACE, "north-connector-0")
    typed(UPGRADE)
    wait_for_another_pod(cluster, second)

    typed("helm rollback north --namespace connector")
    wait_until(lambda: "north-connector-0" in cluster.pods(NAMESPACE) and revision(cluster) == second, "the one before")

    typed("helm uninstall north --namespace connector")
    wait_until(lambda: not cluster.pods(NAMESPACE), "no pod")
    listed = typed("kubectl --namespace connector get pvc --selector app.kubernetes.io/instance=north")
    assert "data-north-connector-0" in listed
    assert cluster.get("secret", "connector-secrets", "--namespace", NAMESPACE)
    typed(INSTALL)
    wait_until(lambda: "north-connector-0" in cluster.pods(NAMESPACE), "the pod, again")
    assert claim(cluster)["metadata"]["uid"] == volume, "it has its volume again"


def test_a_volume_is_enlarged_as_the_document_says_while_the_pod_runs_on(cluster, folder, typed):
    cluster.apply([{
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "csi.example",
        "metadata": {"name": "fast"}, "allowVolumeExpansion": True,
    }])  # fmt: skip
    prepare(typed)
    change(folder, storage__className="fast")
    typed(INSTALL)
    cluster.become_ready(NAMESPACE, "north-connector-0")
    bind(cluster, "data-north-connector-0")
    pod = cluster.pods(NAMESPACE)["north-connector-0"]["metadata"]["uid"]
    change(folder, storage__size="40Gi")
    with pytest.raises(RefusedError, match="updates to statefulset spec for fields other than"):
        typed(UPGRADE)
    typed("kubectl --namespace connector delete statefulset north-connector --cascade=orphan")
    typed(
        "kubectl --namespace connector patch pvc data-north-connector-0 "
        """--patch '{"spec": {"resources": {"requests": {"storage": "40Gi"}}}}'"""
    )
    typed(UPGRADE)
    typed(STATUS)
    assert cluster.pods(NAMESPACE)["north-connector-0"]["metadata"]["uid"] == pod, "it was not restarted"
    assert claim(cluster)["spec"]["resources"]["requests"]["storage"] == "40Gi"


def test_sites_have_a_release_each_and_two_in_one_namespace_can_be_evicted(cluster, folder, typed):
    """The loop of the document; then a second release beside the first, whose budgets count their own pods."""
    typed("helm package k8s/helm/connector")
    shutil.copy(folder / "north.yaml", folder / "common.yaml")
    (folder / "sites").mkdir()
    for site in ("north", "south"):
        (folder / "sites" / f"{site}.yaml").write_text(f"site: {site}\n", encoding="utf-8")
    loop = re.search(r"^for site in .*?^done$", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert loop is not None
    typed(re.sub(r"\\\n *", "", loop[0]))
    for site in ("north", "south"):
        settings = cluster.get("configmap", f"{site}-connector-settings", "--namespace", site)["data"]
        assert settings["SITE"] == site
        cluster.become_ready(site, f"{site}-connector-0")
    subprocess.run(
        [HELM, "install", "east", CHART, "--namespace", "south", "--values", folder / "common.yaml"],
        env=cluster.environment, check=True, capture_output=True,
    )  # fmt: skip
    cluster.become_ready("south", "east-connector-0")
    for name in ("east-connector", "south-connector"):
        budget = ("poddisruptionbudget", name, "--namespace", "south")
        wait_until(lambda budget=budget: cluster.get(*budget)["status"].get("expectedPods") == 1, "its own pod alone")
        wait_until(lambda budget=budget: cluster.get(*budget)["status"].get("disruptionsAllowed") == 1, "a free budget")
        cluster.evict("south", f"{name}-0")


def test_every_command_of_the_document_is_tried_here_or_needs_a_container():
    """Whoever adds a command to the document adds it here."""
    text = "\n".join(re.findall(r"^ *```sh\n(.*?)^ *```", DOCUMENT, re.DOTALL | re.MULTILINE))
    commands = re.findall(r"^ *((?:helm|kubectl) .*)$", re.sub(r"\\\n *", "", text), re.MULTILINE)
    tried = re.sub(r'"\n +(?:"""|")', "", Path(__file__).read_text(encoding="utf-8"))
    untried = [command for command in commands if command not in tried and " exec " not in command]
    assert [command for command in untried if not command.startswith("helm upgrade --install")] == []
    assert json.dumps(commands).count(" exec ") == 2
