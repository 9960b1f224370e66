"""The image: what is in it, what is not, and that it does its work; for `make image-test` alone, as it takes minutes.

It is built before (`tests/product/build-image.sh`); CONNECTOR_IMAGE names the directory.
"""

from __future__ import annotations

import os
import re
import stat
import struct
import subprocess
import time
from pathlib import Path

import pytest

from tests.product.image_runtime import Container, Image
from tests.support.oracle import read, wait_until
from tests.support.system import Publisher
from tools.brokers import Kafka
from tools.brokers.process import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD_TOOLS = {"pip", "pip3", "uv", "cc", "c++", "gcc", "g++", "clang", "ld", "as", "make", "cmake", "cargo", "go"}
BUILD_TOOLS |= {"git", "curl", "wget"}
BUILD_PACKAGES = {"pip", "setuptools", "wheel", "ensurepip", "pytest", "clients", "tests", "bench"}
STOP_LIMIT_SECONDS = 10.0  # after which `docker stop` kills
REQUIRED = {
    "MQTT_BROKER_URL": "127.0.0.1",
    "MQTT_CLIENT_ID": "image",
    "KAFKA_BROKER": "127.0.0.1:9",
    "WILDCARD_TOPIC_LIST": "plant/#:plant",
}
# What a first `docker run` was given from the beginning on, but for where the brokers are.
OF_THE_FIRST_DAYS = {
    "RUN_MODE": "PRODUCTION",
    "MQTT_BROKER_URL": "127.0.0.1",
    "MQTT_CLIENT_ID": "arafat",
    "MQTT_USER_NAME": "user",
    "MQTT_USER_PASSWORD": "12345678",
    "LOG_LVL": "info",
    "TOPIC_LIST": "default:default-kafka,custom:custom-kafka,dev_arafat:dev_arafat",
    "WILDCARD_TOPIC_LIST": "default/+/mqtt:custom-kafka,default/kc/#:general",
    "INVOKE_LATENCY_SEC": "10",
    "INVOKE_MAX_GOROUTINE": "1000",
    "INVOKE_MIN_GOROUTINE": "50",
    "SASL_SSL": "false",
}
# MQTT topic: where it goes; the last one matches two wildcards, of which the first counts.
DESTINATIONS = {
    "default": "default-kafka",
    "custom": "custom-kafka",
    "dev_arafat": "dev_arafat",
    "default/car/mqtt": "custom-kafka",
    "default/kc/a/b": "general",
    "default/kc/mqtt": "custom-kafka",
}


@pytest.fixture(scope="module")
def image() -> Image:
    directory = os.environ.get("CONNECTOR_IMAGE")
    if not directory:
        pytest.fail("the image is not built: run `make image-test`, as root on Debian or Ubuntu")
    return Image(Path(directory).resolve())


@pytest.fixture
def container(image, mosquitto, names, tmp_path):
    """Yield a container, and a Kafka of its own; neither is started."""
    kafka = Kafka(tmp_path / "kafka")
    mappings = f"{names.mqtt('#')}:{names.kafka()}"
    container = Container(
        image, tmp_path / "container", mosquitto.port, kafka.bootstrap, mappings, mqtt_client_id=names.client_id
    )
    yield container, kafka
    container.kill()
    kafka.kill()


# ---- what is in it


def files(image):
    """Yield each path of the image below its root, with what the file system knows of it."""
    for folder, folders, names in os.walk(image.root):
        for name in (*folders, *names):
            path = Path(folder) / name
            yield path.relative_to(image.root), path.lstat()


def test_no_tool_that_builds_or_fetches_is_left(image):
    found = [str(path) for path, _ in files(image) if path.parent.name in {"bin", "sbin"} and path.name in BUILD_TOOLS]
    packages = [
        str(path)
        for path, _ in files(image)
        if path.parent.name in {"site-packages", "dist-packages", "python3", "connector"}
        and path.name in BUILD_PACKAGES
    ]
    assert not found
    assert not packages
    assert not list(image.root.glob("usr/lib/python3.*/ensurepip"))


def test_nothing_of_the_machine_that_built_it_is_in_it(image):
    assert not (image.root / "etc" / "pip.conf").exists()
    assert not (image.root / "run" / "authorities.crt").exists()
    assert not [name for name in ("hostname", "hosts", "resolv.conf") if (image.root / "etc" / name).read_text()]
    assert not list((image.root / "usr/local/share").rglob("*.crt"))
    apt = [path for path in (image.root / "etc" / "apt").rglob("*") if path.is_file() and path.suffix != ".gpg"]
    assert not [path for path in apt if re.search(rb"(?i)proxy|login|password", path.read_bytes())]
    assert not list((image.root / "tmp").iterdir())
    assert {path.name for path in (image.root / "opt/connector").iterdir()} == {
        "LICENSE", "__pycache__", "agents", "app", "healthcheck.py", "tables", "venv",
    }  # fmt: skip


def test_of_the_product_it_has_what_is_committed_and_nothing_else(image):
    command = ["git", "ls-files", "app", "agents", "tables"]
    committed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY).stdout.split()
    folders = [image.root / "opt" / "connector" / name for name in ("app", "agents", "tables")]
    found = [path.relative_to(image.root / "opt" / "connector") for folder in folders for path in folder.rglob("*")
             if path.is_file() and path.parent.name != "__pycache__"]  # fmt: skip
    assert {str(path) for path in found} == set(committed)


def test_nothing_in_it_tells_when_it_was_built(image):
    """Logs are gone, and what has a time has that of the last commit."""
    others = [str(path) for path, status in files(image) if status.st_mtime != image.created_seconds]
    logs = [
        str(path) for path, status in files(image) if path.parts[:2] == ("var", "log") and stat.S_ISREG(status.st_mode)
    ]
    assert not others
    assert not logs


def test_no_module_is_compiled_again_at_each_start(image):
    """What is compiled counts by its source's hash, or has its source's time; nothing can be written at run time."""
    loaded = {("usr", "lib"), ("opt", "connector")}
    compiled = [image.root / path for path, _ in files(image) if path.suffix == ".pyc" and path.parts[:2] in loaded]
    stale = []
    for path in compiled:
        flags, seconds = struct.unpack("<4xII", path.read_bytes()[:12])
        source = path.parents[1] / f"{path.name.split('.')[0]}.py"
        if not flags and seconds != int(source.stat().st_mtime):
            stale.append(str(path))
    assert compiled
    assert not stale


def test_its_user_is_a_number_and_owns_nothing_but_the_volume(image):
    user, group = (int(part) for part in image.config["User"].split(":"))
    assert user > 0
    assert group > 0
    owned = [str(path) for path, status in files(image) if user == status.st_uid or group == status.st_gid]
    assert owned == ["data"]


def test_nobody_becomes_root_in_it_and_nothing_is_writable_for_everybody(image):
    found = []
    for path, status in files(image):
        if stat.S_ISLNK(status.st_mode) or path.parts[0] == "dev":
            continue
        sticky_directory = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        gains = stat.S_ISREG(status.st_mode) and status.st_mode & (stat.S_ISUID | stat.S_ISGID)
        gains = gains or "security.capability" in os.listxattr(image.root / path, follow_symlinks=False)
        if gains or (status.st_mode & stat.S_IWOTH and not sticky_directory):
            found.append(str(path))
    assert not found


def test_it_says_what_it_is_and_presets_what_a_container_needs(image):
    config = image.config
    assert config["Entrypoint"] == ["/opt/connector/venv/bin/connector"]
    assert config["Cmd"] == ["run"]
    assert config["StopSignal"] == "SIGTERM"
    assert list(config["Volumes"]) == ["/data"]
    assert list(config["ExposedPorts"]) == ["6066/tcp"]
    assert image.environment["DB_PERSIST_PATH"] == "/data"
    assert image.environment["WEB_HOST"] == "::"
    assert config["Labels"]["org.opencontainers.image.title"] == "Connector"
    assert config["Labels"]["org.opencontainers.image.licenses"] == "MIT"
    assert config["Labels"]["org.opencontainers.image.version"]


# ---- that it does its work


def worker(image):
    """Return what runs when no command is given."""
    return [*image.config["Entrypoint"], *image.config["Cmd"]]


def test_messages_cross_and_survive_a_stop_with_the_volume_while_kafka_is_down(container, names, mosquitto):
    """Messages cross, wait through an outage of Kafka and a new container, and arrive each once, in order."""
    container, kafka = container
    topics = [names.mqtt(str(number)) for number in range(5)]
    kafka.start()
    kafka.create_topic(names.kafka())
    container.start()
    with Publisher(mosquitto.port) as publisher:
        publisher.publish_many(topics, 1_000)
        read(kafka.bootstrap, [names.kafka()], 1_000).assert_each_once_in_order(publisher.sent)
        kafka.stop()
        publisher.publish_many(topics, 1_000)
        wait_until(lambda: container.total("connector_undelivered_messages") == 1_000, "1,000 messages in the volume")
        began = time.monotonic()
        container.stop()
        stopped_seconds = time.monotonic() - began
        assert container.exit_status == 0, container.log_tail()
        assert stopped_seconds < STOP_LIMIT_SECONDS
        container.start()
        assert container.total("connector_recovered_total") == 1_000
        kafka.start()
        oracle = read(kafka.bootstrap, [names.kafka()], 2_000)
        oracle.assert_each_once_in_order(publisher.sent)
        wait_until(lambda: container.total("connector_undelivered_messages") == 0, "an empty table")
        container.assert_balanced()
    container.stop()
    assert container.exit_status == 0, container.log_tail()


def test_the_variables_of_the_first_days_do_what_they_always_did(container, mosquitto):
    """Mapped topics, a user that an open broker does not ask for, the first wildcard with a warning, an outage."""
    container, kafka = container
    given = {name: container.settings[name] for name in ("MQTT_BROKER_PORT", "KAFKA_BROKER", "WEB_PORT")}
    container.settings = {**OF_THE_FIRST_DAYS, **given}
    kafka.start()
    for topic in set(DESTINATIONS.values()):
        kafka.create_topic(topic)
    container.start()
    with Publisher(mosquitto.port) as publisher:
        for restarted in (False, True):
            for topic in DESTINATIONS:
                publisher.publish(topic)
            publisher.wait_for_acknowledgements()
            if not restarted:
                wait_until(lambda: container.total("connector_delivered_total") == len(DESTINATIONS), "all records")
                kafka.stop()
        wait_until(lambda: container.total("connector_undelivered_messages") == len(DESTINATIONS), "all in the volume")
        kafka.start()
        oracle = read(kafka.bootstrap, sorted(set(DESTINATIONS.values())), 2 * len(DESTINATIONS))
        oracle.assert_each_once_in_order(publisher.sent)
    for record in oracle.records:
        assert record.topic == DESTINATIONS[record.headers["mqtt-topic"].decode()]
    log = container.log_path.read_text()
    assert log.count("several routes match the MQTT topic") == 1
    assert "default/+/mqtt:custom-kafka is used, not default/kc/#:general" in log
    assert OF_THE_FIRST_DAYS["MQTT_USER_PASSWORD"] not in log
    container.assert_balanced()


def test_the_worker_is_process_1_without_root_and_writes_to_the_volume_alone(container):
    container, _kafka = container
    container.start()
    status = container.proc_status()
    user, group = container.image.config["User"].split(":")
    assert status["Uid"].split() == [user] * 4
    assert status["Gid"].split() == [group] * 4
    assert status["NSpid"].split()[-1] == "1"
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"
    refused = container.execute("touch", "/opt/connector/x", root=True)
    assert "Read-only file system" in refused.stderr, "the test itself must see a read-only root"
    opened = container.execute("find", "/proc/1/fd", "-lname", "/*", "-printf", "%l\n").stdout.split()
    assert not [name for name in opened if not name.startswith(("/data/", "/dev/", str(container.log_path)))]
    assert list(container.volume.iterdir()), "the table is in the volume"


def test_a_volume_as_kubernetes_makes_it_will_do(container):
    """It belongs to root and to the group of `fsGroup`."""
    container, _kafka = container
    os.chown(container.volume, 0, int(container.image.config["User"].split(":")[1]))
    container.volume.chmod(0o2775)
    container.start()
    container.restart()
    assert container.exit_status == 0
    assert container.metrics()["connector_store_durable"][()] == 1


def test_any_user_will_do_with_the_group_that_openshift_gives_it(container, names, mosquitto):
    """P1: a number of the namespace that no file knows, of the group root; volume and secrets have a group beside."""
    container, _kafka = container
    user = group = 1_000_650_000
    container.user = f"{user}:0:{group}"
    placed = container.volume / "password"  # as the kubelet mounts it, but for the place
    placed.write_text("of mqtt\n")
    os.chown(placed, 0, group)
    placed.chmod(0o440)
    os.chown(container.volume, 0, group)
    container.volume.chmod(0o2775)
    container.settings |= {"MQTT_USER_NAME": "somebody", "MQTT_USER_PASSWORD_FILE": "/data/password"}
    container.start()
    with Publisher(mosquitto.port) as publisher:
        publisher.publish_many([names.mqtt("a")], 100)
        wait_until(lambda: container.total("connector_undelivered_messages") == 100, "100 messages in the volume")
    listed = container.execute("connector", "dead-letters", "list")
    assert (listed.returncode, listed.stdout.strip()) == (0, "0 dead letters"), listed.stderr
    container.restart()
    assert container.exit_status == 0
    assert container.total("connector_recovered_total") == 100
    assert (container.volume / "undelivered").stat().st_uid == user


def test_without_a_directory_it_keeps_messages_in_memory_and_says_so(container):
    container, _kafka = container
    container.settings["DB_PERSIST_PATH"] = ""
    container.start()
    assert container.metrics()["connector_store_durable"][()] == 0
    assert "DB_PERSIST_PATH is not set" in container.log_path.read_text()
    assert not list(container.volume.iterdir())


def test_the_health_check_and_the_commands_work_beside_the_worker(container):
    container, _kafka = container
    check = container.image.config["Healthcheck"]["Test"]
    assert check[0] == "CMD", "no shell"
    container.start()
    result = container.execute(*check[1:])
    assert (result.returncode, result.stdout) == (0, '200 {"alive":true}\n')
    listed = container.execute("connector", "dead-letters", "list")
    assert (listed.returncode, listed.stdout.strip()) == (0, "0 dead letters"), listed.stderr


def test_the_health_check_fails_where_nobody_answers(image, tmp_path):
    check = image.config["Healthcheck"]["Test"][1:]
    result = image.run(image.volume(tmp_path / "volume"), {"WEB_PORT": str(free_port())}, command=check)
    assert (result.returncode, "no answer at" in result.stdout) == (1, True), result.stderr


def test_wrong_settings_end_it_with_2_and_their_names(image, tmp_path):
    result = image.run(image.volume(tmp_path / "volume"), {}, command=worker(image))
    assert result.returncode == 2
    for name in ("MQTT_BROKER_URL", "MQTT_CLIENT_ID", "KAFKA_BROKER"):
        assert f"{name}: is required" in result.stderr


def test_a_volume_that_it_cannot_write_to_ends_it_with_3(image, tmp_path):
    volume = tmp_path / "volume"
    volume.mkdir(mode=0o755)
    settings = {**REQUIRED, "WEB_PORT": str(free_port())}
    result = image.run(volume, settings, command=worker(image))
    assert result.returncode == 3, result.stderr
    assert "DB_PERSIST_PATH /data" in result.stderr


def test_a_command_is_an_argument_of_the_image(image, tmp_path):
    command = [*image.config["Entrypoint"], "dead-letters", "list"]
    result = image.run(image.volume(tmp_path / "volume"), REQUIRED, command=command)
    assert result.returncode == 3
    assert result.stderr.startswith("connector: DB_PERSIST_PATH /data holds no table yet: set DB_PERSIST_PATH as ")
