"""Two concurrent promotions: one moves the alias, the other fails because the champion changed."""

import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from churn.adapters.mlflow import promotion
from churn.adapters.mlflow.registry import Registry
from churn.domain.version import Version
from churn.errors import RegistryError
from churn.paths import MODEL, PRODUCTION
from churn.settings import Settings
from mlflow_server import mlflow_server

TRIALS = 14

pytestmark = [pytest.mark.reported, pytest.mark.slow]


@pytest.fixture(scope="module", params=["sqlite", "postgres", "server"])
def uri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry with enough versions for every trial, none of them in production."""
    folder = tmp_path_factory.mktemp("registry")
    if request.param == "postgres":
        postgres = str(request.getfixturevalue("postgres_url"))
        yield filled(postgres.replace("postgresql://", "postgresql+psycopg://"))
    elif request.param == "sqlite":
        yield filled(f"sqlite:///{folder}/mlflow.db")
    else:
        with mlflow_server(f"sqlite:///{folder}/mlflow.db", folder, workers=2) as address:
            yield filled(address)
    shutil.rmtree(folder, ignore_errors=True)


def filled(uri: str) -> str:
    client = client_of(uri)
    client.create_registered_model(MODEL)
    run = client.create_run("0").info.run_id
    for _ in range(2 * TRIALS):
        client.create_model_version(MODEL, source=f"runs:/{run}/model", run_id=run)
    return uri


def client_of(uri: str) -> Any:
    import mlflow

    return mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)


def promote_all(uri: str, numbers: list[str], barrier: Any, results: Any) -> None:
    """In a process of its own: promote the versions one by one, each over the champion that both processes saw."""
    registry = Registry(Settings(MLFLOW_TRACKING_URI=uri))
    for number in numbers:
        version, seen = registry.version(number), registry.of_alias(PRODUCTION)
        barrier.wait()
        try:
            registry.promote(version, over=seen, reason="trial")
        except RegistryError as error:
            results.put((number, str(error)))
        else:
            results.put((number, "moved"))
        barrier.wait()


def test_exactly_one_of_two_concurrent_promotions_moves_the_alias(uri: str) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2, timeout=120), context.Queue()
    numbers = [str(number) for number in range(1, 2 * TRIALS + 1)]
    processes = [
        context.Process(target=promote_all, args=(uri, numbers[start::2], barrier, results), daemon=True) for start in (0, 1)
    ]
    for process in processes:
        process.start()
    replies = dict(results.get(timeout=120) for _ in numbers)
    for process in processes:
        process.join()

    for pair in zip(numbers[::2], numbers[1::2], strict=True):
        moved, refused = sorted((replies[number] for number in pair), key=lambda text: text != "moved")
        assert moved == "moved"
        assert "nothing was moved: evaluate again" in refused
    champion = client_of(uri).get_model_version_by_alias(MODEL, PRODUCTION)
    assert replies[str(champion.version)] == "moved"
    assert not client_of(uri).search_registered_models(f"name = '{promotion.LOCK}'")


class Overtaken(Registry):
    """A registry in which version 3 is promoted while `rollback` looks up the version to restore."""

    def version(self, number: str) -> Version:
        self._client.set_registered_model_alias(MODEL, PRODUCTION, "3")
        return super().version(number)


def test_a_rollback_does_not_undo_a_concurrent_promotion(tmp_path: Path) -> None:
    uri = filled(f"sqlite:///{tmp_path}/mlflow.db")
    registry = Registry(Settings(MLFLOW_TRACKING_URI=uri))
    first, second = registry.version("1"), registry.version("2")
    registry.promote(first, over=None, reason="first")
    registry.promote(second, over=registry.of_alias(PRODUCTION), reason="second")

    with pytest.raises(RegistryError, match="version 2 was champion when this began, now it is 3; nothing was moved"):
        Overtaken(Settings(MLFLOW_TRACKING_URI=uri)).rollback()

    champion = registry.of_alias(PRODUCTION)
    assert champion
    assert champion.number == "3"


@pytest.mark.parametrize("uri", ["server"], indirect=True)
def test_a_stale_promotion_lock_is_an_error_with_its_name(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "LOCK_WAIT_S", 0.5)
    client, registry = client_of(uri), Registry(Settings(MLFLOW_TRACKING_URI=uri))
    client.create_registered_model(promotion.LOCK)
    version, champion = registry.version("1"), registry.of_alias(PRODUCTION)

    with pytest.raises(RegistryError, match=f"another promotion has held the registered model '{promotion.LOCK}'"):
        registry.promote(version, over=champion, reason="late")

    client.delete_registered_model(promotion.LOCK)
    registry.promote(version, over=champion, reason="late")
