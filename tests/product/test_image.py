"""What the image is made of, and its health check; without brokers. `make image-test` builds it and runs it."""

from __future__ import annotations

import fnmatch
import json
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from app.settings import NAMES, load_settings
from tools.brokers.process import free_port

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKERFILE = re.sub(r"\\\n(\s*#.*\n)*", " ", (REPOSITORY / "Dockerfile").read_text(encoding="utf-8"))
FINAL_STAGE = DOCKERFILE.rpartition("\nFROM ")[2]
REQUIRED = {"MQTT_BROKER_URL": "mqtt", "MQTT_CLIENT_ID": "image", "KAFKA_BROKER": "kafka", "TOPIC_LIST": "a:a"}


def instructions(word, text=FINAL_STAGE):
    """Return what stands after an instruction, each time."""
    return re.findall(rf"^{word} +(.*)$", text, re.MULTILINE)


# ---- the health check


def answering(status):
    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status if self.path == "/health/live" else 404)
            self.end_headers()
            self.wfile.write(b"as asked")

        def log_message(self, *_):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Page)


def check(port, **variables):
    """Run the check with more patience than it has: a page of the tests may stand still for longer."""
    program = (REPOSITORY / "image" / "healthcheck.py").read_text(encoding="utf-8")
    assert program.count("TIMEOUT_SECONDS = 4.0") == 1
    command = [sys.executable, "-I", "-S", "-c", program.replace("TIMEOUT_SECONDS = 4.0", "TIMEOUT_SECONDS = 120.0")]
    variables = {"WEB_PORT": str(port), **variables}
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("status", "exit_code"), [(200, 0), (503, 1), (500, 1)])
@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1", "", "::", "[::]"])
def test_the_health_check_says_what_the_page_says(status, exit_code, host):
    server = answering(status)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        result = check(server.server_port, WEB_HOST=host)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (result.returncode, result.stdout) == (exit_code, f"{status} as asked\n")


def test_the_health_check_fails_where_nobody_answers():
    result = check(free_port())
    assert (result.returncode, result.stderr) == (1, "")


# ---- the Dockerfile


def test_the_image_has_every_package_of_the_product_and_nothing_that_is_not_copied_reaches_the_build():
    copied = {path for line in instructions("COPY", DOCKERFILE) if not line.startswith("--from")
              for path in line.split()[:-1]}  # fmt: skip
    assert {"app", "agents", "tables"} <= copied
    patterns = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert next(line for line in patterns if line and not line.startswith("#")) == "*"
    allowed = [line[1:] for line in patterns if line.startswith("!")]
    assert all(any(fnmatch.fnmatch(f"{path}/x", one) or path == one for one in allowed) for path in copied)
    assert {one.removesuffix("/**") for one in allowed} == copied


def left_out(path):
    """Tell whether .dockerignore keeps a file out of the build: of its patterns, the last that matches counts."""
    patterns = (REPOSITORY / ".dockerignore").read_text(encoding="utf-8").split("\n")
    ignored = False
    for pattern in (line for line in patterns if line and not line.startswith("#")):
        expression = (
            re.escape(pattern.removeprefix("!"))
            .replace("\\[", "[")
            .replace("\\]", "]")
            .replace(r"\*\*/", "(.*/)?")
            .replace(r"\*\*", ".*")
        )
        # What is in a directory that matches is left out with it.
        if re.fullmatch(expression.replace(r"\*", "[^/]*") + "(/.*)?", path):
            ignored = not pattern.startswith("!")
    return ignored


@pytest.mark.parametrize(
    "path",
    [".env", "app/.env", "app/settings/.env.production", "agents/prod.env", "tables/.git/config", ".git/config",
     "app/id_rsa", "app/client.pfx", "app/CA.CRT", "app/server.PEM", "agents/kafka.keytab", "app/prod.env.local",
     "app/mqtt/client.key", "app/ca.pem", "app/x.p12", "app/.main.py.swp", "app/main.py~", "app/__pycache__/main.pyc",
     "data/CURRENT", "tests/conftest.py", "k8s/overlays/mine/secrets.env"],
)  # fmt: skip
def test_no_secret_and_nothing_of_an_editor_gets_into_the_image_by_lying_in_a_directory_that_does(path):
    assert left_out(path)


def test_everything_of_the_product_gets_into_the_image():
    command = ["git", "ls-files", "app", "agents", "tables", "LICENSE", "requirements/runtime.txt"]
    files = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY).stdout.split()
    assert not [path for path in files if left_out(path)]


def test_the_base_of_the_image_is_named_by_its_digest_and_every_stage_is_built_on_it():
    (base,) = instructions("ARG", DOCKERFILE.partition("\nFROM ")[0])
    assert re.fullmatch(r"BASE_IMAGE=\S+@sha256:[0-9a-f]{64}", base)
    assert {line.split()[0] for line in instructions("FROM", DOCKERFILE)} == {"${BASE_IMAGE}"}
    named = [line.split()[0] for line in re.findall(r"--from=(\S+)", DOCKERFILE)]
    assert set(named) == {"dependencies"}, "a stage of this file, and no other image"


def test_a_release_takes_no_image_from_a_registry():
    """Its base is made of Debian's packages, and buildah is told to fetch none."""
    script = (REPOSITORY / "image" / "builder.sh").read_text(encoding="utf-8")
    (build,) = re.findall(r"^image_build\(\) \{\n(.*?)^\}", script, re.MULTILINE | re.DOTALL)
    assert "--pull-never" in build
    assert re.search(r"BASE_IMAGE=(\S+?)\"", build)[1].startswith("localhost/")
    assert "FROM scratch" in script


def test_what_the_base_has_gets_the_security_updates_of_the_day():
    (debian,) = (line for line in instructions("RUN") if "apt-get install" in line)
    assert debian.index("apt-get update") < debian.index("apt-get upgrade") < debian.index("apt-get install")
    assert debian.index("apt-get install") < debian.index("chmod a-s"), "what was installed gains no rights"


def test_what_the_image_presets_are_settings_that_the_worker_accepts():
    preset = dict(pair.split("=", 1) for pair in instructions("ENV")[0].split())
    settings = {name: value for name, value in preset.items() if name in NAMES}
    assert set(preset) - set(settings) == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    loaded = load_settings({**settings, **REQUIRED})
    assert str(loaded.db_persist_path) == instructions("VOLUME")[0]
    assert instructions("EXPOSE") == [str(loaded.web_port)]


def test_signals_reach_the_worker_and_the_user_is_a_number():
    assert json.loads(instructions("ENTRYPOINT")[0])[0].startswith("/")
    assert json.loads(instructions("CMD")[0]) == ["run"]
    assert instructions("STOPSIGNAL") == ["SIGTERM"]
    assert re.fullmatch(r"[1-9][0-9]*:[1-9][0-9]*", instructions("USER")[0])
    assert json.loads(instructions("HEALTHCHECK")[0].partition(" CMD ")[2])[-1] == "/opt/connector/healthcheck.py"


def test_dependencies_are_installed_by_hash_and_never_compiled():
    pip = next(line for line in instructions("RUN", DOCKERFILE) if "pip --python" in line)
    assert "--require-hashes" in pip
    assert "--only-binary :all:" in pip
    assert "requirements/runtime.txt" in "".join(instructions("COPY", DOCKERFILE))


def test_no_stage_runs_without_the_time_of_the_build():
    for stage in DOCKERFILE.split("\nFROM ")[1:]:
        assert stage.index("\nARG SOURCE_DATE_EPOCH\n") < stage.index("\nRUN ")
