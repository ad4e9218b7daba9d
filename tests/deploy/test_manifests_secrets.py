"""The Job that makes the cluster's Secrets at the first apply, against a stand-in for the API server."""

import base64
import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from churn.errors import MonitorError
from http_server import HttpServer, ReceivedRequest, Reply
from manifests import K8S, ROOT, find, named, pods, secrets_of, table
from monitoring import web

KEPT = "passwords"


class Api:
    """Secrets of one namespace, by the Job's role: create any, get the one."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.status = 201

    def answer(self, request: ReceivedRequest) -> Reply:
        assert request.headers["authorization"] == "Bearer token"
        base = "/api/v1/namespaces/churn/secrets"
        if request.method == "GET":
            assert request.path == f"{base}/{KEPT}"
            data = {key: base64.b64encode(text.encode()).decode() for key, text in self.secrets[KEPT].items()}
            return Reply.json(200, {"data": data})
        assert (request.method, request.path) == ("POST", base)
        body: dict[str, Any] = request.json()
        name = body["metadata"]["name"]
        if self.status != 201:
            return Reply.json(self.status, {"reason": "Forbidden", "message": json.dumps(body)})
        if name in self.secrets:
            return Reply.json(409, {"reason": "AlreadyExists"})
        self.secrets[name] = body["stringData"]
        return Reply.json(201, {})


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def hand_out(api: Api, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The script, in a pod of that API; both scripts are in one folder there."""
    monkeypatch.syspath_prepend(str(ROOT / "ops"))
    monkeypatch.delitem(sys.modules, "make_secrets", raising=False)
    spec = importlib.util.spec_from_file_location("hand_out", K8S / "components/secrets/hand_out.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "namespace").write_text("churn")
    (tmp_path / "token").write_text("token")
    monkeypatch.setattr(module, "ACCOUNT", tmp_path)
    with HttpServer(api.answer) as server:
        # TLS to the API server is monitoring.web's, and tested there.
        def plain(method: str, url: str, body: dict[str, Any] | None, *, token: str, authority: str) -> web.Answer:
            assert authority == str(tmp_path / "ca.crt")
            return web.ask(method, url.replace("https://kubernetes.default.svc", server.url), body, token=token)

        monkeypatch.setattr(module, "ask", plain)
        yield module


def test_every_secret_mounted_in_local_is_created(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()

    mounted = {secret for pod in pods("local") for secret in secrets_of(pod.spec).values()}
    assert set(api.secrets) == mounted | {KEPT}


def test_exactly_the_documented_secret_files_are_created(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()

    documented: dict[str, set[str]] = {}
    for secret, file, _, _, where in table("| Secret | file | what | needed by | overlay |"):
        if where != "prod":
            documented.setdefault(named(secret)[0], set()).update(named(file))
    assert {name: set(files) for name, files in api.secrets.items() if name != KEPT} == documented


def test_a_second_run_changes_nothing(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()
    first = {name: dict(files) for name, files in api.secrets.items()}

    hand_out.main()

    assert api.secrets == first


def test_a_deleted_secret_is_recreated_with_the_same_passwords(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()
    first = api.secrets.pop("trainer")

    hand_out.main()

    assert api.secrets["trainer"] == first


def test_both_ends_of_a_connection_get_the_same_password(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()
    made = api.secrets

    assert made["postgres"]["postgres_mlflow_password"] in made["mlflow"]["backend_store_uri"]
    assert made["postgres"]["postgres_feast_password"] in made["trainer"]["feature_registry"]
    assert made["postgres"]["postgres_reader_password"] in made["trainer"]["source"]
    assert made["postgres"]["postgres_crm_password"] in made["seed"]["source"]
    assert made["valkey"]["password"] in made["api"]["online_store"]
    assert made[KEPT]["S3_API_SECRET"] in made["api"]["aws"]
    assert made[KEPT]["S3_API_SECRET"] in made["object-store"]["s3.json"]


def test_an_older_secret_with_missing_passwords_is_refused_with_their_names(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()
    del api.secrets[KEPT]["OUTCOMES_KEY"]

    with pytest.raises(MonitorError, match=r"secret passwords: expected OUTCOMES_KEY too; add each"):
        hand_out.main()


def test_two_clusters_share_no_password(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()
    first = set(api.secrets.pop(KEPT).values())
    api.secrets.clear()

    hand_out.main()

    assert not first & set(api.secrets[KEPT].values())


def test_an_error_response_is_reported_without_the_request_body(hand_out: ModuleType, api: Api) -> None:
    api.status = 403

    with pytest.raises(MonitorError, match=r"secret passwords: answered 403; check the role") as error:
        hand_out.main()

    assert "stringData" not in str(error.value)


def test_the_role_can_create_secrets_and_read_one() -> None:
    rules = find("local", "Role", "secrets")["rules"]

    assert [(rule["resources"], rule["verbs"], rule.get("resourceNames")) for rule in rules] == [
        (["secrets"], ["create"], None),
        (["secrets"], ["get"], [KEPT]),
    ]
