"""The Job that makes the cluster's Secrets at the first apply, against the API that it asks."""

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
from http_server import Asked, HttpServer, Reply
from manifests import K8S, ROOT, find, named, pods, secrets_of, table
from monitoring import web

KEPT = "passwords"


class Api:
    """Secrets of one namespace, by the Job's role: create any, get the one."""

    def __init__(self) -> None:
        self.secrets: dict[str, dict[str, str]] = {}
        self.status = 201

    def answer(self, asked: Asked) -> Reply:
        assert asked.headers["authorization"] == "Bearer token"
        base = "/api/v1/namespaces/churn/secrets"
        if asked.method == "GET":
            assert asked.path == f"{base}/{KEPT}"
            data = {key: base64.b64encode(text.encode()).decode() for key, text in self.secrets[KEPT].items()}
            return Reply.json(200, {"data": data})
        assert (asked.method, asked.path) == ("POST", base)
        body: dict[str, Any] = asked.json()
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


def test_every_secret_that_the_local_overlay_mounts_is_made(hand_out: ModuleType, api: Api) -> None:
    hand_out.main()

    mounted = {secret for pod in pods("local") for secret in secrets_of(pod.spec).values()}
    assert set(api.secrets) == mounted | {KEPT}


def test_every_file_that_is_documented_is_made_and_no_other(hand_out: ModuleType, api: Api) -> None:
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


def test_one_that_was_deleted_is_made_of_the_same_passwords(hand_out: ModuleType, api: Api) -> None:
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


def test_passwords_of_an_older_version_are_refused_with_what_they_lack(hand_out: ModuleType, api: Api) -> None:
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


def test_a_refusal_is_told_without_what_was_sent(hand_out: ModuleType, api: Api) -> None:
    api.status = 403

    with pytest.raises(MonitorError, match=r"secret passwords: answered 403; check the role") as error:
        hand_out.main()

    assert "stringData" not in str(error.value)


def test_its_role_makes_secrets_and_reads_one_back() -> None:
    rules = find("local", "Role", "secrets")["rules"]

    assert [(rule["resources"], rule["verbs"], rule.get("resourceNames")) for rule in rules] == [
        (["secrets"], ["create"], None),
        (["secrets"], ["get"], [KEPT]),
    ]
