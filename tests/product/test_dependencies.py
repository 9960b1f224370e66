"""The dependencies of the bridge: listed with their licences, audited in earnest. No brokers are needed."""

from __future__ import annotations

import http.server
import json
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from tools import dependencies

REPOSITORY = Path(__file__).resolve().parents[2]
LOCKED = set(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", dependencies.LOCK.read_text(), re.MULTILINE))
# Of each alternative (OR) one must be here, of each sum (AND) all; anything else is looked at by a person first.
FITTING = re.compile(
    r"MIT( License)?|BSD(-[23]-Clause)?( License)?|BSD-derived \(Repoze\)|ISC|Zlib|PSF-2\.0"
    r"|Python Software Foundation License|Apache([ -](License, Version )?2(\.0)?| Software License)"
)
ELSEWHERE = {"colorama": "for Windows only, where Connector does not run"}


def fits(licence: str) -> bool:
    return any(
        all(FITTING.fullmatch(part.strip()) for part in alternative.split(" AND "))
        for alternative in licence.split(" OR ")
    )


@pytest.fixture(scope="module")
def document():
    return dependencies.bill_of_materials()


def test_every_locked_package_is_in_the_bill_of_materials_with_version_and_hashes(document):
    assert len(LOCKED) > 30
    assert {(part["name"], part["version"]) for part in document["components"]} == LOCKED
    for part in document["components"]:
        assert part["purl"].endswith(f"{part['name']}@{part['version']}")
        assert part["externalReferences"][0]["hashes"]


def test_the_bill_of_materials_is_the_same_every_time_and_place(document):
    command = [sys.executable, "-m", "tools.dependencies", "sbom"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert json.loads(done.stdout) == document
    assert "serialNumber" not in document
    assert "timestamp" not in document["metadata"]
    assert str(REPOSITORY) not in done.stdout


def test_every_licence_is_known_and_fits_mit(document):
    """A package whose locked version is not the one installed here is locked for another Python; its name is known."""
    licences = {}
    for part in document["components"]:
        found = [entry["license"]["name"] for entry in part.get("licenses", ())]
        licences.setdefault(part["name"], []).extend(found)
    unknown = {name for name, found in licences.items() if not found}
    assert unknown == set(ELSEWHERE)
    unfit = {name: found for name, found in licences.items() if not all(map(fits, found))}
    assert not unfit, "does it fit MIT?"


def test_libraries_that_packages_bring_compiled_are_listed_with_their_versions(document):
    inside = {part["name"]: [library["name"] for library in part["components"]]
              for part in document["components"] if "components" in part}  # fmt: skip
    assert inside == {"confluent-kafka": ["librdkafka", "openssl", "zlib"], "rocksdict": ["rocksdb"]}
    libraries = [library for part in document["components"] for library in part.get("components", ())]
    assert all(re.fullmatch(r"\d+\.\d+[.\d]*", library["version"]) for library in libraries)
    assert all(fits(library["licenses"][0]["license"]["name"]) for library in libraries)


@pytest.mark.parametrize(
    "licence", ["GPL-3.0-only", "AGPL-3.0", "SSPL-1.0", "MIT AND GPL-2.0", "EPL-2.0", "Proprietary", ""]
)
def test_a_licence_that_does_not_fit_is_seen(licence):
    assert not fits(licence)
    assert fits(f"{licence} OR MIT"), "who may choose, chooses"


class Service(http.server.BaseHTTPRequestHandler):
    """A vulnerability service in the form of OSV's."""

    vulnerable = ""

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        found = {"vulns": [{"id": "TEST-1", "summary": "s", "aliases": [], "affected": []}]}
        answer = json.dumps(found if asked["package"]["name"] == self.vulnerable else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield ("--vulnerability-service", "osv", "--osv-url", f"http://127.0.0.1:{server.server_address[1]}")
        server.shutdown()
        thread.join()


def test_an_audit_that_finds_nothing_says_how_much_it_asked_about(service):
    status, lines = dependencies.audit(service)
    assert status == dependencies.NOTHING_KNOWN
    (line,) = lines
    # What is locked for another system or Python is not asked about.
    assert int(line.removesuffix(" packages: all well")) == len({name for name, _ in LOCKED}) - len(ELSEWHERE)


def test_an_audit_that_finds_something_names_it(service, monkeypatch):
    monkeypatch.setattr(Service, "vulnerable", "aiohttp")
    status, lines = dependencies.audit(service)
    assert status == dependencies.VULNERABLE
    assert re.fullmatch(r"aiohttp \S+: TEST-1, mended in none", lines[0])


def test_an_audit_without_its_service_does_not_look_like_a_pass():
    nobody = ("--vulnerability-service", "osv", "--osv-url", "http://127.0.0.1:9", "--timeout", "5")
    status, lines = dependencies.audit(nobody)
    assert status == dependencies.NOT_AUDITED
    assert lines[0].startswith("NOT AUDITED: the service did not answer")


def test_an_audit_whose_service_never_answers_ends_and_does_not_look_like_a_pass(monkeypatch):
    monkeypatch.setattr(dependencies, "AUDIT_SECONDS", 0.01)
    status, lines = dependencies.audit()
    assert (status, lines[0].partition(":")[0]) == (dependencies.NOT_AUDITED, "NOT AUDITED")


@pytest.mark.parametrize(("audited", "ends", "fresh"), [(0, 0, True), (3, 0, True), (1, 1, False), (2, 2, False)])
def test_continuous_integration_fails_for_a_known_weakness_and_not_for_a_service_that_is_away(
    audited, ends, fresh, tmp_path
):
    """The script itself, with programs in the place of make and Python that end as they are told."""
    for path, text in {
        ".ci/run": (REPOSITORY / ".ci" / "run").read_text(encoding="utf-8"),
        "bin/make": '#!/bin/sh\necho "made $1"\n',
        ".venv/bin/python": f'#!/bin/sh\necho "asked $3"\nexit {audited}\n',
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, encoding="utf-8")
        (tmp_path / path).chmod(0o755)
    variables = {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin"}
    done = subprocess.run(["bash", ".ci/run"], cwd=tmp_path, env=variables, capture_output=True, text=True, check=False)
    said = ["made check", "asked audit", *(["made fresh"] if fresh else [])]
    assert (done.returncode, done.stdout.splitlines()) == (ends, said), done.stderr


def test_an_audit_of_packages_that_the_service_does_not_know_does_not_look_like_a_pass(monkeypatch):
    """A mirror without that service answers that it knows no such package; pip-audit itself calls that a pass."""
    said = json.dumps({"dependencies": [{"name": "aiohttp", "skip_reason": "not found"}], "fixes": []})
    done = subprocess.CompletedProcess([], 0, said, "No known vulnerabilities found")
    monkeypatch.setattr(dependencies, "_run", lambda *_: done)
    status, lines = dependencies.audit()
    assert status == dependencies.NOT_AUDITED
    assert lines == ["NOT AUDITED: the service knows nothing of 1 of 1 packages: aiohttp"]
