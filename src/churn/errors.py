"""Every error that a user can cause or fix, as one tree.

    ChurnError
    ├── ConfigError        params.yaml or the environment says something that the code does not know
    ├── SourceError        raw rows cannot be read: no file, no table, no bucket, not a Parquet file
    ├── ContractError      rows were read and break the contract
    ├── FeatureStoreError  Feast's registry, offline file or online store refuses
    ├── ModelError         a model cannot be fitted, exported or scored
    │   └── BundleError    a version's files are missing, malformed, or not those that were registered
    ├── RegistryError      MLflow cannot be reached, or has no such version
    ├── EventsError        the prediction log or the outcomes cannot be written or read
    ├── RetrainError       the pipeline failed
    └── MonitorError       the watcher cannot keep its records, or cannot start a retraining

A message is one line: what, the value, the rule, what to do. The command line prints it and exits 1; anything else is a
bug and keeps its traceback.
"""


class ChurnError(Exception):
    """What went wrong and what to do about it, in one line."""


class ConfigError(ChurnError):
    """params.yaml or an environment variable is refused."""


class SourceError(ChurnError):
    """Raw rows cannot be read."""


class ContractError(ChurnError):
    """Rows break the contract."""


class FeatureStoreError(ChurnError):
    """The feature store refuses."""


class ModelError(ChurnError):
    """A model cannot be fitted, exported or scored."""


class BundleError(ModelError):
    """A version's files are missing, malformed, or not those that were registered; `reason` is one word for a metric's label."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class RegistryError(ChurnError):
    """The model registry cannot be reached, or has no such version."""


class EventsError(ChurnError):
    """The prediction log or the outcomes cannot be written or read."""


class RetrainError(ChurnError):
    """The pipeline failed."""


class MonitorError(ChurnError):
    """The watcher cannot keep its records, or cannot start a retraining."""
