"""Models by name: one file each, which defines its section of params.yaml as `Params` and a `Model`; nothing else names it."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from churn.adapters import onnx
from churn.domain.encoding import Matrix
from churn.domain.metrics import Probabilities
from churn.errors import ConfigError
from churn.params import Train, parse
from churn.paths import PARAMS


class Model(ABC):
    """One kind of model. `params` is its own section of params.yaml, `seed` that of the training."""

    def __init__(self, params: Any, seed: int) -> None:
        self.params = params
        self.seed = seed

    @abstractmethod
    def unfitted(self, **chosen: Any) -> Any:
        """A classifier with scikit-learn's `fit`, `predict_proba` and `get_params`; `chosen` is one of `choices`."""

    def choices(self) -> tuple[dict[str, Any], ...]:
        """The hyperparameters that cross-validation chooses from, the simplest model first."""
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


def build(train: Train, name: str = "") -> Model:
    """The model of that name, or the one that `train.model` names, with its parameters.

    Raises:
        ConfigError: there is no such model, or its section is missing or wrong.
    """
    name = name or train.model
    if name not in names():
        raise ConfigError(
            f"{PARAMS}: train.model: expected one of {', '.join(names())}, got {name!r}; "
            "correct it, or add a file to src/churn/models"
        )
    if name not in train.sections:
        raise ConfigError(f"{PARAMS}: train.{name}: missing key; add it")
    module = import_module(f"{__name__}.{name}")
    model: Model = module.Model(parse(module.Params, train.sections[name], PARAMS, f"train.{name}"), train.seed)
    return model


def check(train: Train) -> None:
    """Refuse a `train.model` that does not exist, and a section that is wrong or no model's.

    Raises:
        ConfigError: as `build`.
    """
    for name in (train.model, *train.sections):
        if name in train.sections and name not in names():
            near = get_close_matches(name, names(), n=1)
            fix = f"did you mean {near[0]}?" if near else f"the models are {', '.join(names())}"
            raise ConfigError(f"{PARAMS}: train.{name}: unknown key; {fix}")
        build(train, name)
