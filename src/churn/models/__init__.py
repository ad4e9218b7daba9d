"""Models by name: one file each, which defines its section of params.yaml as `Params` and a `Model`; nothing else names it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, ClassVar

from churn.adapters import onnx
from churn.domain.encoding import Matrix
from churn.domain.metrics import Probabilities
from churn.errors import ConfigError
from churn.params import Train, parse
from churn.paths import PARAMS

AUTO = "auto"
"""The value of `train.model` that compares the models of `train.auto`."""
BASELINE = "logistic_regression"
"""The model that the gate compares every version with."""


class Model(ABC):
    """One kind of model. `params` is its own section of params.yaml, `seed` that of the training."""

    steps: ClassVar[str] = ""
    """The estimator's parameter that is the number of its steps, such as trees; empty for a model that does not learn in steps.

    `unfitted` gives an estimator with the largest number; cross-validation chooses the number by the losses of `stages`.
    """

    def __init__(self, params: Any, seed: int) -> None:
        self.params = params
        self.seed = seed

    @property
    def name(self) -> str:
        """The name of the model's file."""
        return type(self).__module__.rpartition(".")[2]

    @abstractmethod
    def unfitted(self, **chosen: Any) -> Any:
        """A classifier with scikit-learn's `fit`, `predict_proba` and `get_params`.

        `chosen` is one of `choices`, with the number of `steps` where it is chosen already.
        """

    def choices(self) -> tuple[dict[str, Any], ...]:
        """The hyperparameters that cross-validation chooses from, besides the number of steps."""
        return ({},)

    def stages(self, estimator: Any, X: Matrix) -> Iterable[Probabilities]:
        """The probabilities (n, 2) after each step of the learning; nothing for a model without steps."""
        return ()

    def explanation(self, estimator: Any) -> dict[str, Any] | None:
        """What `churn.domain.explanations.Explainer` needs; None for a model without exact explanations."""
        return None

    def export(self, estimator: Any, X: Matrix, *, metadata: dict[str, str]) -> bytes:
        """The fitted estimator as ONNX, proved on rows of `X` (n, k).

        Raises:
            ModelError: see `churn.adapters.onnx.export`.
        """
        return onnx.export(estimator, X, metadata=metadata)


def names() -> list[str]:
    """The names of the models, in alphabetical order."""
    return [module.name for module in iter_modules(__path__)]


def candidates(train: Train, rows: int) -> tuple[Model, ...]:
    """The models that are compared on that many training rows: those of `train.auto`, or the one that `train.model` names.

    Raises:
        ConfigError: as `build`.
    """
    if train.model != AUTO:
        return (build(train, train.model),)
    names = train.auto.large_models if rows > train.auto.large_rows else train.auto.models
    return tuple(build(train, name) for name in names)


def build(train: Train, name: str) -> Model:
    """The model of that name with its parameters.

    Raises:
        ConfigError: there is no such model, or its section is missing or wrong.
    """
    _require_known(name, "train.model", f"{AUTO}, {', '.join(names())}")
    if name not in train.sections:
        raise ConfigError(f"{PARAMS}: train.{name}: missing key; add it")
    module = import_module(f"{__name__}.{name}")
    model: Model = module.Model(parse(module.Params, train.sections[name], PARAMS, f"train.{name}"), train.seed)
    return model


def check(train: Train) -> None:
    """Refuse a `train.model` that does not exist, names of `train.auto` that do not, and a section that is wrong or no model's.

    Raises:
        ConfigError: as `build`.
    """
    for key in ("models", "large_models"):
        for name in getattr(train.auto, key):
            _require_known(name, f"train.auto.{key}", ", ".join(names()))
            build(train, name)
    if train.model != AUTO:
        build(train, train.model)
    for name in train.sections:
        if name not in names():
            near = get_close_matches(name, names(), n=1)
            fix = f"did you mean {near[0]}?" if near else f"the models are {', '.join(names())}"
            raise ConfigError(f"{PARAMS}: train.{name}: unknown key; {fix}")
        build(train, name)


def _require_known(name: str, at: str, known: str) -> None:
    if name not in names():
        raise ConfigError(f"{PARAMS}: {at}: expected one of {known}, got {name!r}; correct it, or add a file to src/churn/models")
