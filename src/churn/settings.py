"""Where the system runs: one frozen object from the environment. The defaults need no server."""

import os
import re
from difflib import get_close_matches
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from churn.domain.access import is_root_path, parse_keys
from churn.domain.reasons import validation_message
from churn.errors import ConfigError

PREFIX = "CHURN_"
FILE = "_FILE"
SECRETS = frozenset({"api_keys", "webhook_secret", "trigger_token"})
"""Fields whose values no message shows."""
TriggerForm = Literal["plain", "runner", "github", "airflow"]


class Settings(BaseSettings):
    """The environment, read when it is called for.

    `CHURN_X_FILE` names a file whose text is the value of `CHURN_X`, as secrets are mounted; white space around it is left out.

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
    events: str = "data/events"
    """The prediction log and the outcomes: a folder, or s3://bucket/prefix."""
    label_horizon_s: float | None = Field(None, gt=0)
    """How long after a prediction its label is final. Unset: the contract's LABEL_HORIZON."""
    max_unknown_share: float = Field(0.2, ge=0, le=1)
    """The largest share of an ingest from the log that may be labels of customers whom neither a source nor the online store
    knows. 0: none of them. 1: no limit; then every client with a key can add labels for unknown customers."""
    dvc_remote: str = ""
    """Where `churn repro` and `churn retrain` push data and models: a folder, or s3://bucket/prefix. Empty: nowhere."""
    tune_storage: str = "data/tuning/study.journal"
    """Where `churn tune` keeps its trials: a file, or `postgresql://…` for several workers."""
    git_sha: str = ""
    """The commit of the code, where there is no git to ask, as in an image."""
    tracking_uri: str = Field("sqlite:///mlflow.db", validation_alias="MLFLOW_TRACKING_URI")
    """MLflow's tracking server and registry."""
    tracking_timeout_s: int = Field(10, gt=0)
    """How long to wait for one answer of MLflow's server."""


class Serving(Settings):
    """What the server reads besides: where it listens, what it lets in, and how long it waits."""

    host: str = "127.0.0.1"
    """The address to listen on."""
    port: int = Field(8000, ge=0, le=65535)
    """The port to listen on; 0 takes a free one."""
    root_path: str = ""
    """The path below which a proxy offers the server, as `/churn`, whether the proxy strips it or not. Empty: X-Forwarded-Prefix
    says it, or there is none."""
    fast_path: bool = True
    """Answer `/predict` and `/predict/by-id` without ASGI, which is several times as fast."""
    workers: int = Field(1, ge=1)
    """Processes that share the port; each loads and swaps the model by itself."""
    api_keys: str = ""
    """Hexadecimal SHA-256 of every key, with its rights: `DIGEST:predict+outcomes`, separated by commas. A digest alone has the
    right `predict`. Empty: no key is needed."""
    anonymous: bool = False
    """Serve without keys on an address that other machines reach."""
    webhook_secret: str = ""
    """Signs MLflow's webhooks to `/hooks/mlflow`. Empty: they are refused, and the registry is polled."""
    poll_s: float = Field(15, gt=0)
    """Seconds between two reads of the production alias, ± a fifth at random."""
    models: Path = Path("data/serving/models")
    """Where versions are kept that were good: for restarts and for rolling back without the registry."""
    kept_models: int = Field(3, ge=1)
    """How many of them."""
    download_timeout_s: float = Field(60, gt=0)
    """How long a version's files may take to download, all together."""
    check_timeout_s: float = Field(30, gt=0)
    """How long a version may take to load and to prove itself, in a process of its own, before it serves."""
    check_memory_mib: int = Field(384, ge=256)
    """How much address space that process may take: raise it, with the container's memory, for models of tens of megabytes."""
    log_capacity_rows: int = Field(100_000, ge=0)
    """How many scored rows may wait to be written; more are dropped and counted. 0: nothing is logged."""
    log_part_rows: int = Field(10_000, ge=1)
    """A part is written when it has this many rows …"""
    log_flush_s: float = Field(5, gt=0)
    """… or after this time."""
    store_timeout_s: float = Field(0.2, gt=0)
    """How long a look-up in the online store may take."""
    deadline_s: float = Field(2, gt=0)
    """How long a request may take before it is refused."""
    max_in_flight: int = Field(64, ge=1)
    """Requests at work at once; each 16 KiB of a body counts as one. More are refused with 503 and Retry-After."""
    max_connections: int = Field(1024, ge=16)
    """Open connections of one worker. With more, those that have been idle longest are closed."""
    max_body_bytes: int = Field(2**20, ge=1024)
    """The largest body."""
    max_rows: int = Field(1000, ge=1)
    """The most rows of one request."""
    outcomes_per_hour: int = Field(1_000_000, ge=1)
    """The most outcomes that one key may report in an hour, to each worker. More are refused with 429 and Retry-After."""
    drain_s: float = Field(5, ge=0)
    """After SIGTERM: how long requests are still taken while `/readyz` says no, so that load balancers notice."""
    access_log: bool = False
    """Log every request, not only those that failed."""

    @field_validator("root_path")
    @classmethod
    def _prefix(cls, value: str) -> str:
        if not is_root_path(value):
            raise ValueError("expected a path such as /churn: with a slash before it and none after it")
        return value

    @field_validator("api_keys")
    @classmethod
    def _keys(cls, value: str) -> str:
        parse_keys(value)
        return value

    @property
    def is_local(self) -> bool:
        """True if only this machine reaches the address."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False


class Monitoring(Settings):
    """What the watcher reads besides: how often it looks, how far back, when it retrains, and by whom.

    Source of the defaults: simulated on the shipped data, 200 windows each; docs/monitoring.md.
    """

    monitor_host: str = "127.0.0.1"
    """Where metrics and reports are served …"""
    monitor_port: int = Field(8001, ge=0, le=65535)
    """… and on which port; 0 takes a free one."""
    monitor: str = "data/monitoring"
    """Where decisions are recorded and reports kept: a folder, or s3://bucket/prefix (reports stay in the folder below)."""
    reports: Path = Path("data/monitoring/reports")
    """Evidently's reports, and its workspace."""
    kept_reports: int = Field(100, ge=1)
    """How many windows keep their report: each takes 6 MB."""
    interval_s: float = Field(3600, gt=0)
    """How often the watcher looks. Windows end at whole multiples of it."""
    window_s: float = Field(86_400, gt=0)
    """The short window: a day."""
    long_window_s: float = Field(7 * 86_400, gt=0)
    """The long window: a week."""
    performance_window_s: float = Field(30 * 86_400, gt=0)
    """How far back predictions are evaluated on their outcomes, counted from the end of the label's horizon."""
    min_rows: int = Field(500, ge=1)
    """A window with fewer rows never counts as drifted …"""
    min_warn_rows: int = Field(300, ge=1)
    """… and with fewer than this, nothing is said of it."""
    sample_rows: int = Field(5000, ge=1)
    """A larger window is sampled down to this many rows."""
    min_positives: int = Field(50, ge=1)
    """Performance is evaluated on at least this many churned customers."""
    cooldown_s: float = Field(72 * 3600, ge=0)
    """No retraining starts sooner than this after the last one started."""
    budget: int = Field(2, ge=0)
    """At most so many retrainings …"""
    budget_s: float = Field(14 * 86_400, gt=0)
    """… within this time."""
    compact: bool = True
    """Merge the log's parts of days that are over, once a day after a check."""
    compact_after_s: float = Field(86_400, gt=0)
    """How long after a UTC day its parts may be merged: longer than any server keeps rows that it cannot write."""
    max_rejected: int = Field(2, ge=1)
    """After so many rejected or failed retrainings in a row the circuit is open: a person must look."""
    retrain_timeout_s: float = Field(6 * 3600, gt=0)
    """A retraining that has not ended after this time counts as failed."""
    trigger: Literal["none", "command", "webhook", "kubernetes"] = "none"
    """Who retrains."""
    trigger_command: str = "churn retrain"
    """The command, split as a shell would, without a shell."""
    trigger_url: str = ""
    """The webhook's address, as https://api.github.com/repos/OWNER/REPO/dispatches."""
    trigger_form: TriggerForm = "plain"
    """What the webhook's body looks like; `runner` is `python -m ops.runner`, which also tells how a retraining stands."""
    trigger_token: str = ""
    """Sent as `Authorization: Bearer …`."""
    trigger_cronjob: str = "churn-retrain"
    """The CronJob of which a Job is made."""
    trigger_namespace: str = ""
    """Its namespace. Empty: the pod's own."""


S = TypeVar("S", bound=Settings)


KINDS: tuple[type[Settings], ...] = (Settings, Serving, Monitoring)
"""Every room's variables are known to all, since one file sets them for the whole system."""


def load_settings() -> Settings:
    """The settings of this process.

    Raises:
        ConfigError: a `CHURN_` variable is unknown, or a value does not fit its type.
    """
    return _load(Settings)


def load_serving() -> Serving:
    """The settings of a server.

    Raises:
        ConfigError: as `load_settings`; or the address is not local, and neither keys nor CHURN_ANONYMOUS are set.
    """
    settings = _load(Serving)
    if not (settings.is_local or settings.api_keys or settings.anonymous):
        raise ConfigError(
            f"environment: CHURN_HOST = {settings.host!r} is reached from other machines, and CHURN_API_KEYS is empty; "
            "set keys (`printf %s KEY | sha256sum`), or CHURN_ANONYMOUS=true if something before the server asks for them"
        )
    return settings


def load_monitoring() -> Monitoring:
    """The settings of a watcher.

    Raises:
        ConfigError: as `load_settings`; or the trigger lacks its address, or the warning's rows exceed the window's.
    """
    settings = _load(Monitoring)
    if settings.trigger == "webhook" and not settings.trigger_url:
        raise ConfigError("environment: CHURN_TRIGGER = 'webhook' and CHURN_TRIGGER_URL is empty; name the address")
    if not settings.min_warn_rows <= settings.min_rows <= settings.sample_rows:
        raise ConfigError(
            "environment: expected CHURN_MIN_WARN_ROWS ≤ CHURN_MIN_ROWS ≤ CHURN_SAMPLE_ROWS, "
            f"got {settings.min_warn_rows}, {settings.min_rows}, {settings.sample_rows}; correct them"
        )
    return settings


def _load(kind: type[S]) -> S:
    fields = {name: field for each in KINDS for name, field in each.model_fields.items()}
    known = {name.upper() for name, field in fields.items() if not field.validation_alias}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and (own := name.removeprefix(PREFIX)).removesuffix(FILE) not in known:
            near = get_close_matches(own, known, n=1)
            hint = (
                f"did you mean {PREFIX}{near[0]}?" if near else f"the known ones are {PREFIX}{f', {PREFIX}'.join(sorted(known))}"
            )
            raise ConfigError(f"environment: {name} is not a setting of churn; {hint}")
    try:
        return kind(**_from_files(kind))
    except ValidationError as error:
        first = error.errors()[0]
        name = f"{PREFIX}{first['loc'][0]}".upper()
        # Not chained: the library's own message has the value too.
        value = "" if first["loc"][0] in SECRETS else f" = {first['input']!r}"
        raise ConfigError(f"environment: {name}{value}: {validation_message(first)}; correct it or unset it") from None


def _from_files(kind: type[Settings]) -> dict[str, Any]:
    """The values that are in files: setting → text."""
    found = {}
    for name in kind.model_fields:
        variable = f"{PREFIX}{name}".upper()
        if not (path := os.environ.get(variable + FILE)):
            continue
        if os.environ.get(variable):
            raise ConfigError(f"environment: {variable} and {variable + FILE} are both set; unset one of them")
        try:
            found[name] = Path(path).read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not text"
            raise ConfigError(f"environment: {variable + FILE} = {path!r}: {reason}; correct the path or the file") from error
    return found


def without_password(location: str) -> str:
    """The location with any password masked, for messages."""
    return re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", location)
