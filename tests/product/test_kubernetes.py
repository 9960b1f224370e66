"""The manifests of k8s/ beside Kubernetes' schemas and the worker's own settings and pages; without brokers."""

from __future__ import annotations

import base64
import re
import shutil
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jsonschema
import kubernetes_validate
import pytest
import yaml

from app.memory import MEBIBYTE, MemoryLimit, plan_for
from app.settings import NAMES, SECRET_NAMES, load_settings
from app.settings.all_settings import Settings
from app.web.asking import Names
from tables.metadata import FREE_SPACE_SHARE
from tables.sizes import repair_seconds, volume_bytes
from tests.product.kubernetes_cluster import KUBERNETES_VERSION
from tests.product.kustomized import (
    KUSTOMIZE_VERSION,
    OVERLAYS,
    REPOSITORY,
    documented_overlays,
    rendered,
    the,
    validate,
)
from tests.support.oracle import wait_until
from tests.support.system import UnreadyBridge
from tools.brokers.process import free_port

AFTER_BUDGET_SECONDS = 2  # what docs/commands.md allows for the end of a stop
SLOW_DISK_SECONDS = 10
INSTANCE = "app.kubernetes.io/instance"
NAMES_OF_PODS = {"app.kubernetes.io/name": "connector", INSTANCE: "connector"}
GIBIBYTE = 1024**3
FILE_SYSTEM_SHARE = 0.95  # what ext4 leaves of a volume, and what a storage class may round
# Of Amazon MSK, where pods may sign in as the worker can: plain, TLS, SCRAM, and the latter two from outside.
MSK_PORTS = {9092, 9094, 9096, 9194, 9196}


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
    """Return the variables that the worker gets, from ConfigMap and manifest, as Kubernetes joins them."""
    (container,) = the("StatefulSet", manifests)["spec"]["template"]["spec"]["containers"]
    variables = {}
    for source in container["envFrom"]:
        # With its hash; a Secret would make variables of secrets.
        variables |= the("ConfigMap", manifests, source["configMapRef"]["name"])["data"]
    given = {}
    for variable in container["env"]:
        if "valueFrom" in variable:
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            given[variable["name"]] = pod_name
        else:
            # As Kubernetes does: only what stands before it is known.
            given[variable["name"]] = re.sub(r"\$\((\w+)\)", lambda found: given[found[1]], variable["value"])
    return variables | given


def mounted_secrets(manifests, directory):
    """Lay out the files of the Secret as the kubelet does, with links and modes; return where the worker sees them."""
    pod = the("StatefulSet", manifests)["spec"]["template"]["spec"]
    (volume,) = (volume["secret"] for volume in pod["volumes"] if "secret" in volume)
    (mount,) = (mount for mount in pod["containers"][0]["volumeMounts"] if mount["name"] == "secrets")
    (directory / "..data").mkdir(parents=True)
    for name, value in the("Secret", manifests, volume["secretName"])["data"].items():
        (directory / "..data" / name).write_bytes(base64.b64decode(value))
        (directory / "..data" / name).chmod(volume["defaultMode"] | 0o440)
        (directory / name).symlink_to(Path("..data") / name)
    return mount["mountPath"]


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


def test_it_is_the_kubernetes_that_make_builds():
    assert f"KUBERNETES_VERSION := {KUBERNETES_VERSION}\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


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


def test_a_full_table_fits_into_its_volume_beside_its_copy_and_a_start_has_the_time_to_make_it(manifests):
    """P1: else damage would end the worker at each start until somebody comes."""
    check_sizes(manifests, load_settings(settings_of(manifests)))


def check_sizes(manifests, settings):
    """Fail unless limit, volume and startup probe are what `connector plan` would say."""
    stateful_set = the("StatefulSet", manifests)["spec"]
    limit_bytes = settings.undelivered_max_bytes
    storage = stateful_set["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    probe = stateful_set["template"]["spec"]["containers"][0]["startupProbe"]
    assert limit_bytes <= FREE_SPACE_SHARE * gibibytes(storage)
    assert volume_bytes(limit_bytes) <= FILE_SYSTEM_SHARE * gibibytes(storage)
    assert repair_seconds(limit_bytes) <= probe["periodSeconds"] * probe["failureThreshold"]


def gibibytes(text):
    """Return the bytes of 20Gi, or of 20GiB."""
    return int(re.fullmatch(r"(\d+)GiB?", text)[1]) * GIBIBYTE


def test_the_sizes_in_the_document_are_those_of_the_plan():
    text = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+GiB) \| (\d+Gi) \| (\d+) \((\d+) minutes\) \|", text, re.MULTILINE)
    assert len(rows) >= 4
    for limit, volume, threshold, minutes in rows:
        assert volume_bytes(gibibytes(limit)) <= FILE_SYSTEM_SHARE * gibibytes(volume)
        assert repair_seconds(gibibytes(limit)) <= 5 * int(threshold) == 60 * int(minutes)
    sizes = {row[0]: row[1:3] for row in rows}
    for overlay in ("edge", "cluster"):
        manifests = rendered(OVERLAYS / overlay)
        stateful_set = the("StatefulSet", manifests)["spec"]
        storage = stateful_set["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
        probe = stateful_set["template"]["spec"]["containers"][0]["startupProbe"]
        limit = settings_of(manifests)["UNDELIVERED_MAX_BYTES"]
        assert sizes[limit] == (storage, str(probe["failureThreshold"]))
        assert f"{probe['failureThreshold'] * probe['periodSeconds'] // 60}" in text


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


def test_secrets_are_files_for_the_workers_group_and_never_variables(manifests, pod, container):
    variables = environment(manifests)
    assert not set(variables) & set(SECRET_NAMES)
    assert [set(source) for source in container["envFrom"]] == [{"configMapRef"}]
    assert not [variable for variable in container["env"] if "secretKeyRef" in variable.get("valueFrom", {})]
    (volume,) = (volume for volume in pod["volumes"] if "secret" in volume)
    (mount,) = (mount for mount in container["volumeMounts"] if mount["name"] == volume["name"])
    assert mount["readOnly"] is True
    # Of root, with nothing for others; that the group may read is what fsGroup adds.
    assert volume["secret"]["defaultMode"] == 0o400
    assert pod["securityContext"]["fsGroup"] == pod["securityContext"]["runAsGroup"]


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


def answer_of(worker, path):
    """Return the status of a page; one that does not come within two seconds is asked for again."""
    return wait_until(lambda: worker.status(path), f"an answer of {path}")


def test_probes_ask_pages_that_the_worker_serves(manifests, container, worker):
    port = load_settings(settings_of(manifests)).web_port
    assert container["ports"] == [{"name": "web", "containerPort": port}]
    asked = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "liveness", "readiness")}
    assert {page["port"] for page in asked.values()} == {"web"}
    # Without its brokers the worker lives, and is not ready.
    answers = {kind: answer_of(worker, page["path"]) for kind, page in asked.items()}
    assert answers == {"startup": 200, "liveness": 200, "readiness": 503}


def test_the_pages_answer_to_the_addresses_and_names_of_the_pods_and_to_no_other(manifests, stateful_set):
    """The kubelet and Prometheus ask by address, people in the cluster by the names that the headless Service gives."""
    service, namespace = stateful_set["serviceName"], the("Namespace", manifests)["metadata"]["name"]
    names = Names(load_settings(settings_of(manifests)).web_allowed_hosts.split(","))
    pod = f"connector-2.{service}"
    for host in ("10.1.2.3", "[fd00::7]", "localhost", service, pod, f"{pod}.{namespace}", f"{pod}.{namespace}.svc",
                 f"{pod}.{namespace}.svc.cluster.local"):  # fmt: skip
        assert names.has(host), host
    for host in ("connector.example.com", "svc.cluster.local", "mosquitto.mqtt.svc.cluster.local"):
        assert not names.has(host), host


def test_a_stall_is_longer_than_a_moment(container):
    liveness = container["livenessProbe"]
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
    assert (point["port"], answer_of(worker, point["path"])) == ("web", 200)
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
    assert {kind for volume in pod["volumes"] for kind in volume if kind != "name"} <= {"emptyDir", "secret"}
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


def check_egress(manifests, settings, also=frozenset()):
    """Fail unless the policy opens what the settings name, to somebody named, and nothing else.

    Args:
        manifests: Those of an overlay.
        settings: What the worker gets there.
        also: Ports that are open beside those.
    """
    rules = the("NetworkPolicy", manifests)["spec"]["egress"]
    # No `to`: a cache on the node is none of the cluster's pods. It is named once more, for a plugin that needs it.
    anybody = {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}
    names = [anybody, {**anybody, "to": [{"ipBlock": {"cidr": "169.254.20.10/32"}}]}]
    assert [rule for rule in rules if rule["ports"] == anybody["ports"]] == names
    others = [rule for rule in rules if rule not in names]
    opened = [port for rule in others for port in rule["ports"]]
    assert all(set(port) == {"port", "protocol"} and port["protocol"] == "TCP" for port in opened), "no ranges"
    kafka = {int(address.rpartition(":")[2]) for address in settings.kafka_broker.split(",")}
    endpoint = urlsplit(settings.sasl_oauthbearer_token_endpoint_uri or "")
    tokens = {endpoint.port or 443} if endpoint.hostname else set()
    assert {port["port"] for port in opened} == {settings.mqtt_port, *kafka, *tokens, *also}
    for rule in others:
        assert rule["to"], "an empty list would be everybody"
        for block in (target["ipBlock"] for target in rule["to"] if "ipBlock" in target):
            wide = block["cidr"] in {"0.0.0.0/0", "::/0"}
            assert not wide or {"169.254.0.0/16", "fe80::/10"} & set(block["except"]), "the node's own services"


def test_the_network_policy_lets_out_what_the_settings_name_and_nothing_else(manifests):
    assert sorted(the("NetworkPolicy", manifests)["spec"]["policyTypes"]) == ["Egress", "Ingress"]
    check_egress(manifests, load_settings(settings_of(manifests)), MSK_PORTS)


def test_the_network_policy_lets_in_prometheus_to_the_pages_alone(manifests):
    (rule,) = the("NetworkPolicy", manifests)["spec"]["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["web"]
    (source,) = rule["from"]
    assert set(source) == {"namespaceSelector", "podSelector"}, "pods of that namespace, not all of them"
    # Not matchLabels, to which kustomize would add the label of this installation.
    assert source["podSelector"] == {
        "matchExpressions": [{"key": "app.kubernetes.io/name", "operator": "In", "values": ["prometheus"]}]
    }


def test_the_limit_of_memory_carries_the_messages_that_the_manifest_says(overlay, container):
    """What the comment says follows from the limit; what one reads there must be true."""
    file = OVERLAYS / "edge" / "stateful-set.yaml" if overlay == "edge" else REPOSITORY / "k8s/base/stateful-set.yaml"
    said = re.search(r"messages of up\s+(?:# )?to (\d+) MB", file.read_text(encoding="utf-8"))
    limit_bytes = int(container["resources"]["limits"]["memory"].removesuffix("Mi")) * MEBIBYTE
    plan = plan_for(MemoryLimit(limit_bytes, "the limit of the manifest"))
    assert plan.packet_limit(None, 1 << 40).size_bytes / 1_000_000 == pytest.approx(int(said[1]), abs=0.5)
    assert plan.is_enough


def test_no_image_is_named_by_a_tag_that_moves(container):
    assert container["imagePullPolicy"] == "IfNotPresent"
    assert re.fullmatch(r".*(:\d+\.\d+\.\d+|@sha256:[0-9a-f]{64})", container["image"])


def test_a_node_can_be_emptied_and_takes_one_replica_at_a_time(manifests):
    assert the("PodDisruptionBudget", manifests)["spec"]["maxUnavailable"] == 1


# ---- the files


@pytest.mark.parametrize(
    "directory",
    [
        "base",
        "overlays/edge",
        "overlays/cluster",
        "monitoring",
        "monitoring/runbooks",
        "existing-secret",
        "openshift",
        "priority",
    ],
)
def test_every_file_is_used(directory):
    """A manifest that no kustomization names would be believed to work."""
    kustomization = (REPOSITORY / "k8s" / directory / "kustomization.yaml").read_text(encoding="utf-8")
    unnamed = [path.name for path in (REPOSITORY / "k8s" / directory).iterdir() if path.name not in kustomization]
    assert unnamed == ["kustomization.yaml"]


def test_the_overlay_of_the_document_gives_the_worker_its_secrets_as_files_and_opens_what_it_names(tmp_path):
    overlays = documented_overlays(tmp_path)
    manifests = rendered(overlays / "mine")
    for manifest in manifests:
        validate(manifest)
    there = mounted_secrets(manifests, tmp_path / "mounted")
    variables = {
        name: value.replace(there, str(tmp_path / "mounted")) for name, value in settings_of(manifests).items()
    }
    settings = load_settings(variables)
    assert settings.mqtt_user_password.get_secret_value() == "of mqtt"
    assert settings.kafka_sasl_password.get_secret_value() == "of kafka"
    assert settings.kafka_broker == "kafka.plant.example:9093"
    check_egress(manifests, settings)
    check_sizes(manifests, settings)


# ---- two installations


def selectors(manifests, name):
    """Return every selector of an installation by which something takes its pods, by the kind that has it."""
    pod = the("StatefulSet", manifests, name)["spec"]["template"]["spec"]
    return {
        "Service": the("Service", manifests, name)["spec"]["selector"],
        "StatefulSet": the("StatefulSet", manifests, name)["spec"]["selector"]["matchLabels"],
        "PodDisruptionBudget": the("PodDisruptionBudget", manifests, name)["spec"]["selector"]["matchLabels"],
        "NetworkPolicy": the("NetworkPolicy", manifests, name)["spec"]["podSelector"]["matchLabels"],
        "PodMonitor": the("PodMonitor", manifests, name)["spec"]["selector"]["matchLabels"],
        **{
            f"spread over {constraint['topologyKey']}": constraint["labelSelector"]["matchLabels"]
            for constraint in pod.get("topologySpreadConstraints", [])
        },
    }


def add_components(overlay, *names):
    """Have an overlay name components."""
    with (overlay / "kustomization.yaml").open("a", encoding="utf-8") as kustomization:
        kustomization.write(f"components: [{', '.join(f'../../{name}' for name in names)}]\n")


@pytest.mark.parametrize("kind", ["edge", "cluster"])
def test_two_installations_of_the_document_in_one_namespace_take_only_their_own_pods(kind, tmp_path):
    """Else no node with them could be emptied, and Prometheus would have each pod twice."""
    overlays = documented_overlays(tmp_path)
    for name in ("mine", "line-2"):
        kustomization = overlays / name / "kustomization.yaml"
        text = kustomization.read_text(encoding="utf-8").replace("[../edge]", f"[../{kind}]")
        kustomization.write_text(text, encoding="utf-8")
        add_components(overlays / name, "monitoring")
    both = {"connector": rendered(overlays / "mine"), "line-2-connector": rendered(overlays / "line-2")}
    for name, manifests in both.items():
        for manifest in manifests:
            validate(manifest)
        labels = the("StatefulSet", manifests, name)["spec"]["template"]["metadata"]["labels"]
        for whose, others in both.items():
            for what, selector in selectors(others, whose).items():
                assert (selector.items() <= labels.items()) is (name == whose), f"{what} of {whose}"
        relabelings = the("PodMonitor", manifests, name)["spec"]["podMetricsEndpoints"][0]["relabelings"]
        assert {"targetLabel": "job", "replacement": "connector"} in relabelings, "dashboards and rules go by it"
    first, second = ({(m["kind"], m["metadata"]["name"]) for m in manifests} for manifests in both.values())
    assert not first & second, "no manifest is the other's as well"
    assert ("Namespace", "connector") in first
    assert "Namespace" not in {kind for kind, _ in second}
    settings = the("ConfigMap", both["line-2-connector"], "line-2-connector-settings")["data"]
    names = Names(settings["WEB_ALLOWED_HOSTS"].split(","))
    assert names.has("line-2-connector-0.line-2-connector.connector.svc.cluster.local")


# ---- components


def rendered_with(component, overlay, directory, prefix=""):
    """Return the manifests of an overlay that names a component, each valid."""
    copied = shutil.copytree(REPOSITORY / "k8s", directory / "k8s") / "overlays" / overlay
    add_components(copied, component)
    with (copied / "kustomization.yaml").open("a", encoding="utf-8") as kustomization:
        kustomization.write(f"namePrefix: {prefix}\n" if prefix else "")
    manifests = rendered(copied)
    for manifest in manifests:
        validate(manifest)
    return manifests


def test_on_openshift_the_pod_asks_for_no_user_of_its_own(overlay, tmp_path):
    manifests = rendered_with("openshift", overlay, tmp_path)
    context = the("StatefulSet", manifests)["spec"]["template"]["spec"]["securityContext"]
    assert not {"runAsUser", "runAsGroup", "fsGroup"} & context.keys()
    assert context["runAsNonRoot"] is True
    dns = the("NetworkPolicy", manifests)["spec"]["egress"][-1]
    assert {port["port"] for port in dns["ports"]} == {5353}


def test_a_secret_that_something_else_makes_is_mounted_by_its_own_name(overlay, tmp_path):
    manifests = rendered_with("existing-secret", overlay, tmp_path)
    assert "Secret" not in {manifest["kind"] for manifest in manifests}
    stateful_set = the("StatefulSet", manifests)
    (volume,) = (
        volume["secret"] for volume in stateful_set["spec"]["template"]["spec"]["volumes"] if "secret" in volume
    )
    assert volume["secretName"] == "connector-secrets"
    assert stateful_set["metadata"]["annotations"] == {"secret.reloader.stakater.com/reload": "connector-secrets"}


def test_a_priority_is_that_of_the_class_that_comes_with_it(overlay, tmp_path):
    manifests = rendered_with("priority", overlay, tmp_path, prefix="b-")
    priority = the("PriorityClass", manifests, "b-connector")
    assert 0 < priority["value"] <= 1_000_000_000
    pod = the("StatefulSet", manifests, "b-connector")["spec"]["template"]["spec"]
    assert pod["priorityClassName"] == priority["metadata"]["name"]
