"""Moving the alias `production` by compare-and-set: only from the version that the caller saw there.

MLflow's API has no conditional write. Where the registry is a database, one SQL statement compares and writes: it holds against
every writer, MLflow's own clients included. Through an MLflow server, promotions exclude one another by a lock: a registered
model, which only one client can create. A client that sets the alias without this module does not wait for the lock.
"""

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from churn.errors import RegistryError
from churn.paths import MODEL, PRODUCTION

LOCK = f"{MODEL}.promotion-lock"
"""The registered model that is the lock."""
LOCK_WAIT_S = 30.0
"""How long to wait for another promotion, which takes three requests."""
LOCK_POLL_S = 0.1

_MOVE = "UPDATE registered_model_aliases SET version = :to WHERE name = :model AND alias = :alias AND version = :expected"
_SET = "INSERT INTO registered_model_aliases (name, alias, version) VALUES (:model, :alias, :to)"


def move(client: Any, uri: str, *, to: str, expected: str | None) -> bool:
    """Point `production` at version `to` if it points at `expected` (None: at nothing); returns False if it does not.

    `client` is MLflow's, `uri` that of the registry.

    Raises:
        RegistryError: another promotion through the same server does not end.
    """
    if not uri.startswith(("http://", "https://")):
        return _move_in_database(uri, to, expected)
    with _locked(client):
        aliases = client.get_registered_model(MODEL).aliases
        if str(aliases.get(PRODUCTION, "")) != (expected or ""):
            return False
        client.set_registered_model_alias(MODEL, PRODUCTION, to)
        return True


def _move_in_database(uri: str, to: str, expected: str | None) -> bool:
    import sqlalchemy as sa

    values = {"model": MODEL, "alias": PRODUCTION, "to": int(to)}
    engine = sa.create_engine(uri)
    try:
        with engine.begin() as connection:
            if expected is not None:
                return connection.execute(sa.text(_MOVE), values | {"expected": int(expected)}).rowcount == 1
            connection.execute(sa.text(_SET), values)
            return True
    except sa.exc.IntegrityError:  # the alias exists: somebody else promoted the first version
        return False
    finally:
        engine.dispose()


@contextmanager
def _locked(client: Any) -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    holder = f"{socket.gethostname()}, process {os.getpid()}"
    end = time.monotonic() + LOCK_WAIT_S
    while True:
        try:
            client.create_registered_model(LOCK, description=f"A promotion by {holder}; it is deleted when that ends.")
            break
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        if time.monotonic() > end:
            raise RegistryError(
                f"{PRODUCTION}: another promotion has held the registered model {LOCK!r} for {LOCK_WAIT_S:.0f} s; "
                "if its process was killed (MLflow shows which), delete that model and run again"
            )
        time.sleep(LOCK_POLL_S)
    try:
        yield
    finally:
        client.delete_registered_model(LOCK)
