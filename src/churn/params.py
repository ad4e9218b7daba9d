"""What changes the model: params.yaml, typed, frozen, one section per stage."""

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from churn.domain.reasons import reason, validation_message
from churn.errors import ConfigError
from churn.paths import PARAMS

Share = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]


class Section(BaseModel):
    """A frozen section that refuses unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Prepare(Section):
    """`prepare`: which rows are kept aside for tests; how many rows without a final label are left out, not refused.

    `split`: by customer, or by time, where the newest rows are the test rows.
    """

    test_fraction: Share
    split: Literal["customer", "time"] = "customer"
    max_immature_share: Annotated[float, Field(ge=0, lt=1)]


class Auto(Section):
    """`train.auto`: the models that are compared where `train.model` is `auto`; with more rows than `large_rows`, others.

    The first of them also compares the histories.
    """

    models: tuple[str, ...] = Field(min_length=1)
    large_rows: Count
    large_models: tuple[str, ...] = Field(min_length=1)


class Train(Section):
    """`train`: the model and how it is chosen. `histories`: shares of the newest rows that may be learned from.

    Every key that is not listed here is the section of a model, which `churn.models` checks.
    """

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, dict[str, Any]]

    model: str
    auto: Auto
    seed: Seed
    histories: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(min_length=1)
    inner_folds: Annotated[int, Field(ge=2)]
    cv_folds: Annotated[int, Field(ge=2)]
    cv_repeats: Count
    reference_rows: Count

    @property
    def sections(self) -> dict[str, dict[str, Any]]:
        """Each model's section, by the model's name."""
        return self.__pydantic_extra__


class Costs(Section):
    """What keeping a customer costs and is worth, in the currency of the charges.

    `contact`: reaching one customer. `offer`: the discount. `value`: a kept customer. `save_rate`: share of churners whom the
    offer keeps. `waste_rate`: share of the others who take the offer all the same.
    """

    contact: Annotated[float, Field(ge=0)]
    offer: Annotated[float, Field(ge=0)]
    value: Annotated[float, Field(gt=0)]
    save_rate: Share
    waste_rate: Annotated[float, Field(ge=0, le=1)]


class Gate(Section):
    """What a team may decide about the gate; every other bound follows from the rows: `churn.domain.gate.evaluate`.

    `min_of_class`: churned customers, and others, that a decision needs. `min_auc`: a floor below which a model is not worth
    acting on; 0.5 is none. `trusted_columns`: may predict churn nearly alone: a person has checked that they are known in time.
    `source_…`: on test rows that did not come through the API, where the newest ones did.
    """

    min_of_class: Count
    min_auc: Share
    trusted_columns: tuple[str, ...]
    source_min_auc: Share
    source_auc_margin: Annotated[float, Field(ge=0)]


class Evaluate(Section):
    """`evaluate`: how many of the newest test rows count, costs, the gate, and the bootstrap behind its intervals."""

    newest_rows: Count
    bootstrap_samples: Count
    seed: Seed
    costs: Costs
    gate: Gate


class Range(Section):
    """The values of a hyperparameter that a search draws from: whole numbers where both limits are; `log`: by their logarithm."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _is_range(self) -> "Range":
        if not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError(f"expected low < high, and low > 0 if log, got {self.low} and {self.high}")
        return self

    def has(self, value: Any) -> bool:
        """True if the value is a number between the limits."""
        return isinstance(value, int | float) and self.low <= value <= self.high


class Tune(Section):
    """`tune`: how many points `churn tune` tries, and the ranges of each model's hyperparameters. No stage reads it."""

    trials: Count
    seed: Seed
    ranges: dict[str, dict[str, Range]]


class Params(Section):
    """params.yaml as a whole."""

    prepare: Prepare
    train: Train
    evaluate: Evaluate
    tune: Tune


S = TypeVar("S", bound=Section)

UNKNOWN = ("extra_forbidden", "dict_type")
"""What pydantic says of a key that nothing has; the second of one of `train` that is no model's section."""


class _Loader(yaml.SafeLoader):
    """YAML that refuses a key that is there twice: the first would count for nothing."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [each.value for each, _ in node.value]
        for key, value in node.value:
            if keys.count(key.value) > 1:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value} is there twice", value.start_mark)
        return super().construct_mapping(node, deep)


def load_params(path: Path = PARAMS) -> Params:
    """The parameters in that file.

    Raises:
        ConfigError: the file is missing or not YAML, a key is unknown or missing, or a value is out of its range.
    """
    try:
        return parse(Params, _Loader(path.read_text(encoding="utf-8")).get_single_data(), path)
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: no such file; run from the project's root") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not YAML: {reason(error)}") from error


def parse(section: type[S], values: Any, path: Path, at: str = "") -> S:
    """The values as that section; `at` is where it stands in the file, written a.b.

    Raises:
        ConfigError: a key is unknown or missing, or a value is out of its range.
    """
    try:
        return section.model_validate(values)
    except ValidationError as error:
        # A misspelt key is missing too: its own name is the one to tell.
        first = min(error.errors(), key=lambda each: each["type"] not in UNKNOWN)
        key = ".".join(filter(None, (at, *map(str, first["loc"]))))
        raise ConfigError(f"{path}: {key or 'the file'}: {_explain(section, key, dict(first))}") from error


def _explain(section: type[Section], key: str, error: dict[str, object]) -> str:
    match error["type"]:
        case "extra_forbidden" | "dict_type":
            near = get_close_matches(key.rpartition(".")[2], _names(section), n=1)
            file = f"src/{section.__module__.replace('.', '/')}.py"
            return "unknown key; " + (f"did you mean {near[0]}?" if near else f"remove it, or add it to {file}")
        case "missing":
            return "missing key; add it"
        case _:
            return f"{error['input']!r}: {validation_message(error)}"


def _names(section: type[BaseModel]) -> list[str]:
    nested = (kind for field in section.model_fields.values() for kind in (field.annotation, *get_args(field.annotation)))
    inner = [name for kind in nested if isinstance(kind, type) and issubclass(kind, Section) for name in _names(kind)]
    return [*section.model_fields, *inner]
