"""The manifests of k8s/ and the commands of docs/deploy.md, on a real API server with its controllers: `make k8s-test`.

Not part of `make test`, as the control plane takes long to build. There is no kubelet: `Cluster` says what is real.
"""

from __future__ import annotations

import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.product.kubernetes_cluster import KUBERNETES_VERSION, Cluster, RefusedError
from tests.product.kustomized import OVERLAYS, REPOSITORY, TOOLS, documented_overlays, rendered, the
from tests.support.oracle import wait_until

NAMESPACE = "connector"
THREE = ("connector-0", "connector-1", "connector-2")
INSTANCE = "app.kubernetes.io/instance"
TWO_BUDGETS = "more than one PodDisruptionBudget"
ENLARGE = (
    "kubectl --namespace connector patch pvc data-connector-0 --patch "
    """'{"spec": {"resources": {"requests": {"storage": "80Gi"}}}}'"""
)
# The commands of the document that are run here; the others need a container (`exec`, `logs`).
TRIED = (
    "kubectl apply -k k8s/overlays/mine",
    "kubectl apply -k k8s/overlays/line-2",
    "kubectl --namespace connector rollout status statefulset connector",
    "kubectl --namespace connector rollout restart statefulset connector",
    "kubectl --namespace connector rollout undo statefulset connector",
    "kubectl --namespace connector get secrets",
    "kubectl --namespace connector get pods --selector app.kubernetes.io/instance=line-2",
    "kubectl --namespace connector delete statefulset connector",
    "kubectl --namespace connector delete statefulset connector --cascade=orphan",
    "kubectl --namespace connector wait --for=delete pod --selector app.kubernetes.io/name=connector --timeout=120s",
    ENLARGE,
    "kubectl --namespace connector scale statefulset connector --replicas 2",
    "kubectl --namespace connector delete pvc data-connector-2",
    "kubectl delete -k",
    "kubectl drain",
)


@pytest.fixture(scope="module")
def one_cluster(tmp_path_factory):
    with Cluster(tmp_path_factory.mktemp("cluster")) as running:
        yield running


@pytest.fixture
def cluster(one_cluster):
    """Yield a cluster with nothing in it; what a test made is removed behind it."""
    yield one_cluster
    one_cluster.clean(NAMESPACE)


@pytest.fixture
def typed(cluster, tmp_path):
    """Return what runs a command of the document as it stands there, where one who follows it has the overlays."""
    documented_overlays(tmp_path)

    def run(command: str) -> str:
        assert command in TRIED, "it is in the list"
        return cluster.typed(command, tmp_path)

    return run


def change(overlay: Path, name: str, old: str, new: str) -> None:
    """Change a file of an overlay, as an editor does."""
    file = overlay / name
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def pods_are(cluster: Cluster, *names: str) -> None:
    """Wait until a namespace has these pods and no others."""
    wait_until(lambda: sorted(cluster.pods(NAMESPACE)) == sorted(names), f"the pods {names}")


def revisions(cluster: Cluster) -> dict[str, str]:
    """Return of which revision of the StatefulSet each pod is."""
    return {
        name: pod["metadata"]["labels"]["controller-revision-hash"] for name, pod in cluster.pods(NAMESPACE).items()
    }


def stateful_set(cluster: Cluster) -> dict[str, Any]:
    return cluster.get("statefulset", "connector", "--namespace", NAMESPACE)


def allowed_disruptions(cluster: Cluster, name: str = "connector") -> int:
    return cluster.get("poddisruptionbudget", name, "--namespace", NAMESPACE)["status"].get("disruptionsAllowed", 0)


def start_three(cluster: Cluster) -> None:
    """Apply the overlay with three replicas, and let them be ready."""
    cluster.kubectl("apply", "-k", OVERLAYS / "cluster")
    cluster.become_ready(NAMESPACE, *THREE)
    wait_until(lambda: stateful_set(cluster)["status"].get("readyReplicas") == 3, "three ready replicas")
    wait_until(lambda: allowed_disruptions(cluster) == 1, "a budget that counts them")


def pod_of(overlay: str) -> dict[str, Any]:
    """Return a pod as the StatefulSet of an overlay would make it, under another name."""
    spec = copy.deepcopy(the("StatefulSet", rendered(OVERLAYS / overlay))["spec"]["template"]["spec"])
    spec["volumes"].append({"name": "data", "emptyDir": {}})
    metadata = {"name": "other", "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


# ---- apply


@pytest.mark.parametrize(("overlay", "replicas"), [("edge", 1), ("cluster", 3)])
def test_an_overlay_is_taken_without_a_warning_and_its_pods_are_admitted(overlay, replicas, cluster):
    """Into a namespace that enforces the restricted profile; applied again it changes nothing."""
    said = cluster.kubectl("apply", "-k", OVERLAYS / overlay)
    assert "Warning" not in said
    pods_are(cluster, *THREE[:replicas])
    assert set(
        json.loads(cluster.kubectl("version", "--output", "json"))["serverVersion"]["gitVersion"].split(".")
    ) == {*f"v{KUBERNETES_VERSION}".split(".")}
    claims = cluster.get("pvc", "--namespace", NAMESPACE)
    assert [claim["metadata"]["name"] for claim in claims] == [f"data-{name}" for name in THREE[:replicas]]
    assert {claim["spec"]["accessModes"][0] for claim in claims} == {"ReadWriteOncePod"}
    before = stateful_set(cluster)["metadata"]["generation"]
    assert cluster.kubectl("diff", "-k", OVERLAYS / overlay) == ""
    cluster.kubectl("apply", "-k", OVERLAYS / overlay)
    assert stateful_set(cluster)["metadata"]["generation"] == before


def test_the_namespace_refuses_a_pod_that_does_not_keep_to_the_profile(cluster):
    """The admission above is real: it does not take everything."""
    cluster.kubectl("apply", "-k", OVERLAYS / "edge")
    pods_are(cluster, "connector-0")
    pod = pod_of("edge")
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(RefusedError, match=r'violates PodSecurity "restricted:latest": unrestricted capabilities'):
        cluster.apply([pod])


def test_the_service_has_every_pod_ready_or_not_and_no_other(cluster):
    start_three(cluster)
    cluster.make_ready(NAMESPACE, "connector-1", ready=False)

    def endpoints() -> set[str]:
        slices = cluster.get("endpointslices", "--namespace", NAMESPACE)
        return {end["targetRef"]["name"] for found in slices for end in found["endpoints"] or []}

    wait_until(lambda: endpoints() == set(THREE), "each pod by its name")


# ---- two installations


def test_two_installations_of_the_document_live_side_by_side_in_one_namespace(cluster, typed):
    """Each one's budget counts its own pods, and lets a node be emptied."""
    typed("kubectl apply -k k8s/overlays/mine")
    typed("kubectl apply -k k8s/overlays/line-2")
    names = {"connector": "connector-0", "line-2-connector": "line-2-connector-0"}
    cluster.become_ready(NAMESPACE, *names.values())
    listed = typed("kubectl --namespace connector get pods --selector app.kubernetes.io/instance=line-2")
    assert "line-2-connector-0" in listed and " connector-0" not in f" {listed}".replace("line-2-connector-0", "")
    for name, pod in names.items():
        wait_until(lambda name=name: allowed_disruptions(cluster, name) == 1, f"the budget {name}")
        budget = cluster.get("poddisruptionbudget", name, "--namespace", NAMESPACE)
        assert budget["status"]["expectedPods"] == 1, "its own pod alone"
        slices = cluster.get(
            "endpointslices", "--namespace", NAMESPACE, "--selector", f"kubernetes.io/service-name={name}"
        )
        assert {end["targetRef"]["name"] for found in slices for end in found["endpoints"]} == {pod}
        before = cluster.pods(NAMESPACE)[pod]["metadata"]["uid"]
        cluster.evict(NAMESPACE, pod)
        wait_until(lambda pod=pod, before=before: cluster.pods(NAMESPACE).get(pod, {"metadata": {"uid": before}})
                   ["metadata"]["uid"] != before, f"a new {pod}")  # fmt: skip
    claims = {claim["metadata"]["name"]: claim["metadata"]["labels"][INSTANCE]
              for claim in cluster.get("pvc", "--namespace", NAMESPACE)}  # fmt: skip
    assert claims == {"data-connector-0": "connector", "data-line-2-connector-0": "line-2"}


def test_with_one_label_for_both_nothing_can_be_evicted(cluster, tmp_path):
    """What the label is for: so it was before, and so it is for whoever leaves it out."""
    overlays = documented_overlays(tmp_path)
    change(overlays / "line-2", "kustomization.yaml", f"{INSTANCE}: line-2", f"{INSTANCE}: connector")
    for name in ("mine", "line-2"):
        cluster.kubectl("apply", "-k", overlays / name)
    cluster.become_ready(NAMESPACE, "connector-0", "line-2-connector-0")
    with pytest.raises(RefusedError, match=TWO_BUDGETS):
        cluster.evict(NAMESPACE, "connector-0")


def test_the_second_installation_goes_without_the_namespace_of_the_first(cluster, typed, tmp_path):
    """And whoever deletes the first one deletes the namespace with all volumes, as the document warns."""
    typed("kubectl apply -k k8s/overlays/mine")
    typed("kubectl apply -k k8s/overlays/line-2")
    pods_are(cluster, "connector-0", "line-2-connector-0")
    cluster.kubectl("delete", "-k", tmp_path / "k8s/overlays/line-2")
    pods_are(cluster, "connector-0")
    assert len(cluster.get("pvc", "--namespace", NAMESPACE)) == 2, "its volume stays"
    cluster.kubectl("delete", "-k", tmp_path / "k8s/overlays/mine")
    assert cluster.get("pvc", "--all-namespaces") == []


# ---- update


def test_a_changed_setting_replaces_the_pods_one_by_one_from_the_highest_number(cluster, tmp_path):
    start_three(cluster)
    old = revisions(cluster)
    overlays = shutil.copytree(OVERLAYS.parent, tmp_path / "k8s") / "overlays"
    change(overlays / "cluster", "settings.env", "plant/#:plant", "plant/#:plant,line/#:line")
    cluster.kubectl("apply", "-k", overlays / "cluster")
    for name in reversed(THREE):
        wait_until(lambda name=name: revisions(cluster).get(name, old[name]) != old[name], f"a new {name}")
        others = [other for other in THREE if other < name]
        assert all(revisions(cluster)[other] == old[other] for other in others), "one at a time"
        cluster.become_ready(NAMESPACE, name)
    cluster.kubectl("--namespace", NAMESPACE, "rollout", "status", "statefulset", "connector", "--timeout=60s")
    # Each new pod has the new ConfigMap, whose name has another hash.
    sources = {pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
               for pod in cluster.pods(NAMESPACE).values()}  # fmt: skip
    assert len(sources) == 1
    kept = [each["metadata"]["name"] for each in cluster.get("configmaps", "--namespace", NAMESPACE)]
    assert len([name for name in kept if name.startswith("connector-settings")]) == 2, "the old one stays"


def test_a_version_that_does_not_start_is_taken_back_without_deleting_a_pod(cluster, typed, tmp_path):
    """As all replicas start at once, a pod that is not ready does not hold up the way back."""
    overlays = tmp_path / "k8s" / "overlays"
    change(overlays / "mine", "kustomization.yaml", "../edge", "../cluster")
    typed("kubectl apply -k k8s/overlays/mine")
    cluster.become_ready(NAMESPACE, *THREE)
    typed("kubectl --namespace connector rollout status statefulset connector")
    good = revisions(cluster)
    change(overlays / "mine", "kustomization.yaml", "newTag: 0.2.0", "newTag: 9.9.9")
    typed("kubectl apply -k k8s/overlays/mine")
    wait_until(lambda: revisions(cluster).get("connector-2", good["connector-2"]) != good["connector-2"], "a new pod")
    cluster.make_ready(NAMESPACE, "connector-2", ready=False)
    typed("kubectl --namespace connector rollout undo statefulset connector")
    wait_until(lambda: revisions(cluster) == good, "the version before, everywhere")
    cluster.become_ready(NAMESPACE, "connector-2")
    typed("kubectl --namespace connector rollout status statefulset connector")


def without_instance(manifests: Any) -> Any:
    """Return manifests as they were before the first release, without the label of an installation."""
    if isinstance(manifests, dict):
        return {name: without_instance(value) for name, value in manifests.items() if name != INSTANCE}
    return [without_instance(value) for value in manifests] if isinstance(manifests, (list, tuple)) else manifests


def test_the_selector_of_0_2_0_is_left_as_the_document_says_and_the_volumes_stay(cluster, typed, tmp_path):
    cluster.apply(without_instance(rendered(OVERLAYS / "edge")))
    pods_are(cluster, "connector-0")
    assert INSTANCE not in stateful_set(cluster)["spec"]["selector"]["matchLabels"]
    volume = cluster.get("pvc", "data-connector-0", "--namespace", NAMESPACE)["metadata"]["uid"]
    with pytest.raises(RefusedError, match="Forbidden"):
        typed("kubectl apply -k k8s/overlays/mine")
    typed("kubectl --namespace connector delete statefulset connector")
    typed(
        "kubectl --namespace connector wait --for=delete pod --selector app.kubernetes.io/name=connector --timeout=120s"
    )
    typed("kubectl apply -k k8s/overlays/mine")
    pods_are(cluster, "connector-0")
    assert stateful_set(cluster)["spec"]["selector"]["matchLabels"][INSTANCE] == "connector"
    assert cluster.get("pvc", "data-connector-0", "--namespace", NAMESPACE)["metadata"]["uid"] == volume


def bind(cluster: Cluster, claim: str) -> None:
    """Give a claim a volume, as a provisioner does, of a class that can be enlarged."""
    name = f"volume-of-{claim}"
    storage = cluster.get("pvc", claim, "--namespace", NAMESPACE)["spec"]["resources"]["requests"]["storage"]
    volume = {
        "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name},
        "spec": {"capacity": {"storage": storage}, "accessModes": ["ReadWriteOncePod"], "storageClassName": "fast",
                 "csi": {"driver": "csi.example", "volumeHandle": name},
                 "claimRef": {"name": claim, "namespace": NAMESPACE}},
    }  # fmt: skip
    cluster.apply([volume])
    cluster.kubectl(
        "patch", "pvc", claim, "--namespace", NAMESPACE, "--patch", json.dumps({"spec": {"volumeName": name}})
    )
    status = {"phase": "Bound", "capacity": {"storage": storage}, "accessModes": ["ReadWriteOncePod"]}
    cluster.kubectl("patch", "pvc", claim, "--namespace", NAMESPACE, "--subresource", "status", "--type", "merge",
                    "--patch", json.dumps({"status": status}))  # fmt: skip


def test_a_volume_is_enlarged_while_the_pod_runs_on(cluster, typed, tmp_path):
    storage_class = {
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "provisioner": "csi.example",
        "metadata": {"name": "fast"}, "allowVolumeExpansion": True,
    }  # fmt: skip
    cluster.apply([storage_class])
    sizes = re.search(
        r"```yaml\npatches:\n(.*?)```", (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8"), re.DOTALL
    )
    assert sizes is not None
    mine = tmp_path / "k8s" / "overlays" / "mine"
    small = sizes[1].replace("80Gi", "40Gi")
    change(mine, "kustomization.yaml", "patches:\n", f"patches:\n{small}")
    typed("kubectl apply -k k8s/overlays/mine")
    cluster.become_ready(NAMESPACE, "connector-0")
    bind(cluster, "data-connector-0")
    pod = cluster.pods(NAMESPACE)["connector-0"]["metadata"]["uid"]
    change(mine, "kustomization.yaml", "40Gi", "80Gi")
    with pytest.raises(RefusedError, match="Forbidden"):
        typed("kubectl apply -k k8s/overlays/mine")
    typed("kubectl --namespace connector delete statefulset connector --cascade=orphan")
    typed(ENLARGE)
    typed("kubectl apply -k k8s/overlays/mine")
    wait_until(lambda: stateful_set(cluster)["status"].get("readyReplicas") == 1, "the pod, taken over")
    assert cluster.pods(NAMESPACE)["connector-0"]["metadata"]["uid"] == pod, "it was not restarted"
    claim = cluster.get("pvc", "data-connector-0", "--namespace", NAMESPACE)
    assert claim["spec"]["resources"]["requests"]["storage"] == "80Gi"


# ---- fewer replicas, empty nodes


def test_scaling_down_after_a_drain_takes_the_highest_number_and_keeps_its_volume(cluster, typed, tmp_path):
    """A drained pod is alive and not ready; its volume goes only when somebody deletes it."""
    start_three(cluster)
    cluster.make_ready(NAMESPACE, "connector-2", ready=False)
    typed("kubectl --namespace connector scale statefulset connector --replicas 2")
    pods_are(cluster, *THREE[:2])
    assert len(cluster.get("pvc", "--namespace", NAMESPACE)) == 3
    typed("kubectl --namespace connector delete pvc data-connector-2")
    assert len(cluster.get("pvc", "--namespace", NAMESPACE)) == 2
    cluster.kubectl("apply", "-k", OVERLAYS / "cluster")
    pods_are(cluster, *THREE)  # as the document warns, until the overlay has the new number


def test_a_node_is_emptied_one_pod_at_a_time_and_one_that_is_not_ready_never_holds_it_up(cluster):
    start_three(cluster)
    cluster.evict(NAMESPACE, "connector-0")
    with pytest.raises(RefusedError, match="violate the pod's disruption budget"):
        cluster.evict(NAMESPACE, "connector-1")
    cluster.make_ready(NAMESPACE, "connector-1", ready=False)
    cluster.evict(NAMESPACE, "connector-1")


# ---- components


def with_components(tmp_path: Path, overlay: str, *names: str) -> Path:
    """Return a copy of an overlay with components."""
    copied = shutil.copytree(OVERLAYS.parent, tmp_path / "with-components") / "overlays" / overlay
    with (copied / "kustomization.yaml").open("a", encoding="utf-8") as kustomization:
        kustomization.write(f"components: [{', '.join(f'../../{name}' for name in names)}]\n")
    return copied


def test_the_operators_definitions_take_the_monitoring_component(cluster, tmp_path):
    for definition in sorted((TOOLS / "definitions").glob("*.yaml")):
        cluster.kubectl("create", "--filename", definition)
    cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    said = cluster.kubectl("apply", "-k", with_components(tmp_path, "edge", "monitoring"))
    assert "Warning" not in said
    monitor = cluster.get("podmonitor", "connector", "--namespace", NAMESPACE)
    selector = ",".join(f"{name}={value}" for name, value in monitor["spec"]["selector"]["matchLabels"].items())
    wait_until(lambda: list(cluster.pods(NAMESPACE, selector)) == ["connector-0"], "what Prometheus would scrape")


# What OpenShift's restricted-v2 says of users, in Kubernetes' own words: only those of the namespace's range.
RESTRICTED_V2 = """
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata: {name: users-of-the-namespace}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  validations:
    - expression: "!has(object.spec.securityContext.runAsUser) || object.spec.securityContext.runAsUser >= 1000650000"
      message: "runAsUser: must be in the ranges: [1000650000, 1000659999]"
    - expression: "!has(object.spec.securityContext.fsGroup) || object.spec.securityContext.fsGroup == 1000650000"
      message: "fsGroup: is not an allowed group"
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata: {name: users-of-the-namespace}
spec: {policyName: users-of-the-namespace, validationActions: [Deny]}
"""


def test_a_policy_as_openshift_has_it_takes_the_pod_with_the_component_alone(cluster, tmp_path):
    overlay = with_components(tmp_path, "edge", "openshift")
    cluster.kubectl("apply", "-k", overlay)
    cluster.kubectl("delete", "statefulset", "connector", "--namespace", NAMESPACE)
    cluster.kubectl("apply", "--filename", "-", text=RESTRICTED_V2)

    def refusal() -> str:
        text = yaml.safe_dump(pod_of("edge"))
        try:
            cluster.kubectl("create", "--dry-run=server", "--filename", "-", text=text)
        except RefusedError as error:
            return str(error)
        return ""

    # The server takes a moment until it goes by a new policy.
    assert "runAsUser: must be in the ranges" in wait_until(refusal, "a pod that is refused for its user")
    pods_are(cluster)
    cluster.kubectl("apply", "-k", overlay)
    pods_are(cluster, "connector-0")


def test_pods_get_the_priority_of_the_class(cluster, tmp_path):
    cluster.kubectl("apply", "-k", with_components(tmp_path, "edge", "priority"))
    pods_are(cluster, "connector-0")
    assert cluster.pods(NAMESPACE)["connector-0"]["spec"]["priority"] == 100_000


def test_a_secret_of_somebody_else_is_left_alone_and_a_restart_takes_the_pods_in_turn(cluster, typed, tmp_path):
    cluster.kubectl("apply", "-k", with_components(tmp_path, "cluster", "existing-secret"))
    pods_are(cluster, *THREE)
    assert "connector-secrets" not in typed("kubectl --namespace connector get secrets")
    cluster.kubectl("--namespace", NAMESPACE, "create", "secret", "generic", "connector-secrets",
                    "--from-literal=MQTT_USER_PASSWORD=of somebody else")  # fmt: skip
    cluster.become_ready(NAMESPACE, *THREE)
    wait_until(lambda: stateful_set(cluster)["status"].get("readyReplicas") == 3, "three ready replicas")
    old = revisions(cluster)
    typed("kubectl --namespace connector rollout restart statefulset connector")
    wait_until(lambda: revisions(cluster).get("connector-2", old["connector-2"]) != old["connector-2"], "a new pod")
    assert revisions(cluster)["connector-0"] == old["connector-0"]


# ---- the document


def test_each_command_of_the_document_is_tried_here_or_needs_a_container():
    text = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8").partition("## On Kubernetes")[2]
    joined = re.sub(r"\n +", " ", text)
    commands = set(re.findall(r"^ *(kubectl .+)$", text, re.MULTILINE)) | set(re.findall(r"`(kubectl [^`]+)`", joined))
    needs_a_container = {command for command in commands if re.search(r" (exec|logs) ", command)}
    assert commands - needs_a_container - set(TRIED) - {"kubectl apply -k", "kubectl rollout restart"} == set()
    assert set(TRIED) <= commands, "what is tried is what the document says"
