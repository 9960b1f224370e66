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
from clients.brokers.process import free_port

REPOSITORY = Path(__file__).resolve().parents[1]
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
    command = [sys.executable, "-I", "-S", str(REPOSITORY / "image" / "healthcheck.py")]
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


def test_what_the_image_presets_are_settings_that_the_worker_accepts():
    preset = dict(pair.split("=", 1) for pair in instructions("ENV")[0].split())
    settings = {name: value for name, value in preset.items() if name in NAMES}
    assert set(preset) - set(settings) == {"PATH", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    loaded = load_settings({**settings, **REQUIRED})
    assert str(loaded.db_persist_path) == instructions("VOLUME")[0]
    assert instructions("EXPOSE") == [str(loaded.web_port)]


def test_signals_reach_the_worker_and_the_user_is_a_number():
    assert json.loads(instructions("ENTRYPOINT")[0])[0].startswith("/")
    assert json.loads(instructions("CMD")[0]) == ["worker"]
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
