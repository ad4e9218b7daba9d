"""Where the system runs: one frozen object from the environment. The defaults need no server."""

import os
from difflib import get_close_matches

from pydantic import Field, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from churn.errors import ConfigError

PREFIX = "CHURN_"


class Settings(BaseSettings):
    """The environment, read when it is called for.

    MLflow's and AWS's own variables keep their own names (`MLFLOW_TRACKING_URI`, `AWS_ENDPOINT_URL`, …); the rest begin with
    `CHURN_`.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

    source: str = ""
    """Where `churn ingest` reads rows: a file, a folder of parts, `s3://bucket/key`, or a SQLAlchemy URL. Empty: nowhere."""
    source_table: str = "customers"
    """The table to read when `source` is a database."""
    feature_registry: str = "sqlite:///data/online/registry.db"
    """Feast's registry: a SQLAlchemy URL."""
    online_store: str = "sqlite:///data/online/features.db"
    """Where features are materialised: `sqlite:///path` or `redis://host:port/db`."""
    git_sha: str = ""
    """The commit of the code, where there is no git to ask, as in an image."""
    tracking_uri: str = Field("sqlite:///mlflow.db", validation_alias="MLFLOW_TRACKING_URI")
    """MLflow's tracking server and registry."""
    tracking_timeout_s: int = Field(10, gt=0)
    """How long to wait for one answer of MLflow's server."""


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigError: a `CHURN_` variable is unknown, or a value does not fit its type.
    """
    known = {f"{PREFIX}{name}".upper() for name, field in Settings.model_fields.items() if not field.validation_alias}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the known ones are {', '.join(sorted(known))}"
            raise ConfigError(f"environment: {name} is not a setting of churn; {hint}")
    try:
        return Settings()
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{first['loc'][0]}".upper()
        raise ConfigError(f"environment: {name} = {first['input']!r}: {first['msg']}; correct it or unset it") from error
