"""MLflow: versions, aliases and their history."""

import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from churn.adapters import bundle
from churn.adapters.mlflow import promotion, tracking
from churn.adapters.mlflow.tracking import Training
from churn.domain.reasons import reason
from churn.domain.version import Version
from churn.errors import BundleError, RegistryError
from churn.paths import BUNDLE, CANDIDATE_ALIAS, MODEL, PRODUCTION
from churn.settings import Settings, without_password

EXPERIMENT = "churn"
CONNECT_TIMEOUT_S = 5

_ENVIRONMENT = {
    # A server that is down is retried for four minutes by default.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    # The version names its lock file by digest; MLflow would copy the whole project's requirements beside the model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_LOG_UV_FILES": "false",
}


class Registry:
    """The tracking server and registry that the settings name.

    Raises:
        RegistryError: MLflow cannot be reached, from any method.
    """

    def __init__(self, settings: Settings) -> None:
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", str(settings.tracking_timeout_s))
        import mlflow

        self._uri = settings.tracking_uri
        self._shown = without_password(self._uri)
        with self._refusals():
            _require_database(self._uri)
            mlflow.set_tracking_uri(self._uri)
            self._client = mlflow.MlflowClient()
            self._registry_uri = mlflow.get_registry_uri()

    def register(self, training: Training) -> Version:
        """Log a run with all of the training, register its model as a new version and call it `candidate`."""
        import mlflow

        with self._refusals():
            mlflow.set_experiment(EXPERIMENT)
            with mlflow.start_run(tags=training.tags) as run:
                tracking.log_training(training, run.info.run_id)
                logged = tracking.log_model(training.bundle, training.rows)
            with redirect_stderr(io.StringIO()):
                made = mlflow.register_model(logged.model_uri, MODEL, tags=training.tags)
            self._client.set_registered_model_alias(MODEL, CANDIDATE_ALIAS, str(made.version))
        return self.version(str(made.version))

    @contextmanager
    def search(self, name: str) -> Iterator[Callable[[str, dict[str, Any], dict[str, float], bool], None]]:
        """A run for a search. What this yields logs a trial as a run nested in it: name, parameters, metrics, is pruned."""
        import mlflow

        def log(trial: str, params: dict[str, Any], metrics: dict[str, float], pruned: bool) -> None:
            with self._refusals(), mlflow.start_run(run_name=trial, nested=True, tags={"pruned": str(pruned).lower()}):
                mlflow.log_params(params)
                mlflow.log_metrics(metrics)

        with self._refusals():
            mlflow.set_experiment(EXPERIMENT)
        with mlflow.start_run(run_name=name):
            yield log

    def record(self, version: Version, *, metrics: dict[str, float], tags: dict[str, str], artifacts: Path) -> None:
        """Add an evaluation's metrics and files to a version's run, and its tags to the version."""
        import mlflow

        with self._refusals():
            with mlflow.start_run(run_id=version.run_id):
                mlflow.log_metrics(metrics)
                mlflow.log_artifacts(str(artifacts), "evaluation")
            self._tag(version.number, tags)

    def _tag(self, number: str, tags: dict[str, str]) -> None:
        for key, value in tags.items():
            self._client.set_model_version_tag(MODEL, number, key, value)

    def versions(self) -> list[Version]:
        """Every version, newest first; empty where none was ever registered."""
        with self._refusals():
            found = self._client.search_model_versions(f"name = '{MODEL}'")
            aliases = self._aliases()
            return sorted((self._version(each, aliases) for each in found), key=lambda each: -int(each.number))

    def version(self, number: str) -> Version:
        """The version of that number.

        Raises:
            RegistryError: there is none.
        """
        found = {each.number: each for each in self.versions()}
        if number not in found:
            known = ", ".join(sorted(found, key=int)) or "none yet: run `make repro`"
            raise RegistryError(f"model {MODEL}: no version {number!r} in {self._shown}; the versions are {known}")
        return found[number]

    def of_alias(self, alias: str) -> Version | None:
        """The version that the alias points at, if any."""
        return next((each for each in self.versions() if alias in each.aliases), None)

    def of_digest(self, digest: str) -> Version:
        """The newest version whose bundle has that digest.

        Raises:
            RegistryError: there is none, as when the registry is not the one that `train` wrote to.
        """
        for version in self.versions():
            if version.digest == digest:
                return version
        raise RegistryError(
            f"model {MODEL}: no version with the bundle {digest[:12]}… in {self._shown}; "
            "the model in models/ was trained against another registry: run `dvc repro --force`"
        )

    def read_bundle(self, version: Version) -> dict[str, bytes]:
        """The files of the version's bundle that score and explain, by name, compared with its registered digest.

        Raises:
            RegistryError: they are not those that were registered, or the version was registered before bundles had a digest.
        """
        import mlflow

        with TemporaryDirectory() as folder:
            with self._refusals():
                uri = f"models:/{MODEL}/{version.number}"
                root = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=folder))
            try:
                return bundle.read(root / BUNDLE, expected=version.digest)
            except BundleError as error:
                raise RegistryError(
                    f"model {MODEL} version {version.number}: {error}; train again, or promote another version: churn promote V"
                ) from error

    def read_artifact(self, version: Version, path: str) -> str:
        """A text file of the version's run.

        Raises:
            RegistryError: the run has no such file.
        """
        import mlflow

        with self._refusals():
            return str(mlflow.artifacts.load_text(f"runs:/{version.run_id}/{path}"))

    def promote(self, version: Version, *, over: Version | None, reason: str) -> None:
        """Point `production` at the version, if it still points at `over`, and note it in the version's tags.

        Raises:
            RegistryError: the champion changed meanwhile, or is the version itself; nothing is moved.
        """
        if over and over.number == version.number:
            raise RegistryError(f"{PRODUCTION}: is version {version.number} already; nothing was moved")
        self._move(version, over)
        tags = {"promoted_at": _now(), "promoted_over": over.number if over else "", "promoted_because": reason}
        with self._refusals():
            self._tag(version.number, tags)

    def rollback(self) -> tuple[Version, Version]:
        """Point `production` back at the version that the champion replaced; returns (left, restored).

        Raises:
            RegistryError: there is no champion, it replaced none, or it changed meanwhile; nothing is moved.
        """
        champion = self.of_alias(PRODUCTION)
        if not champion or not champion.tags.get("promoted_over"):
            what = f"version {champion.number} replaced none" if champion else "there is no production version"
            raise RegistryError(f"rollback: {what}; promote a version by its number: churn promote V")
        restored = self.version(champion.tags["promoted_over"])
        self._move(restored, champion)
        with self._refusals():
            self._tag(champion.number, {"rolled_back_at": _now()})
        return champion, restored

    def _move(self, version: Version, over: Version | None) -> None:
        with self._refusals():
            expected = over.number if over else None
            if promotion.move(self._client, self._registry_uri, to=version.number, expected=expected):
                return
        current = self.of_alias(PRODUCTION)
        raise RegistryError(
            f"{PRODUCTION}: version {expected or 'none'} was champion when this began, "
            f"now it is {current.number if current else 'none'}; nothing was moved: evaluate again"
        )

    def _aliases(self) -> dict[str, str]:
        """Alias → version number; a search returns versions without theirs."""
        found = self._client.search_registered_models(f"name = '{MODEL}'")
        return {alias: str(number) for model in found for alias, number in model.aliases.items()}

    def _version(self, found: Any, aliases: dict[str, str]) -> Version:
        number = str(found.version)
        return Version(
            number=number,
            created_at=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
            aliases=tuple(sorted(alias for alias, target in aliases.items() if target == number)),
            tags=dict(found.tags),
            metrics=dict(self._client.get_run(found.run_id).data.metrics) if found.run_id else {},
            run_id=found.run_id or "",
        )

    @contextmanager
    def _refusals(self) -> Iterator[None]:
        import requests
        import sqlalchemy.exc
        from mlflow.exceptions import MlflowException

        try:
            with warnings.catch_warnings():
                # Hints on schemas and data sources that the contract has answered.
                warnings.simplefilter("ignore", UserWarning)
                yield
        except (MlflowException, requests.RequestException, sqlalchemy.exc.SQLAlchemyError, OSError) as error:
            raise RegistryError(
                f"model registry {self._shown}: {reason(error)[:300]}; check that it runs and MLFLOW_TRACKING_URI"
            ) from error


def _require_database(uri: str) -> None:
    """Connect once to a registry that is a database: where none answers, MLflow tries for 100 s without a word."""
    import sqlalchemy as sa

    if "://" not in uri or uri.startswith(("http://", "https://")):
        return
    try:
        url = sa.make_url(uri)
        if url.get_backend_name() == "sqlite" and not Path(url.database or "").parent.exists():
            return  # MLflow makes the folder
        patience = {"connect_timeout": CONNECT_TIMEOUT_S} if url.get_backend_name() == "postgresql" else {}
        sa.create_engine(url, poolclass=sa.NullPool, connect_args=patience).connect().close()
    except (sa.exc.NoSuchModuleError, sa.exc.ArgumentError):
        return  # no database: MLflow says which schemes it knows
    except ImportError as error:
        raise RegistryError(
            f"model registry {without_password(uri)}: {reason(error)}; install the driver of its database"
        ) from error


def _now() -> str:
    """The time (UTC) as tags have it."""
    return datetime.now(UTC).isoformat(timespec="seconds")
