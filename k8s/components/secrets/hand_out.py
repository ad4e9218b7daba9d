"""Makes the cluster's Secrets, unless they are there: random passwords, and the files that services make of them.

What is made, and for whom, is ops/make_secrets.py's. Here the addresses of databases take the place of password files: a
Secret's files can be read by the pod's group, and PostgreSQL's client takes no password file that a group can read.
"""

import base64
import secrets
from collections import defaultdict
from pathlib import Path
from typing import Any
from urllib.parse import quote

from make_secrets import NAMES, files

from churn.errors import MonitorError
from monitoring.web import Answer, ask

SERVER = "https://kubernetes.default.svc"
ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
KEPT = "passwords"
"""The Secret that all others are made of."""
COMPOSE_ALONE = {"pgpass", "runner_token", "api_key"}
DATABASES = (
    ("mlflow", "backend_store_uri", "postgresql+psycopg", "mlflow", "mlflow"),
    ("trainer", "feature_registry", "postgresql+psycopg", "feast", "feast"),
    ("trainer", "source", "postgresql", "reader", "crm"),
    ("seed", "source", "postgresql", "crm", "crm"),
)
"""Secret, file, scheme, user, database."""


def main() -> None:
    """Make what is missing."""
    known = kept()
    for name, content in contents(known).items():
        create(name, content)


def contents(known: dict[str, str]) -> dict[str, dict[str, str]]:
    """Secret → file → text."""
    made: dict[str, dict[str, str]] = defaultdict(dict)
    for service, name, text in files(known):
        if name not in COMPOSE_ALONE and service != "demo":
            made[service][name] = text
    for secret, name, scheme, user, database in DATABASES:
        password = quote(known[f"POSTGRES_{user.upper()}_PASSWORD"], safe="")
        made[secret][name] = f"{scheme}://{user}:{password}@postgres/{database}"
    return dict(made)


def kept() -> dict[str, str]:
    """Name → password: those of the first start."""
    create(KEPT, {name: secrets.token_urlsafe(24) for name in NAMES})
    found = api("GET", f"secrets/{KEPT}")
    if found.status != 200:
        raise MonitorError(f"secret {KEPT}: answered {found.status}; check the role of the service account")
    known = {name: base64.b64decode(text).decode() for name, text in found.json()["data"].items()}
    if missing := [name for name in NAMES if name not in known]:
        raise MonitorError(
            f"secret {KEPT}: expected {', '.join(missing)} too; add each with a random value: "
            f'kubectl patch secret {KEPT} --patch \'{{"stringData": {{"{missing[0]}": "…"}}}}\''
        )
    return known


def create(name: str, content: dict[str, str]) -> None:
    """Create the Secret; one that is there stays as it is."""
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/component": "secrets"}
    labels |= {"app.kubernetes.io/part-of": "churn", "app.kubernetes.io/managed-by": "secrets"}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "labels": labels}, "stringData": content}
    made = api("POST", "secrets", body)
    # A quota's conflict is a 409 too.
    is_there = made.status == 409 and made.json().get("reason") == "AlreadyExists"
    if made.status != 201 and not is_there:
        # Not the whole answer: it may repeat what was sent.
        raise MonitorError(f"secret {name}: answered {made.status}; check the role of the service account")
    print(f"{name}: {'is there' if is_there else 'made'}", flush=True)


def api(method: str, path: str, body: dict[str, Any] | None = None) -> Answer:
    """Ask the API server that this pod belongs to."""
    namespace, token = ((ACCOUNT / name).read_text() for name in ("namespace", "token"))
    return ask(method, f"{SERVER}/api/v1/namespaces/{namespace}/{path}", body, token=token, authority=str(ACCOUNT / "ca.crt"))


if __name__ == "__main__":
    main()
