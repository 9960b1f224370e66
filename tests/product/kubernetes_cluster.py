"""A real control plane of Kubernetes without nodes: etcd, kube-apiserver and kube-controller-manager, on this machine.

What decides about manifests is real: schemas, admission with Pod Security, the controllers of StatefulSets, disruption
budgets and EndpointSlices, evictions. There is no kubelet and no scheduler, so no container runs: a test says by itself
that a pod is ready, as a kubelet would, through the subresource `status`.
"""

from __future__ import annotations

import json
import os
import secrets
import ssl
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from typing_extensions import Self

from tests.support.oracle import wait_until
from tools.brokers import ProcessError, ServerProcess
from tools.brokers.process import HOST, free_port

KUBERNETES_VERSION = "1.36.3"
PROGRAMS = Path(__file__).resolve().parents[2] / ".tools" / f"kubernetes-{KUBERNETES_VERSION}"
# What a cluster does by itself beside what is asked of it here; not what looks after nodes, of which there are none.
CONTROLLERS = (
    "statefulset-controller,disruption-controller,endpointslice-controller,serviceaccount-controller,"
    "root-ca-certificate-publisher-controller,namespace-controller,garbage-collector-controller,"
    "persistentvolumeclaim-protection-controller,persistentvolume-protection-controller"
)


def program(name: str) -> str:
    """Return the path of a program that `make k8s-test` builds."""
    path = PROGRAMS / name
    if not path.exists():
        raise ProcessError(f"{path} is missing: run `make k8s-test`, which builds it")
    return str(path)


class Etcd(ServerProcess):
    """The database of the API server."""

    title = "etcd"

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._peer_port = free_port()

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://{HOST}:{self.port}"

    def command(self) -> Sequence[str]:
        """Return the command line; nothing is synced, as nothing is kept."""
        peer = f"http://{HOST}:{self._peer_port}"
        return [
            program("etcd"), "--data-dir", str(self.directory / "data"), "--unsafe-no-fsync", "--log-level=warn",
            "--listen-client-urls", self.url, "--advertise-client-urls", self.url,
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}",
        ]  # fmt: skip


class ApiServer(ServerProcess):
    """kube-apiserver, with one administrator, who signs in with a token."""

    title = "kube-apiserver"

    def __init__(self, directory: Path, etcd: Etcd) -> None:
        super().__init__(directory)
        self._etcd = etcd
        self._token = secrets.token_hex(16)
        self.kubeconfig = directory / "kubeconfig"
        self.key = directory / "service-accounts.key"

    def prepare(self) -> None:
        """Write who may sign in, with which key tokens are signed, and how clients find it."""
        (self.directory / "tokens.csv").write_text(f"{self._token},admin,admin,system:masters\n")
        subprocess.run(
            ["openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", self.key],
            check=True, capture_output=True,
        )  # fmt: skip
        authority = self.directory / "certificates" / "apiserver.crt"
        cluster = {"server": f"https://{HOST}:{self.port}", "certificate-authority": str(authority)}
        configuration = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "clusters": [{"name": "here", "cluster": cluster}],
            "users": [{"name": "admin", "user": {"token": self._token}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "admin"}}],
        }  # fmt: skip
        self.kubeconfig.write_text(yaml.safe_dump(configuration))
        self.kubeconfig.chmod(0o600)

    def command(self) -> Sequence[str]:
        """Return the command line: what it does by default, for one machine."""
        return [
            program("kube-apiserver"),
            f"--etcd-servers={self._etcd.url}",
            f"--bind-address={HOST}", f"--advertise-address={HOST}", f"--secure-port={self.port}",
            f"--cert-dir={self.directory / 'certificates'}", "--endpoint-reconciler-type=none",
            f"--token-auth-file={self.directory / 'tokens.csv'}", "--authorization-mode=RBAC",
            "--service-cluster-ip-range=10.96.0.0/16", "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={self.key}", f"--service-account-signing-key-file={self.key}",
        ]  # fmt: skip

    def ready(self) -> bool:
        """Tell whether it serves, with everything that it makes at its first start."""
        try:
            return self.ask("/readyz") == b"ok"
        except OSError:
            return False

    def ask(self, path: str) -> bytes:
        """Return what it has at a path; for what is asked often, as kubectl takes long to start.

        Raises:
            OSError: It does not answer, or with an error.
        """
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE  # it is written at the first start
        request = urllib.request.Request(
            f"https://{HOST}:{self.port}{path}", headers={"Authorization": f"Bearer {self._token}"}
        )
        with urllib.request.urlopen(request, timeout=20, context=context) as response:
            answer: bytes = response.read()
        return answer


class ControllerManager(ServerProcess):
    """kube-controller-manager: what makes pods of a StatefulSet, and counts for a disruption budget."""

    title = "kube-controller-manager"

    def __init__(self, directory: Path, server: ApiServer) -> None:
        super().__init__(directory)
        self._server = server

    def ready(self) -> bool:
        """Tell whether it works: it gives each namespace an account, without which there is no pod."""
        try:
            self._server.ask("/api/v1/namespaces/default/serviceaccounts/default")
        except OSError:
            return False
        return True

    def command(self) -> Sequence[str]:
        """Return the command line."""
        return [
            program("kube-controller-manager"),
            f"--kubeconfig={self._server.kubeconfig}", f"--controllers={CONTROLLERS}", "--leader-elect=false",
            f"--bind-address={HOST}", f"--secure-port={self.port}",
            f"--service-account-private-key-file={self._server.key}",
            f"--root-ca-file={self._server.directory / 'certificates' / 'apiserver.crt'}",
        ]  # fmt: skip


# What tests leave that is in no namespace.
LEFT_OVER = "pv,storageclasses,validatingadmissionpolicybindings,validatingadmissionpolicies,crd"


class RefusedError(AssertionError):
    """kubectl ended with an error, which is the text."""


class Cluster:
    """The control plane; a context manager that starts and stops it."""

    def __init__(self, directory: Path) -> None:
        self._etcd = Etcd(directory / "etcd")
        self._server = ApiServer(directory / "server", self._etcd)
        self._manager = ControllerManager(directory / "manager", self._server)

    def __enter__(self) -> Self:
        try:
            for server in (self._etcd, self._server, self._manager):
                server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._manager, self._server, self._etcd):
            server.stop()

    def clean(self, namespace: str) -> None:
        """Remove a namespace with all that is in it, and what lies outside of namespaces."""
        self.kubectl("delete", "namespace", namespace, "--ignore-not-found", "--timeout=60s")
        self.kubectl("delete", LEFT_OVER, "--all", "--timeout=60s")
        self.kubectl("delete", "priorityclasses/connector", "--ignore-not-found")

    @property
    def environment(self) -> dict[str, str]:
        """What a shell needs so that `kubectl` is this cluster's."""
        return {**os.environ, "KUBECONFIG": str(self._server.kubeconfig), "PATH": f"{PROGRAMS}:{os.environ['PATH']}"}

    def kubectl(self, *arguments: object, text: str | None = None) -> str:
        """Run kubectl, and return what it wrote; of warnings too.

        Raises:
            RefusedError: It ended with an error.
        """
        done = subprocess.run(
            [program("kubectl"), *map(str, arguments)], env=self.environment, input=text, text=True, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120,
        )  # fmt: skip
        if done.returncode:
            raise RefusedError(done.stdout)
        return done.stdout

    def typed(self, command: str, folder: Path, *programs: Path) -> str:
        """Run a command as it is typed in a folder, with folders of further programs; return what it wrote.

        Raises:
            RefusedError: It ended with an error.
        """
        environment = self.environment
        path = ":".join([*map(str, programs), environment["PATH"]])
        done = subprocess.run(
            command, shell=True, cwd=folder, env={**environment, "PATH": path}, text=True, check=False, timeout=120,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if done.returncode:
            raise RefusedError(done.stdout)
        return done.stdout

    def apply(self, manifests: Sequence[dict[str, Any]]) -> str:
        """Apply manifests as `kubectl apply -k` does, from the server's view of them."""
        return self.kubectl("apply", "--filename", "-", text=yaml.safe_dump_all(manifests))

    def get(self, *what: object) -> Any:
        """Return what the server has: an object by kind and name, or the items of a kind."""
        found = json.loads(self.kubectl("get", *what, "--output", "json"))
        return found["items"] if found["kind"] == "List" else found

    def pods(self, namespace: str, selector: str = "") -> dict[str, Any]:
        """Return the pods of a namespace that are not being deleted, by name."""
        path = f"/api/v1/namespaces/{namespace}/pods?labelSelector={urllib.parse.quote(selector)}"
        found = json.loads(self._server.ask(path))["items"]
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def make_ready(self, namespace: str, name: str, *, ready: bool = True) -> None:
        """Say of a pod what its kubelet would: it runs, and its readiness probe answers well, or does not."""
        answer = "True" if ready else "False"
        status = {
            "phase": "Running",
            "conditions": [{"type": kind, "status": answer} for kind in ("Ready", "ContainersReady")],
            "podIP": f"10.1.0.{secrets.randbelow(250) + 1}",
        }
        status["podIPs"] = [{"ip": status["podIP"]}]
        self.kubectl("patch", "pod", name, "--namespace", namespace, "--subresource", "status", "--type", "merge",
                     "--patch", json.dumps({"status": status}))  # fmt: skip

    def become_ready(self, namespace: str, *names: str) -> None:
        """Wait for pods, and say that they are ready."""
        for name in names:
            wait_until(lambda name=name: name in self.pods(namespace), f"the pod {name}")
            self.make_ready(namespace, name)

    def evict(self, namespace: str, name: str) -> None:
        """Ask for a pod to go, as `kubectl drain` does for each pod of a node.

        Raises:
            RefusedError: The disruption budgets do not allow it.
        """
        eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": namespace}}
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/eviction"
        self.kubectl("create", "--raw", path, "--filename", "-", text=json.dumps(eviction))
