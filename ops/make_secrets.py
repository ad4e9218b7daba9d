"""Makes the stack's passwords at its first start, and gives every service the ones that it needs.

`make_secrets.py` keeps each secret in /secrets/all: what the environment gives, else what is there, else something random. From
these it writes each service's own files into that service's volume, /secrets/<service>. `make_secrets.py show [NAME]` prints.
"""

import hashlib
import json
import os
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

ROOT = Path("/secrets")
KEPT = ROOT / "all"
NAMES = (
    "POSTGRES_PASSWORD",
    "POSTGRES_MLFLOW_PASSWORD",
    "POSTGRES_FEAST_PASSWORD",
    "POSTGRES_CRM_PASSWORD",
    "POSTGRES_READER_PASSWORD",
    "VALKEY_PASSWORD",
    "S3_SEED_SECRET",
    "S3_MLFLOW_SECRET",
    "S3_TRAINER_SECRET",
    "S3_API_SECRET",
    "S3_WATCHER_SECRET",
    "GRAFANA_PASSWORD",
    "API_KEY",
    "OUTCOMES_KEY",
    "ADMIN_KEY",
    "RUNNER_TOKEN",
)
API_KEYS = {"API_KEY": "predict", "OUTCOMES_KEY": "outcomes", "ADMIN_KEY": "admin"}
"""Keys of the API, and the right of each: a client that scores customers must not write the labels of the next training set."""
GRANTS = {
    "seed": ["Admin"],
    "mlflow": ["Read:mlflow", "Write:mlflow", "List:mlflow", "Tagging:mlflow"],
    # Beside what it reads: how many rows it set aside, for the watcher.
    "trainer": ["Read:events", "List:events", "Write:events/set-aside/*", "Read:dvc", "Write:dvc", "List:dvc", "Tagging:dvc"],
    "api": ["Read:events", "Write:events", "List:events", "Tagging:events"],
    "watcher": ["Read:events", "Write:events", "List:events"],
}
"""What each may do in object storage, in SeaweedFS' words."""
OURS = 10001
"""The user of our own images. PostgreSQL's client takes a password file that only its owner may read."""


def main() -> None:
    """Make and hand out, or show."""
    match sys.argv[1:]:
        case []:
            hand_out(make())
        case ["show"]:
            print("\n".join(f"{name}={value}" for name, value in kept().items()))
        case ["show", name] if name in NAMES:
            print(kept()[name])
        case _:
            sys.exit(__doc__)


def make() -> dict[str, str]:
    """Every secret, kept from now on."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in NAMES:
        if given := os.environ.get(name):
            write(KEPT / name, given, mode=0o400)
        elif not (KEPT / name).exists():
            write(KEPT / name, secrets.token_urlsafe(24), mode=0o400)
    return kept()


def kept() -> dict[str, str]:
    """Name → secret."""
    return {name: (KEPT / name).read_text() for name in NAMES}


def hand_out(known: dict[str, str]) -> None:
    """Write every service's files. Only that service mounts their folder, so that all users may read them within it."""
    for service, name, text in files(known):
        if service in ("postgres", "valkey", "object-store", "grafana"):
            write(ROOT / service / name, text, mode=0o444)
        else:
            write(ROOT / service / name, text, mode=0o400, owner=OURS)


def files(known: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """(service, file, text)."""
    for name in NAMES:
        if name.startswith("POSTGRES_"):
            yield "postgres", name.lower(), known[name]
    password = known["VALKEY_PASSWORD"]
    yield "valkey", "password", password
    yield "valkey", "password.conf", f"requirepass {json.dumps(password)}\n"
    identities = [
        {"name": who, "credentials": [{"accessKey": who, "secretKey": known[secret_of(who)]}], "actions": actions}
        for who, actions in GRANTS.items()
    ]
    yield "object-store", "s3.json", json.dumps({"identities": identities}, indent=2)
    for who in GRANTS:
        yield who, "aws", f"[default]\naws_access_key_id = {who}\naws_secret_access_key = {known[secret_of(who)]}\n"
    yield "grafana", "password", known["GRAFANA_PASSWORD"]

    yield "seed", "pgpass", pgpass(crm=known["POSTGRES_CRM_PASSWORD"])
    yield "mlflow", "pgpass", pgpass(mlflow=known["POSTGRES_MLFLOW_PASSWORD"])
    yield "trainer", "pgpass", pgpass(feast=known["POSTGRES_FEAST_PASSWORD"], reader=known["POSTGRES_READER_PASSWORD"])
    for service in ("api", "trainer"):
        yield service, "online_store", f"redis://:{quote(password, safe='')}@valkey:6379/0"
    digests = {right: hashlib.sha256(known[name].encode()).hexdigest() for name, right in API_KEYS.items()}
    yield "api", "api_keys", ",".join(f"{digest}:{right}" for right, digest in digests.items())
    yield "demo", "api_key", known["API_KEY"]
    yield "demo", "outcomes_key", known["OUTCOMES_KEY"]
    yield "demo", "aws", f"[default]\naws_access_key_id = watcher\naws_secret_access_key = {known['S3_WATCHER_SECRET']}\n"
    for service in ("trainer", "watcher"):
        yield service, "runner_token", known["RUNNER_TOKEN"]


def secret_of(who: str) -> str:
    """The name of that identity's secret for object storage."""
    return f"S3_{who.upper()}_SECRET"


def pgpass(**passwords: str) -> str:
    """PostgreSQL's password file: user → password, for any host and database."""
    escaped = {user: password.replace("\\", "\\\\").replace(":", "\\:") for user, password in passwords.items()}
    return "".join(f"*:*:*:{user}:{password}\n" for user, password in escaped.items())


def write(path: Path, text: str, *, mode: int, owner: int | None = None) -> None:
    """Write a file that appears whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.unlink(missing_ok=True)
    temporary.write_text(text)
    temporary.chmod(mode)
    if owner is not None:
        os.chown(temporary, owner, owner)
    temporary.rename(path)


if __name__ == "__main__":
    main()
