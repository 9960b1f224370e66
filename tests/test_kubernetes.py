"""The manifests of k8s/ beside Kubernetes' schemas and the worker's own settings and pages; without brokers."""

from __future__ import annotations

import base64
import re
import shutil
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from kustomized import KUSTOMIZE_VERSION, OVERLAYS, REPOSITORY, rendered, the, validate
from system import UnreadyBridge

from app.settings import NAMES, SECRET_NAMES, load_settings
from app.settings.load import Settings
from clients.brokers.process import free_port

AFTER_BUDGET_SECONDS = 2  # what README allows for the end of a stop
SLOW_DISK_SECONDS = 10
NAMES_OF_PODS = {"app.kubernetes.io/name": "connector"}


@pytest.fixture(params=["edge", "cluster"])
def overlay(request):
    return request.param


@pytest.fixture
def manifests(overlay):
    return rendered(OVERLAYS / overlay)


@pytest.fixture
def stateful_set(manifests):
    return the("StatefulSet", manifests)["spec"]


@pytest.fixture
def pod(stateful_set):
    return stateful_set["template"]["spec"]


@pytest.fixture
def container(pod) -> dict[str, Any]:
    (container,) = pod["containers"]
    return container


def environment(manifests, pod_name="connector-0"):
    """Return the variables that the worker gets: from ConfigMap, Secret and the manifest, as Kubernetes joins them."""
    (container,) = the("StatefulSet", manifests)["spec"]["template"]["spec"]["containers"]
    variables = {}
    for source in container["envFrom"]:
        ((kind, reference),) = source.items()
        kind_of_it = {"configMapRef": "ConfigMap", "secretRef": "Secret"}[kind]
        data = the(kind_of_it, manifests, reference["name"])["data"]  # the name with its hash
        variables |= data if kind == "configMapRef" else {n: base64.b64decode(v).decode() for n, v in data.items()}
    given = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            given[variable["name"]] = pod_name
        else:
            # As Kubernetes does: only what stands before it is known.
            given[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], variable["value"])
    return variables | given


def settings_of(manifests, pod_name="connector-0"):
    variables = environment(manifests, pod_name)
    # Neither a setting nor read by the worker.
    del variables["POD_NAME"]
    return variables


# ---- Kubernetes


def test_every_manifest_is_what_kubernetes_knows(manifests):
    for manifest in manifests:
        validate(manifest)


def test_a_field_that_kubernetes_does_not_know_is_seen():
    """The check itself, which would be worth nothing if it took everything."""
    stateful_set = yaml.safe_load(yaml.safe_dump(the("StatefulSet", rendered(OVERLAYS / "edge"))))
    stateful_set["spec"]["template"]["spec"]["terminationGraceSeconds"] = 45
    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGraceSeconds"):
        validate(stateful_set)
    monitor = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PodMonitor",
        "spec": {"selector": {}, "timeout": "1s"},
    }
    with pytest.raises(jsonschema.ValidationError, match="timeout"):
        validate(monitor)


def test_it_is_the_kustomize_that_make_builds():
    assert f"KUSTOMIZE_VERSION := {KUSTOMIZE_VERSION}\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def test_labels_and_names_meet(manifests, stateful_set, container):
    labels = stateful_set["template"]["metadata"]["labels"]
    assert stateful_set["selector"]["matchLabels"].items() <= labels.items()
    assert stateful_set["serviceName"] == the("Service", manifests)["metadata"]["name"]
    assert (
        stateful_set["template"]["spec"]["serviceAccountName"] == the("ServiceAccount", manifests)["metadata"]["name"]
    )
    selectors = [
        the("Service", manifests)["spec"]["selector"],
        the("PodDisruptionBudget", manifests)["spec"]["selector"]["matchLabels"],
        the("NetworkPolicy", manifests)["spec"]["podSelector"]["matchLabels"],
    ]
    selectors += [c["labelSelector"]["matchLabels"]
                  for c in stateful_set["template"]["spec"].get("topologySpreadConstraints", [])]  # fmt: skip
    for selector in selectors:
        assert selector == NAMES_OF_PODS
        assert selector.items() <= labels.items()
    namespace = the("Namespace", manifests)["metadata"]["name"]
    assert {m["metadata"]["namespace"] for m in manifests if m["kind"] != "Namespace"} == {namespace}
    assert [port["name"] for port in container["ports"]] == ["web"]
    assert the("Service", manifests)["spec"]["ports"][0]["targetPort"] == "web"


def test_each_replica_has_a_volume_and_a_client_id_of_its_own(manifests, stateful_set, container):
    (claim,) = stateful_set["volumeClaimTemplates"]
    assert claim["spec"]["accessModes"] == ["ReadWriteOncePod"]
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts[claim["metadata"]["name"]] == settings_of(manifests)["DB_PERSIST_PATH"]
    assert stateful_set["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    ids = {load_settings(settings_of(manifests, f"connector-{n}")).mqtt_client_id for n in range(3)}
    assert ids == {"connector-0", "connector-1", "connector-2"}


def test_the_table_fits_into_its_volume_with_room_for_what_rocksdb_rewrites(manifests, stateful_set):
    storage = stateful_set["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    volume_bytes = int(storage.removesuffix("Gi")) * 1024**3
    assert 0 < load_settings(settings_of(manifests)).undelivered_max_bytes <= 0.6 * volume_bytes


def test_replicas_share_a_group_or_there_is_one(overlay, manifests, stateful_set):
    group = load_settings(settings_of(manifests)).mqtt_shared_group
    assert (stateful_set["replicas"] > 1, bool(group)) == ((True, True) if overlay == "cluster" else (False, False))


# ---- settings


def test_every_name_is_a_setting_and_the_worker_accepts_them(manifests):
    settings, secrets = (the(kind, manifests)["data"] for kind in ("ConfigMap", "Secret"))
    assert set(settings) <= set(NAMES) - set(SECRET_NAMES)
    assert set(secrets) <= set(SECRET_NAMES)
    variables = settings_of(manifests)
    required = {name.upper() for name, field in Settings.model_fields.items() if field.is_required()}
    assert required <= set(variables)
    loaded = load_settings(variables)
    assert loaded.unknown_names == ()
    assert loaded.run_mode == "PRODUCTION"
    assert loaded.web_host == "::"


def test_no_secret_is_in_the_repository(manifests):
    assert set(the("Secret", manifests)["data"].values()) == {""}


def test_the_grace_period_is_longer_than_a_stop_takes(manifests, pod):
    budget = load_settings(settings_of(manifests)).stop_budget_sec
    assert pod["terminationGracePeriodSeconds"] >= budget + AFTER_BUDGET_SECONDS + SLOW_DISK_SECONDS


def test_the_image_is_the_one_that_is_built_here(container):
    version = re.search(r'^version = "(.+)"', (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE)
    dockerfile = (REPOSITORY / "Dockerfile").read_text(encoding="utf-8")
    assert container["image"].endswith(f"/connector:{version[1]}")
    assert f"ARG VERSION={version[1]}\n" in dockerfile
    assert "command" not in container, "the image's own entry point"


# ---- pages


@pytest.fixture(scope="module")
def worker(tmp_path_factory):
    """Yield a worker that no broker answers: it serves its pages all the same."""
    directory = tmp_path_factory.mktemp("lonely")
    with UnreadyBridge(directory, free_port(), f"127.0.0.1:{free_port()}", "plant/#:plant") as lonely:
        yield lonely


def test_probes_ask_pages_that_the_worker_serves(manifests, container, worker):
    port = load_settings(settings_of(manifests)).web_port
    assert container["ports"] == [{"name": "web", "containerPort": port}]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {page["port"] for page in asked.values()} == {"web"}
    # Without its brokers the worker lives, and is not ready.
    answers = {kind: worker.status(page["path"]) for kind, page in asked.items()}
    assert answers == {"startup": 200, "liveness": 200, "readiness": 503}


def test_a_start_may_take_longer_than_a_stall(container):
    startup, liveness = container["startupProbe"], container["livenessProbe"]
    assert startup["periodSeconds"] * startup["failureThreshold"] >= 600
    assert liveness["periodSeconds"] * liveness["failureThreshold"] >= 30


def test_prometheus_asks_the_pods_for_a_page_that_the_worker_serves(overlay, worker, tmp_path):
    """With the component for the Prometheus operator, which an overlay names under `components`."""
    copied = shutil.copytree(REPOSITORY / "k8s", tmp_path / "k8s") / "overlays" / overlay
    with (copied / "kustomization.yaml").open("a", encoding="utf-8") as kustomization:
        kustomization.write("components: [../../monitoring]\n")
    manifests = rendered(copied)
    for manifest in manifests:
        validate(manifest)
    monitor = the("PodMonitor", manifests)
    assert monitor["metadata"]["namespace"] == the("StatefulSet", manifests)["metadata"]["namespace"]
    assert monitor["spec"]["selector"]["matchLabels"] == NAMES_OF_PODS
    (point,) = monitor["spec"]["podMetricsEndpoints"]
    assert (point["port"], worker.status(point["path"])) == ("web", 200)
    assert the("PrometheusRule", manifests)["spec"]["groups"]


# ---- security


def test_the_pod_keeps_to_the_restricted_profile(manifests, pod, container):
    labels = the("Namespace", manifests)["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    context, own = pod["securityContext"], container["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own["allowPrivilegeEscalation"] is False
    assert own["capabilities"] == {"drop": ["ALL"]}
    assert own["readOnlyRootFilesystem"] is True
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"emptyDir"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert not {"privileged", "procMount", "hostPort"} & own.keys()


def test_its_user_is_that_of_the_image(pod):
    user = re.search(r"^USER (\d+):(\d+)$", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["fsGroup"]) == (
        int(user[1]),
        int(user[2]),
        int(user[2]),
    )


def test_the_worker_has_no_token_and_no_variables_of_other_services(manifests, pod):
    assert pod["automountServiceAccountToken"] is False
    assert the("ServiceAccount", manifests)["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False


def test_the_network_policy_lets_out_what_the_settings_name_and_lets_in_the_pages_alone(manifests):
    spec = the("NetworkPolicy", manifests)["spec"]
    settings = load_settings(settings_of(manifests))
    assert sorted(spec["policyTypes"]) == ["Egress", "Ingress"]
    assert [port["port"] for rule in spec["ingress"] for port in rule["ports"]] == ["web"]
    opened = {number for rule in spec["egress"] for port in rule["ports"] if port["protocol"] == "TCP"
              for number in range(port["port"], port.get("endPort", port["port"]) + 1)}  # fmt: skip
    kafka = {int(address.rpartition(":")[2]) for address in settings.kafka_broker.split(",")}
    assert {settings.mqtt_port, *kafka, 53} <= opened


def test_a_node_can_be_emptied_and_takes_one_replica_at_a_time(manifests):
    assert the("PodDisruptionBudget", manifests)["spec"]["maxUnavailable"] == 1


# ---- the files


@pytest.mark.parametrize("directory", ["base", "overlays/edge", "overlays/cluster"])
def test_every_file_is_used(directory):
    """A manifest that no kustomization names would be believed to work."""
    kustomization = (REPOSITORY / "k8s" / directory / "kustomization.yaml").read_text(encoding="utf-8")
    assert [path.name for path in (REPOSITORY / "k8s" / directory).iterdir() if path.name not in kustomization] == [
        "kustomization.yaml"
    ]


def test_the_overlay_with_secrets_of_the_document_gives_them_to_the_worker(tmp_path):
    text = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    copied = shutil.copytree(REPOSITORY / "k8s", tmp_path / "k8s")
    (own := copied / "overlays" / "mine").mkdir()
    (own / "kustomization.yaml").write_text(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1], encoding="utf-8")
    for name in ("settings", "secrets"):
        content = re.search(rf"{name}\.env <<'END'\n(.*?)^END$", text, re.DOTALL | re.MULTILINE)[1]
        (own / f"{name}.env").write_text(content, encoding="utf-8")
    manifests = rendered(own)
    for manifest in manifests:
        validate(manifest)
    settings = load_settings(settings_of(manifests))
    assert settings.mqtt_user_password.get_secret_value() == "of mqtt"
    assert settings.kafka_sasl_password.get_secret_value() == "of kafka"
    assert settings.kafka_broker == "kafka.plant.example:9093"
