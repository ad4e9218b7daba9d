"""A retraining as a Job of Kubernetes: against a stand-in for the API server, and a real one if KUBECONFIG is set."""

import base64
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from churn.errors import MonitorError
from churn.settings import Monitoring
from http_server import HttpServer, ReceivedRequest, Reply
from monitoring import web
from monitoring.triggers import kubernetes
from monitoring.triggers.command import Status
from monitoring.triggers.kubernetes import EVIDENCE_BYTES, Kubernetes, in_pod
from monitoring.triggers.trigger import open_trigger

NAME = "retrain-v3-20261123t030000z"
TOKEN = "eyJhbGciOi.watcher"
SPEC = {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "retrain", "image": "churn-train:1"}]}}}
CRONJOB: dict[str, Any] = {
    "apiVersion": "batch/v1",
    "kind": "CronJob",
    "metadata": {"name": "churn-retrain", "namespace": "churn", "uid": "8f1d"},
    "spec": {
        "schedule": "0 3 1 * *",
        "suspend": True,
        "jobTemplate": {
            "metadata": {"labels": {"app.kubernetes.io/component": "retrain"}, "annotations": {"example.org/team": "growth"}},
            "spec": SPEC,
        },
    },
}
ROLE = {("get", "cronjobs"), ("create", "jobs"), ("get", "jobs"), ("list", "jobs")}


@pytest.fixture(autouse=True)
def no_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web, "WAIT_S", 0)


def problem(code: int, reason: str, message: str) -> Reply:
    return Reply.json(code, {"kind": "Status", "status": "Failure", "message": message, "reason": reason, "code": code})


@dataclass
class Api:
    """What of the API server the watcher needs: authentication, roles, CronJobs and Jobs of one namespace."""

    tokens: set[str] = field(default_factory=lambda: {TOKEN})
    role: set[tuple[str, str]] = field(default_factory=lambda: set(ROLE))
    cronjobs: dict[str, Any] = field(default_factory=lambda: {"churn-retrain": CRONJOB})
    jobs: dict[str, Any] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def answer(self, request: ReceivedRequest) -> Reply:
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return problem(401, "Unauthorized", "Unauthorized")
        path = re.fullmatch(r"/apis/batch/v1/namespaces/churn/(cronjobs|jobs)(?:/([^/]+))?", request.path)
        if not path:
            return problem(404, "NotFound", "the server could not find the requested resource")
        kind, name = path.groups()
        verb = "create" if request.method == "POST" else "get" if name else "list"
        if (verb, kind) not in self.role:
            user = "system:serviceaccount:churn:watcher"
            return problem(403, "Forbidden", f'{kind}.batch is forbidden: User "{user}" cannot {verb} resource "{kind}"')
        if verb == "create":
            return self.create(request.json())
        if verb == "list":
            return Reply.json(200, {"kind": "JobList", "items": [*self.jobs.values()]})
        found = (self.cronjobs if kind == "cronjobs" else self.jobs).get(name)
        return Reply.json(200, found) if found else problem(404, "NotFound", f'{kind}.batch "{name}" not found')

    def create(self, body: dict[str, Any]) -> Reply:
        name = body["metadata"]["name"]
        strings = {**body["metadata"]["labels"], **body["metadata"]["annotations"]}
        if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) or not all(
            isinstance(each, str) for each in strings.values()
        ):
            return problem(422, "Invalid", f'Job.batch "{name}" is invalid')
        with self.lock:
            if name in self.jobs:
                return problem(409, "AlreadyExists", f'jobs.batch "{name}" already exists')
            self.jobs[name] = {**body, "status": {}}
        return Reply.json(201, self.jobs[name])


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1, signed by itself, with its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kube-apiserver")])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return file


@pytest.fixture
def account(certificate: Path, tmp_path: Path) -> Path:
    """What is mounted into a pod."""
    folder = tmp_path / "serviceaccount"
    folder.mkdir()
    (folder / "token").write_text(TOKEN)
    (folder / "namespace").write_text("churn")
    (folder / "ca.crt").write_text(certificate.read_text().partition("-----BEGIN PRIVATE KEY")[0])
    return folder


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def server(api: Api, certificate: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpServer]:
    with HttpServer(api.answer, certificate) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        yield server


@pytest.fixture
def trigger(server: HttpServer, account: Path) -> Kubernetes:
    return in_pod("churn-retrain", "", account=account)


def test_a_job_is_created_from_the_cronjob_like_kubectl_does(trigger: Kubernetes, api: Api) -> None:
    trigger.start(NAME, {"psi": 0.31})

    assert api.jobs[NAME] == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": NAME,
            "labels": {"app.kubernetes.io/component": "retrain"},
            "annotations": {
                "example.org/team": "growth",
                "cronjob.kubernetes.io/instantiate": "manual",
                "churn/evidence": '{"psi": 0.31}',
            },
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "CronJob", "controller": True, "name": "churn-retrain", "uid": "8f1d"}
            ],
        },
        "spec": SPEC,
        "status": {},
    }


def test_a_template_without_labels_is_accepted(trigger: Kubernetes, api: Api) -> None:
    api.cronjobs["churn-retrain"] = {**CRONJOB, "spec": {"jobTemplate": {"spec": SPEC}}}

    trigger.start(NAME, {})

    assert api.jobs[NAME]["metadata"]["labels"] == {}


def test_concurrent_starts_create_one_job(trigger: Kubernetes, api: Api, server: HttpServer) -> None:
    with ThreadPoolExecutor(50) as pool:
        for each in [pool.submit(trigger.start, NAME, {"psi": 0.31}) for _ in range(50)]:
            each.result()

    assert [*api.jobs] == [NAME]
    assert sum(each.method == "POST" for each in server.received) == 50


def test_a_lost_response_creates_no_second_job(api: Api, certificate: Path, account: Path) -> None:
    lost: list[ReceivedRequest] = []

    def forgetful(request: ReceivedRequest) -> Reply:
        reply = api.answer(request)
        if request.method == "POST" and not lost:
            lost.append(request)
            return Reply(0)
        return reply

    with HttpServer(forgetful, certificate) as server:
        Kubernetes(server.url, "churn-retrain", "churn", account).start(NAME, {})

    assert lost
    assert [*api.jobs] == [NAME]


def test_a_running_job_of_the_cronjob_blocks_another(trigger: Kubernetes, api: Api) -> None:
    trigger.start("retrain-v3-20261122t030000z", {})

    with pytest.raises(MonitorError, match=r"^the Job retrain-v3-20261122t030000z of the CronJob churn-retrain is at work; "):
        trigger.start(NAME, {})
    api.jobs["retrain-v3-20261122t030000z"]["status"] = {"conditions": [{"type": "Complete", "status": "True"}]}
    trigger.start(NAME, {})

    assert [*api.jobs] == ["retrain-v3-20261122t030000z", NAME]


def test_a_running_job_of_another_owner_does_not_block(trigger: Kubernetes, api: Api) -> None:
    stranger = {"name": "materialise", "uid": "11aa"}
    api.jobs = {
        "materialise-1": {"metadata": {"name": "materialise-1", "ownerReferences": [stranger]}, "status": {}},
        "by-hand": {"metadata": {"name": "by-hand"}},
    }

    trigger.start(NAME, {})

    assert NAME in api.jobs


def test_a_conflict_other_than_the_name_is_an_error(api: Api, certificate: Path, account: Path) -> None:
    def full(request: ReceivedRequest) -> Reply:
        conflict = problem(409, "Conflict", "Operation cannot be fulfilled on resourcequotas; please apply your changes again")
        return conflict if request.method == "POST" else api.answer(request)

    with HttpServer(full, certificate) as server, pytest.raises(MonitorError, match=r"answered 409.*resourcequotas"):
        Kubernetes(server.url, "churn-retrain", "churn", account).start(NAME, {})


@pytest.mark.parametrize(
    ("job_status", "status"),
    [
        ({}, "running"),
        ({"active": 1, "startTime": "2026-11-23T03:00:00Z"}, "running"),
        ({"active": 1, "failed": 1}, "running"),
        ({"conditions": [{"type": "Suspended", "status": "False"}]}, "running"),
        ({"conditions": [{"type": "FailureTarget", "status": "True"}], "active": 1}, "running"),
        ({"conditions": [{"type": "SuccessCriteriaMet", "status": "True"}, {"type": "Complete", "status": "True"}]}, "succeeded"),
        ({"conditions": [{"type": "FailureTarget", "status": "True"}, {"type": "Failed", "status": "True"}]}, "failed"),
        ({"conditions": [{"type": "Complete", "status": "False"}, {"type": "Failed", "status": "True"}]}, "failed"),
    ],
)
def test_the_status_follows_the_job_conditions(trigger: Kubernetes, api: Api, job_status: dict[str, Any], status: Status) -> None:
    trigger.start(NAME, {})
    api.jobs[NAME]["status"] = job_status

    assert trigger.status(NAME) == status


def test_a_missing_job_is_unknown(trigger: Kubernetes) -> None:
    assert trigger.status(NAME) == "unknown"


def test_the_trigger_sends_only_requests_that_the_role_allows(trigger: Kubernetes, server: HttpServer) -> None:
    trigger.start(NAME, {})
    trigger.status(NAME)

    root = "/apis/batch/v1/namespaces/churn"
    assert [(each.method, each.path) for each in server.received] == [
        ("GET", f"{root}/cronjobs/churn-retrain"),
        ("GET", f"{root}/jobs"),
        ("POST", f"{root}/jobs"),
        ("GET", f"{root}/jobs/{NAME}"),
    ]


@pytest.mark.parametrize("missing", sorted(ROLE))
def test_a_missing_permission_is_named(trigger: Kubernetes, api: Api, missing: tuple[str, str]) -> None:
    api.role.remove(missing)
    call = (lambda: trigger.status(NAME)) if missing == ("get", "jobs") else (lambda: trigger.start(NAME, {}))

    with pytest.raises(MonitorError, match=r"answered 403: .*cannot {} resource .*{}.*; check .*the role of".format(*missing)):
        call()


def test_a_wrong_token_is_refused_and_never_shown(trigger: Kubernetes, account: Path) -> None:
    (account / "token").write_text("eyJhbGciOi.expired\n")

    with pytest.raises(MonitorError, match=r"answered 401: .*Unauthorized") as caught:
        trigger.start(NAME, {})

    assert "expired" not in str(caught.value)


def test_a_renewed_token_is_used(trigger: Kubernetes, api: Api, account: Path) -> None:
    trigger.start(NAME, {})
    api.tokens = {"eyJhbGciOi.renewed"}
    (account / "token").write_text("eyJhbGciOi.renewed")

    assert trigger.status(NAME) == "running"


def test_a_missing_cronjob_is_an_error(server: HttpServer, account: Path) -> None:
    with pytest.raises(
        MonitorError, match=r"answered 404: .*cronjobs\.batch .*no-such.* not found.*; check CHURN_TRIGGER_CRONJOB"
    ):
        in_pod("no-such", "churn", account=account).start(NAME, {})


def test_the_namespace_can_differ_from_the_pods(server: HttpServer, account: Path) -> None:
    with pytest.raises(MonitorError, match="/namespaces/elsewhere/"):
        in_pod("churn-retrain", "elsewhere", account=account).start(NAME, {})


def test_the_token_is_not_sent_to_a_server_with_another_ca(trigger: Kubernetes, account: Path, server: HttpServer) -> None:
    import certifi

    (account / "ca.crt").write_text(Path(certifi.where()).read_text())

    with pytest.raises(MonitorError, match=r"out of reach: .*CERTIFICATE_VERIFY_FAILED"):
        trigger.start(NAME, {})

    assert not server.received


def test_a_response_that_is_not_json_is_an_error(certificate: Path, account: Path) -> None:
    message = r"answered 200: <html>proxy</html>; that is not a JSON object"
    with (
        HttpServer(lambda request: Reply(200, b"<html>proxy</html>"), certificate) as server,
        pytest.raises(MonitorError, match=message),
    ):
        Kubernetes(server.url, "churn-retrain", "churn", account).start(NAME, {})


def test_evidence_above_the_size_limit_is_truncated(trigger: Kubernetes, api: Api) -> None:
    trigger.start(NAME, {"reason": "drift", "all": ["é" * 100] * 100, "rows": 812})

    kept = api.jobs[NAME]["metadata"]["annotations"]["churn/evidence"]
    assert json.loads(kept) == {"reason": "drift", "rows": 812}
    assert len(kept.encode()) <= EVIDENCE_BYTES


def test_the_kubernetes_trigger_outside_a_pod_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(MonitorError, match="KUBERNETES_SERVICE_HOST is not set; run the watcher in a pod"):
        open_trigger(Monitoring(trigger="kubernetes"))


def test_a_pod_without_a_service_account_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")

    with pytest.raises(MonitorError, match=r"namespace: No such file or directory; give the pod a service account"):
        in_pod("churn-retrain", "", account=tmp_path)


def test_an_ipv6_address_gets_brackets(monkeypatch: pytest.MonkeyPatch, account: Path) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")

    assert in_pod("churn-retrain", "", account=account).url == "https://[fd00::1]:6443"


def test_the_settings_select_the_kubernetes_trigger(
    server: HttpServer, account: Path, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kubernetes, "in_pod", lambda cronjob, namespace: in_pod(cronjob, namespace, account=account))

    open_trigger(Monitoring(trigger="kubernetes")).start(NAME, {})

    assert [*api.jobs] == [NAME]


def kubectl(*arguments: str, given: Any = None) -> str:
    text = json.dumps(given) if given else None
    done = subprocess.run(["kubectl", *arguments], input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return str(done.stdout)


@pytest.mark.skipif(not os.environ.get("KUBECONFIG"), reason="there is no Kubernetes: KUBECONFIG is not set")
def test_a_real_cluster_accepts_the_trigger_with_four_verbs(tmp_path: Path) -> None:
    namespace = f"churn-{os.urandom(4).hex()}"
    cluster = json.loads(kubectl("config", "view", "--minify", "--raw", "-o", "json"))["clusters"][0]["cluster"]
    authority = cluster.get("certificate-authority-data")
    (tmp_path / "ca.crt").write_bytes(
        base64.b64decode(authority) if authority else Path(cluster["certificate-authority"]).read_bytes()
    )
    kubectl("create", "namespace", namespace)
    try:
        kubectl("-n", namespace, "create", "serviceaccount", "watcher")
        rules = [{"apiGroups": ["batch"], "resources": [kind], "verbs": [verb]} for verb, kind in sorted(ROLE)]
        about = {"name": "watcher", "namespace": namespace}
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": about, "rules": rules}
        kubectl("create", "-f", "-", given=role)
        kubectl("-n", namespace, "create", "rolebinding", "watcher", "--role=watcher", f"--serviceaccount={namespace}:watcher")
        kubectl("create", "-f", "-", given={**CRONJOB, "metadata": {"name": "churn-retrain", "namespace": namespace}})
        (tmp_path / "token").write_text(kubectl("-n", namespace, "create", "token", "watcher"))
        trigger = Kubernetes(cluster["server"], "churn-retrain", namespace, tmp_path)
        assert trigger.status(NAME) == "unknown"

        with ThreadPoolExecutor(10) as pool:
            for each in [pool.submit(trigger.start, NAME, {"psi": 0.31}) for _ in range(50)]:
                each.result()

        assert trigger.status(NAME) == "running"
        made = json.loads(kubectl("-n", namespace, "get", "jobs", "-o", "json"))["items"]
        assert [each["metadata"]["name"] for each in made] == [NAME]
        assert made[0]["metadata"]["ownerReferences"][0]["name"] == "churn-retrain"
        with pytest.raises(MonitorError, match=f"the Job {NAME} of the CronJob churn-retrain is at work"):
            trigger.start("retrain-v3-20261124t030000z", {})
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
