"""The service of systemd as docs/deploy.md has it, with a real systemd, in an empty Debian without a network.

`make systemd-test` makes that Debian and the bundle, and runs this file; `make test` does not. The blocks of commands
are taken from the document, so that what stands there is what is tried. The tests depend on each other's order.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pytest

from tests.product.service_machine import Machine
from tests.support.oracle import read, wait_until
from tests.support.system import Publisher, frozen
from tools.brokers import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENT = (REPOSITORY / "docs" / "deploy.md").read_text(encoding="utf-8")
SECTION = re.search(r"^## As a service of systemd\n(.*?)^## ", DOCUMENT, re.MULTILINE | re.DOTALL)[1]
INSTALL, START, COMMANDS, _FROM_SOURCES = re.findall(r"^```sh\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)
FIRST_NOTIFY_RELOAD = 253  # version of systemd
ALL_IS_WELL = "All is well."
ROUTES = "routes:\n- {{name: all, from: '{prefix}/#', to: {topic}}}\n{more}"


@pytest.fixture(scope="module")
def place() -> Path:
    """Return the directory with Debian and bundle."""
    given = os.environ.get("CONNECTOR_SERVICE")
    if not given:
        pytest.fail("nothing is made: run `make systemd-test`, as root on Debian or Ubuntu")
    return Path(given).resolve()


@pytest.fixture(scope="module")
def machine(place):
    """Yield a machine that runs; there is no way out of its network."""
    listed = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True).stdout
    assert [line.split()[0] for line in listed.splitlines()] == ["lo"], "this must be a network of its own"
    (bundle,) = place.glob("*.tar")
    machine = Machine(place / "debian", bundle, place / "log")
    yield machine
    (place / "journal").write_text(machine.run("journalctl --unit connector").stdout, encoding="utf-8")
    machine.end()


class Service:
    """The service, and the brokers on its two sides."""

    def __init__(self, machine, mosquitto, kafka):
        self.machine, self.mosquitto, self.kafka = machine, mosquitto, kafka
        self.prefix, self.topic = "service-checks", "service-checks.records"
        self.sent = {}
        self.web_port = free_port()

    def write_settings(self, **settings):
        """Set variables in the file that the installation made, where it has them."""
        for name, value in settings.items():
            self.machine.do(f"grep -q '^#*{name}=' /etc/connector.env\n"
                            f"sed -i 's|^#*{name}=.*|{name}={value}|' /etc/connector.env")  # fmt: skip

    def write_routes(self, more=""):
        text = ROUTES.format(prefix=self.prefix, topic=self.topic, more=more)
        self.machine.do(f"mkdir -p /etc/connector\ncat >/etc/connector/routes.yaml <<'END'\n{text}END")

    def wait_for_status(self, text):
        wait_until(lambda: self.machine.property_of("StatusText").startswith(text), text, 40)

    def process(self):
        """Return the main process, as the machine numbers it."""
        return int(self.machine.property_of("MainPID"))

    def wait_for_another_process(self, than):
        wait_until(
            lambda: self.process() not in {0, than} and self.machine.property_of("ActiveState") == "active",
            "a new start",
            60,
        )


@pytest.fixture(scope="module")
def service(machine, mosquitto, kafka):
    """Return the service; it is installed by the first test."""
    return Service(machine, mosquitto, kafka)


@pytest.fixture(scope="module")
def publisher(mosquitto):
    with Publisher(mosquitto.port) as publisher:
        yield publisher


def test_it_is_installed_without_any_registry_by_the_commands_of_the_document(machine, place):
    altered = machine.run(
        "tar -xf *.tar -C /tmp && cd /tmp/connector-* && echo >>docs/deploy.md && sh install.sh", "/media"
    )
    assert altered.returncode == 1
    assert "docs/deploy.md: FAILED" in altered.stdout + altered.stderr
    assert not machine.run("ls /opt/connector").stdout, "nothing was done with files that are not those of the release"
    machine.do("rm -r /tmp/connector-*")
    said = machine.do(f"ln -s /media/*.tar .\n{INSTALL}", "/tmp")
    assert said.endswith("installed in /opt/connector; settings are in /etc/connector.env\n")
    assert machine.do("stat --format '%a %U %G' /etc/connector.env") == "640 root connector\n"


def test_settings_that_are_missing_end_it_with_2_and_no_new_start(machine):
    machine.run("systemctl start connector")
    wait_until(lambda: machine.property_of("ActiveState") == "failed", "the end")
    assert (machine.property_of("ExecMainStatus"), machine.property_of("NRestarts")) == ("2", "0")
    assert "MQTT_CLIENT_ID: is required" in machine.journal()
    machine.do("systemctl reset-failed connector")


def test_it_starts_by_the_commands_of_the_document_and_messages_cross(service, publisher):
    service.kafka.create_topic(service.topic)
    service.write_settings(
        MQTT_BROKER_URL=f"mqtt://127.0.0.1:{service.mosquitto.port}", MQTT_CLIENT_ID="service-checks",
        KAFKA_BROKER=service.kafka.bootstrap, ROUTES_FILE="/etc/connector/routes.yaml", WEB_PORT=service.web_port,
    )  # fmt: skip
    service.write_routes()
    said = service.machine.do(START)
    assert " 0 wrong" in said
    assert "Active: active (running)" in said
    assert "Connector has started" in said
    for number in range(100):
        publisher.publish(f"{service.prefix}/{number % 5}")
    read(service.kafka.bootstrap, [service.topic], 100).assert_each_once_in_order(publisher.sent)
    service.wait_for_status(ALL_IS_WELL)


def test_what_it_may_do_is_little_and_its_process_has_it(service):
    said = service.machine.do("systemd-analyze security --no-pager connector")
    exposure = float(re.search(r"Overall exposure level for connector.service: ([0-9.]+)", said)[1])
    assert exposure < 2.0
    status = service.machine.do(f"cat /proc/{service.process()}/status")
    found = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert (found["CapEff"], found["NoNewPrivs"], found["Seccomp"]) == ("0" * 16, "1", "2")
    limits = service.machine.do(f"grep 'open files' /proc/{service.process()}/limits").split()
    assert limits[3:5] == ["16384", "16384"]
    log = service.machine.journal()
    assert "Operation not permitted" not in log
    assert "Traceback" not in log
    metrics = service.machine.do(
        "/opt/connector/venv/bin/python -c 'import sys, urllib.request; "
        f'print(urllib.request.urlopen("http://127.0.0.1:{service.web_port}/metrics").read().decode())\''
    )
    assert float(re.search(r"^process_start_time_seconds (\S+)", metrics, re.MULTILINE)[1]) > time.time() - 3600


def test_a_reload_takes_up_routes_and_one_of_a_wrong_file_fails_and_changes_nothing(service, publisher):
    process = service.process()
    service.kafka.create_topic("service-checks.more")
    service.write_routes("- {name: more, from: 'more-checks/#', to: service-checks.more}\n")
    service.machine.do("systemctl reload connector")
    publisher.publish("more-checks/a")
    read(service.kafka.bootstrap, ["service-checks.more"], 1)
    service.write_routes("- {name: more}\n")
    assert service.machine.run("systemctl reload connector").returncode == 1
    assert "line 3, route 'more': from is missing" in service.machine.journal()
    service.machine.do(f"kill -HUP {process}")  # as `Type=notify-reload` has it
    wait_until(lambda: "stay as they are" in service.machine.journal(), "the worker's own refusal")
    service.write_routes()
    service.machine.do("systemctl reload connector")
    assert (service.process(), service.machine.property_of("ActiveState")) == (process, "active")


def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(service, publisher):
    process = service.process()
    service.machine.do(f"kill -KILL {process}")
    for number in range(100):
        publisher.publish(f"{service.prefix}/{number % 5}")
    service.wait_for_another_process(process)
    sent = {topic: count for topic, count in publisher.sent.items() if topic.startswith(service.prefix)}
    read(service.kafka.bootstrap, [service.topic], 200).assert_each_once_in_order(sent)


def test_a_worker_that_does_not_move_is_killed_by_the_watchdog_and_started_again(service, publisher):
    """With a shorter time than the unit's, in a file beside it as the document has it."""
    service.machine.do(
        "mkdir -p /etc/systemd/system/connector.service.d\n"
        "printf '[Service]\\nWatchdogSec=3\\nReadWritePaths=/srv\\n' "
        ">/etc/systemd/system/connector.service.d/override.conf\n"
        "systemctl daemon-reload\nsystemctl restart connector"
    )
    process, began = service.process(), time.monotonic()
    restarts = int(service.machine.property_of("NRestarts"))
    while time.monotonic() - began < 7:  # twice the time, in which it moves
        assert service.process() == process
        time.sleep(0.5)
    service.machine.do(f"kill -STOP {process}")
    service.wait_for_another_process(process)
    assert "Watchdog timeout" in service.machine.do("journalctl --unit connector")
    assert int(service.machine.property_of("NRestarts")) == restarts + 1
    service.wait_for_status(ALL_IS_WELL)


def test_the_commands_of_the_document_work_beside_it_and_it_stops_in_order(service):
    said = service.machine.do(COMMANDS)
    assert "0 dead letters" in said
    assert "all" in said
    journal = service.machine.journal()
    assert "drained: Kafka has everything that was received" in journal
    assert "SIGTERM: the worker stops" in journal
    assert "stopped: 0 messages wait in the table for the next start" in journal
    assert service.machine.property_of("Result") == "success"
    assert service.machine.property_of("ExecMainStatus") == "0"


def test_a_reload_by_systemd_itself_is_waited_for_and_ends_nothing_without_a_file_of_routes(service):
    """`Type=notify-reload`: systemd sends SIGHUP, and waits until the worker says that it has done it."""
    version = int(service.machine.do("systemctl --version").split()[1])
    if version < FIRST_NOTIFY_RELOAD:
        pytest.skip(f"systemd {version} has no Type=notify-reload: SUITE=trixie")
    override = "[Service]\\nType=notify-reload\\nExecReload=\\n"
    service.write_settings(ROUTES_FILE="", WILDCARD_TOPIC_LIST=f"{service.prefix}/#:{service.topic}")
    service.machine.do(
        f"printf '{override}' >/etc/systemd/system/connector.service.d/override.conf\n"
        "systemctl daemon-reload\nsystemctl start connector"
    )
    process = service.process()
    service.machine.do("timeout 20 systemctl reload connector")
    assert (service.process(), service.machine.property_of("ActiveState")) == (process, "active")
    assert "the routes are not read anew" in service.machine.journal()
    service.write_settings(ROUTES_FILE="/etc/connector/routes.yaml", WILDCARD_TOPIC_LIST="")
    service.machine.do(
        "systemctl stop connector\nrm /etc/systemd/system/connector.service.d/override.conf\nsystemctl daemon-reload"
    )


def test_a_command_without_rights_or_settings_says_what_it_needs(service):
    as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups"
    done = service.machine.run(f"{as_nobody} connector drain")
    assert (done.returncode, "sudo connector drain" in done.stderr) == (1, True), done.stderr
    done = service.machine.run(f"{as_nobody} /opt/connector/venv/bin/connector --env-file /etc/connector.env drain")
    assert done.returncode == 2
    assert "--env-file: '/etc/connector.env': cannot be read (Permission denied)" in done.stderr
    done = service.machine.run("/opt/connector/venv/bin/connector drain")
    assert done.returncode == 2
    assert "`sudo connector COMMAND`" in done.stderr


def test_another_version_is_installed_over_a_stopped_service_alone_and_settings_stay(service):
    machine = service.machine
    before = machine.do("sha256sum /etc/connector.env")
    machine.do("systemctl start connector")
    refused = machine.run("sh /tmp/connector-*/install.sh")
    assert (refused.returncode, "systemctl stop connector" in refused.stderr) == (1, True)
    machine.do("systemctl stop connector\nsh /tmp/connector-*/install.sh\nsystemctl start connector")
    assert machine.do("sha256sum /etc/connector.env") == before
    service.wait_for_status(ALL_IS_WELL)


def test_a_stop_that_takes_longer_than_the_unit_allows_is_not_cut_short(service, publisher):
    """STOP_BUDGET_SEC is above TimeoutStopSec, and Kafka does not answer: the worker asks systemd for more time."""
    service.write_settings(STOP_BUDGET_SEC=8)
    machine = service.machine
    machine.do(
        "mkdir -p /etc/systemd/system/connector.service.d\n"
        "printf '[Service]\\nTimeoutStopSec=1\\n' >/etc/systemd/system/connector.service.d/override.conf\n"
        "systemctl daemon-reload\nsystemctl restart connector"
    )
    service.wait_for_status(ALL_IS_WELL)
    with frozen(service.kafka):
        for number in range(100):
            publisher.publish(f"{service.prefix}/{number % 5}")
        machine.do("systemctl stop connector")
    assert machine.property_of("Result") == "success", machine.journal()[-2000:]
