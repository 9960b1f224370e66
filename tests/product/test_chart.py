"""The Helm chart: it renders what kustomize does, Kubernetes and the worker accept it, and wrong values are refused."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import jsonschema
import pytest
import yaml

from app.settings import SECRET_NAMES, load_settings
from app.version import VERSION
from tests.product import kustomized
from tests.product.charted import (
    CHART,
    EXAMPLES,
    HELM_VERSION,
    REPOSITORY,
    by_name,
    differences,
    helm,
    rendered,
)  # fmt: skip
from tests.product.kustomized import the, validate
from tests.product.test_kubernetes import check_egress, settings_of
from tools.brokers import ProcessError

SECRET = {"existingSecret.name": "connector-secrets"}
MONITORING = {"monitoring.podMonitor": True, "monitoring.rules": True, "monitoring.dashboard": True}
# Kubernetes takes no other value for these in a StatefulSet that exists.
NEVER_CHANGED = ("selector", "serviceName", "podManagementPolicy", "volumeClaimTemplates")
OF_HELM = ("app.kubernetes.io/version", "app.kubernetes.io/managed-by", "helm.sh/chart")
VALUES = yaml.safe_load((CHART / "values.yaml").read_text(encoding="utf-8"))
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))


# ---- the same as kustomize's


def of_kustomize(overlay, directory):
    """Return what an overlay has with all components that the chart has as values, under names without hashes."""
    copied = shutil.copytree(REPOSITORY / "k8s", directory / "k8s", symlinks=True) / "overlays" / overlay
    components = [f"../../{name}" for name in ("existing-secret", "monitoring") if (copied / f"../../{name}").exists()]
    with (copied / "kustomization.yaml").open("a", encoding="utf-8") as kustomization:
        kustomization.write(f"components: {json.dumps(components)}\n")
    text = yaml.safe_dump_all(kustomized.rendered(copied))
    manifests = yaml.safe_load_all(re.sub(r"\b(connector-(?:settings|secrets))-[0-9a-z]{10}\b", r"\1", text))
    # The namespace is there before a release, and the Secret is somebody else's.
    return tuple(each for each in manifests if each["kind"] not in {"Namespace", "Secret"})


def without_helms_own(manifests):
    """Return manifests without what only Helm has: its labels, and the checksum in the place of the hash of a name."""
    stripped = yaml.safe_load(yaml.safe_dump(list(manifests)))
    for each in stripped:
        for label in OF_HELM:
            del each["metadata"]["labels"][label]
        if each["kind"] == "ConfigMap":
            # Kustomize's generators give no name of their own.
            del each["metadata"]["labels"]["app.kubernetes.io/name"]
        if each["kind"] == "StatefulSet":
            annotations = each["spec"]["template"]["metadata"].pop("annotations")
            assert set(annotations) == {"checksum/settings"}
    return tuple(stripped)


@pytest.mark.parametrize("overlay", ["edge", "cluster"])
def test_the_chart_renders_what_the_overlay_has(overlay, tmp_path):
    """Each difference is named by object and field. The values are those of the example of the same name."""
    chart = without_helms_own(rendered(f"{overlay}.yaml", values=SECRET | MONITORING))
    found = list(differences(by_name(of_kustomize(overlay, tmp_path)), by_name(chart)))
    assert not found, "\n".join(found)


def test_a_field_that_differs_is_named():
    """The check itself, which would be worth nothing if it took everything."""
    one = {"StatefulSet a": {"spec": {"replicas": 1, "list": [{"x": 1}]}}, "Service b": {}}
    other = {"StatefulSet a": {"spec": {"replicas": 2, "list": [{"x": 2}]}}}
    assert list(differences(one, other)) == [
        'Service b: kustomize has {}, the chart "nothing"',
        "StatefulSet a / spec / list / 0 / x: kustomize has 1, the chart 2",
        "StatefulSet a / spec / replicas: kustomize has 1, the chart 2",
    ]


# ---- Kubernetes and the worker


@pytest.mark.parametrize("example", ["edge", "cluster"])
def test_every_manifest_is_what_kubernetes_knows(example):
    everything = {
        **MONITORING,
        **SECRET,
        "openshift": True,
        "existingSecret.version": "2",
        "priorityClassName": "high",
        "nodeSelector": {"a": "b"},
        "storage.className": "fast",
        "storage.accessMode": "ReadWriteOnce",
    }
    for values in ({}, everything):
        for manifest in rendered(f"{example}.yaml", values=values):
            validate(manifest)


@pytest.mark.parametrize("example", ["edge", "cluster"])
def test_helm_finds_nothing_to_complain_of(example):
    done = helm("lint", "--strict", CHART, "--values", EXAMPLES / f"{example}.yaml", "--kube-version", "1.30.0")
    assert done.returncode == 0, done.stdout


def test_the_worker_accepts_the_settings_and_numbers_are_as_they_were_written():
    values = {"settings.MQTT_RECEIVE_MAXIMUM": 20000, "settings.UNDELIVERED_MAX_BYTES": 10000000000,
              "settings.STORE_AFTER_MS": 2500, "mappings": ["plant/#:plant", "a/b:c"],
              "existingSecret.settings": ["MQTT_USER_PASSWORD"], "networkPolicy.kafka.ports": []} | SECRET  # fmt: skip
    manifests = rendered("edge.yaml", values=values)
    variables = settings_of(manifests)
    assert variables.pop("MQTT_USER_PASSWORD_FILE") == "/etc/connector/secrets/MQTT_USER_PASSWORD"
    settings = load_settings(variables)
    assert settings.unknown_names == ()
    assert (variables["TOPIC_LIST"], variables["WILDCARD_TOPIC_LIST"]) == ("a/b:c", "plant/#:plant")
    assert (settings.undelivered_max_bytes, settings.mqtt_client_id) == (10_000_000_000, "connector-0")
    check_egress(manifests, settings)


@pytest.mark.parametrize(
    "mqtt",
    [
        {"MQTT_BROKER_URL": "mqtt.plant.example"},
        {"MQTT_BROKER_URL": "mqtt.plant.example", "MQTT_BROKER_PORT": 1884},
        {"MQTT_BROKER_URL": "mqtts://mqtt.plant.example", "MQTT_BROKER_PORT": "8884"},
        {"MQTT_BROKER_URL": "mqtt://mqtt.plant.example:1885", "MQTT_BROKER_PORT": 1884},
        {"MQTT_BROKER_URL": "MQTTS://[fd00::1]"},
    ],
    ids=lambda mqtt: " ".join(map(str, mqtt.values())),
)
def test_the_network_policy_lets_the_worker_reach_mqtt_however_its_port_is_said(mqtt):
    values = {"networkPolicy.kafka.ports": [], **{f"settings.{name}": value for name, value in mqtt.items()}}
    manifests = rendered("edge.yaml", values=values)
    check_egress(manifests, load_settings(settings_of(manifests)))


def test_a_release_and_a_namespace_may_look_like_numbers():
    for manifest in rendered("edge.yaml", release="1e3", namespace="0123"):
        assert manifest["metadata"]["namespace"] == "0123"
        assert manifest["metadata"]["labels"]["app.kubernetes.io/instance"] == "1e3"
        validate(manifest)


def test_routes_are_a_file_that_changes_in_running_pods(tmp_path):
    routes = [{"name": "lines", "from": "plant/{line}/#", "to": "plant.{line}", "key": "{line}"}]
    manifests = rendered("edge.yaml", values={"mappings": [], "routes": routes})
    (volume,) = [each for each in pod_of(manifests)["volumes"] if each["name"] == "routes"]
    (mount,) = [each for each in pod_of(manifests)["containers"][0]["volumeMounts"] if each["name"] == "routes"]
    assert "subPath" not in mount, "Kubernetes would not replace it"
    (tmp_path / "routes.yaml").write_text(
        the("ConfigMap", manifests, volume["configMap"]["name"])["data"]["routes.yaml"]
    )
    variables = settings_of(manifests)
    assert Path(variables["ROUTES_FILE"]) == Path(mount["mountPath"]) / "routes.yaml"
    (route,) = load_settings(variables | {"ROUTES_FILE": str(tmp_path / "routes.yaml")}).routes
    assert (route.name, str(route.mqtt_filter)) == ("lines", "plant/+/#")


def test_the_site_is_a_setting_and_on_every_series_that_is_scraped():
    manifests = rendered("edge.yaml", values={"site": "oslo-1"} | MONITORING)
    assert load_settings(settings_of(manifests)).site == "oslo-1"
    (endpoint,) = the("PodMonitor", manifests)["spec"]["podMetricsEndpoints"]
    assert {"targetLabel": "site", "replacement": "oslo-1"} in endpoint["relabelings"]
    validate(the("PodMonitor", manifests))


def test_the_alerts_lead_to_where_the_runbooks_are():
    address = "https://wiki.plant.example/monitoring.md"
    ours, theirs = (
        the("PrometheusRule", rendered("edge.yaml", values=MONITORING | {"monitoring.runbooks": where}))["spec"]
        for where in ("", address)
    )
    links = [(one, other) for one, other in zip(addresses(ours), addresses(theirs), strict=True)]
    assert links and all(other == f"{address}#{one.partition('#')[2]}" for one, other in links)


def addresses(rules):
    return [
        rule["annotations"]["runbook_url"] for group in rules["groups"] for rule in group["rules"] if "alert" in rule
    ]


def pod_of(manifests):
    return the("StatefulSet", manifests)["spec"]["template"]["spec"]


def test_the_values_of_the_document_give_the_worker_its_secrets_as_files(tmp_path):
    text = (REPOSITORY / "docs" / "helm.md").read_text(encoding="utf-8")
    values = yaml.safe_load(re.search(r"```yaml\n(.*?)```", text, re.DOTALL)[1])
    manifests = rendered(values=values)
    data = settings_of(manifests)
    for name in values["existingSecret"]["settings"]:
        assert data[f"{name}_FILE"] == f"/etc/connector/secrets/{name}"
        (tmp_path / name).write_text(f"of {name}")
        data[f"{name}_FILE"] = str(tmp_path / name)
    settings = load_settings(data)
    assert settings.kafka_sasl_password.get_secret_value() == "of KAFKA_SASL_PASSWORD"
    assert settings.kafka_tls
    check_egress(manifests, settings)
    assert not [name for name in VALUES if f"`{name}`" not in text], "a value without its row"


# ---- day two


def test_no_upgrade_touches_what_kubernetes_never_changes(tmp_path):
    """Charts have put their version into these, and none of their installations could be upgraded any more."""
    done = helm("package", CHART, "--destination", tmp_path, "--version", "9.8.7", "--app-version", "9.8.7")
    assert done.returncode == 0, done.stderr
    changed = {"replicas": 3, "settings.LOG_LVL": "debug", "existingSecret.version": "2", "site": "north"}
    before = the("StatefulSet", rendered("cluster.yaml"))["spec"]
    package = tmp_path / "connector-9.8.7.tgz"
    after = the("StatefulSet", rendered("cluster.yaml", values=changed | SECRET, chart=package))["spec"]
    assert not list(differences(*({name: spec[name] for name in NEVER_CHANGED} for spec in (before, after))))
    assert after["template"]["spec"]["containers"][0]["image"].endswith(":9.8.7")


def test_a_package_has_what_the_links_lead_to(tmp_path):
    done = helm("package", CHART, "--destination", tmp_path)
    assert done.returncode == 0, done.stderr
    package = tmp_path / f"connector-{VERSION}.tgz"
    assert rendered("edge.yaml", values=MONITORING, chart=package) == rendered("edge.yaml", values=MONITORING)


def test_pods_are_replaced_when_their_settings_change_and_not_when_their_number_does():
    def annotations(**values):
        names = {name.replace("__", "."): value for name, value in values.items()}
        return the("StatefulSet", rendered("cluster.yaml", values=names))["spec"]["template"]["metadata"]["annotations"]

    assert annotations() == annotations(replicas=7)
    assert annotations() != annotations(settings__LOG_LVL="debug")
    assert annotations() != annotations(existingSecret__version="2")


def test_two_releases_in_one_namespace_take_nothing_of_each_other():
    one, other = (rendered("edge.yaml", values=MONITORING, release=name) for name in ("north", "south"))
    names = [set(by_name(manifests)) for manifests in (one, other)]
    assert not names[0] & names[1]
    for manifests in (one, other):
        labels = the("StatefulSet", manifests, "")["spec"]["template"]["metadata"]["labels"]
        for selector in selectors(manifests):
            assert selector == labels
    assert not [each for each in selectors(one) if each in selectors(other)]
    assert load_settings(settings_of_release("north", one)).mqtt_client_id == "north-connector-0"


def selectors(manifests):
    """Return the labels by which each object of a release chooses pods."""
    found = [
        the("Service", manifests, "")["spec"]["selector"],
        the("NetworkPolicy", manifests, "")["spec"]["podSelector"],
    ]
    found += [
        the(kind, manifests, "")["spec"]["selector"] for kind in ("StatefulSet", "PodDisruptionBudget", "PodMonitor")
    ]
    return [each.get("matchLabels", each) for each in found]


def settings_of_release(release, manifests):
    name = f"{release}-connector"
    data = the("ConfigMap", manifests, f"{name}-settings")["data"]
    assert f"{name}-2.{name}" in data["WEB_ALLOWED_HOSTS"].split(",")
    return data | {"MQTT_CLIENT_ID": f"{name}-0"}


def test_a_stop_has_the_time_that_its_budget_takes():
    pod = pod_of(rendered("edge.yaml", values={"settings.STOP_BUDGET_SEC": 60}))
    assert pod["terminationGracePeriodSeconds"] == 85


# ---- values


@pytest.mark.parametrize(
    ("values", "said"),
    [({"image.repository": ""}, "image.repository is needed"),
     ({"settings.KAFKA_BROKER": ""}, "settings.KAFKA_BROKER is needed"),
     ({"settings.MQTT_USER_PASSWORD": "x"}, "settings.MQTT_USER_PASSWORD is a secret"),
     ({"settings.KAFKA_BROKER": "a:b@kafka:9092"}, "settings.KAFKA_BROKER must not contain a user or password"),
     ({"settings.MQTT_CLIENT_ID": "x"}, "it is the name of each pod"),
     ({"mappings": []}, "said by nothing: give either mappings or routes"),
     ({"routes": [{"name": "a", "from": "a", "to": "b"}]}, "said by mappings and routes"),
     ({"replicas": 2}, "each replica would write every message"),
     ({"existingSecret.settings": ["WEB_TOKEN"]}, "needs existingSecret.name"),
     ({"existingSecret.settings": ["WEB_TOKNE"]}, "/existingSecret/settings/0"),
     ({"storage.siez": "1Gi"}, "'siez' not allowed"),
     ({"storage.size": "20"}, "/storage/size"),
     ({"settings.kafka_broker": "x"}, "kafka_broker"),
     ({"mappings": ["plant/#"]}, "/mappings/0"),
     ({"networkPolicy.kafka.to": []}, "/networkPolicy/kafka/to"),
     ({"site": "Oslo 1"}, "/site"),
        ({"existingSecret": None}, "'existingSecret'"),
        ({"image.tag": 20161216}, "/image/tag"),
        ({"image.repository": "registry.example/connector:latest"}, "/image/repository")],
)  # fmt: skip
def test_a_wrong_value_is_named(values, said):
    with pytest.raises(ProcessError) as error:
        rendered("edge.yaml", values=values)
    assert said in str(error.value)


def test_all_that_is_wrong_is_said_at_once():
    with pytest.raises(ProcessError, match=r"4 value\(s\) to correct:"):
        rendered()


def test_a_name_that_is_too_long_for_a_stateful_set_is_refused():
    with pytest.raises(ProcessError, match="at most 52 characters"):
        rendered("edge.yaml", release="a" * 50)


def test_the_schema_knows_every_value_and_none_is_a_secret():
    checked = VALUES | {"image": VALUES["image"] | {"repository": "registry:5000/connector"}}
    jsonschema.Draft7Validator(SCHEMA).validate(checked)
    assert set(SCHEMA["properties"]) - {"global"} == set(VALUES)
    for name, part in SCHEMA["properties"].items():
        assert "properties" not in part or set(part["properties"]) == set(VALUES[name]), name
    assert SCHEMA["properties"]["existingSecret"]["properties"]["settings"]["items"]["enum"] == list(SECRET_NAMES)
    helpers = (CHART / "templates" / "_helpers.tpl").read_text(encoding="utf-8")
    assert f"\n{' '.join(SECRET_NAMES)}\n" in helpers
    assert not VALUES["settings"] and not VALUES["existingSecret"]["name"]


def test_no_secret_is_rendered_and_without_one_none_is_mounted():
    manifests = rendered("edge.yaml")
    assert not [each for each in manifests if each["kind"] == "Secret"]
    assert "secret" not in json.dumps(pod_of(manifests)).lower()


# ---- the files


def test_versions_are_those_of_the_sources():
    described = yaml.safe_load((CHART / "Chart.yaml").read_text(encoding="utf-8"))
    assert (described["version"], described["appVersion"]) == (VERSION, VERSION)
    assert f"HELM_VERSION := {HELM_VERSION}\n" in (REPOSITORY / "Makefile").read_text(encoding="utf-8")


def test_the_chart_has_the_manifests_themselves_and_no_copies():
    templates = "".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir())
    for link in (CHART / "files").iterdir():
        assert link.is_symlink() and link.resolve().parent.name in {"base", "monitoring"}
        assert link.name in templates
    named = set(re.findall(r'"([\w-]+\.yaml)"', templates)) | {"settings.env", "dashboard.json"}
    assert named == {link.name for link in (CHART / "files").iterdir()}


def test_a_chart_whose_links_were_lost_says_so(tmp_path):
    """As where a tool takes it from a Git repository without them: nothing may be rendered without its settings."""
    chart = shutil.copytree(CHART, tmp_path / "connector")
    for link in (chart / "files").iterdir():
        link.unlink()
    with pytest.raises(ProcessError, match="its links were lost; package the chart"):
        rendered("edge.yaml", chart=chart)


def test_the_notes_name_what_was_installed(tmp_path):
    """`helm template` does not show them, and `helm install` wants a cluster: they are rendered as a ConfigMap here."""
    chart = shutil.copytree(CHART, tmp_path / "connector")
    notes = (chart / "templates" / "NOTES.txt").read_text(encoding="utf-8")
    (chart / "templates" / "notes.yaml").write_text(
        '{{- define "notes" }}'
        + notes
        + '{{ end }}\nkind: Notes\nmetadata: {name: notes}\ntext: {{ include "notes" . | toJson }}\n'
    )
    values = SECRET | {"routes": [{"name": "a", "from": "a", "to": "b"}], "mappings": []}
    text = the("Notes", rendered("edge.yaml", values=values, release="north", namespace="plants", chart=chart), "")[
        "text"
    ]
    commands = re.findall(r"^  kubectl (.*)$", text, re.MULTILINE)
    assert len(commands) == 6
    assert all(command.startswith("--namespace plants ") and "north" in command for command in commands)
    assert "connector-secrets" in text and "connector reload" in text
