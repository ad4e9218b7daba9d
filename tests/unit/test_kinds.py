"""What a column of a contract may be: a contract that could not be trained on is refused as it is imported."""

from datetime import UTC, datetime

import pytest

from churn.domain.kinds import Category, Column, Flag, Integer, Kind, Real, Role, Text, Timestamp


def column(kind: Kind, role: Role = Role.FEATURE, *, null_as: float | None = None, default: datetime | None = None) -> Column:
    return Column(name="plan", kind=kind, role=role, source="Plan", description="A plan", null_as=null_as, default=default)


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (Role.ENTITY, Integer()),
        (Role.TIMESTAMP, Text()),
        (Role.LABEL, Category(("yes", "no"))),
        (Role.FEATURE, Text()),
        (Role.FEATURE, Timestamp()),
    ],
)
def test_a_kind_that_does_not_fit_the_role_is_refused(role: Role, kind: Kind) -> None:
    with pytest.raises(ValueError, match=f"plan: {type(kind).__name__} cannot be the kind of the {role}"):
        column(kind, role)


@pytest.mark.parametrize("kind", [Category(("Free", "Basic")), Flag()])
def test_a_category_or_flag_cannot_be_null(kind: Kind) -> None:
    with pytest.raises(ValueError, match="plan: null_as is for numbers; give the missing value a text of its own"):
        column(kind, null_as=0)


@pytest.mark.parametrize("kind", [Integer(), Real()])
def test_a_number_may_be_null(kind: Kind) -> None:
    assert column(kind, null_as=0).nullable
    assert not column(kind).nullable


def test_only_the_timestamp_has_a_default() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    assert column(Timestamp(), Role.TIMESTAMP, default=moment).default == moment
    with pytest.raises(ValueError, match="plan: default is for the timestamp only"):
        column(Real(), default=moment)


def test_only_the_entity_may_have_several_sources() -> None:
    key = Column(name="customer_id", kind=Text(), role=Role.ENTITY, source=("account", "line"), description="")

    assert key.sources == ("account", "line")
    with pytest.raises(ValueError, match="plan: expected several source names of the entity"):
        Column(name="plan", kind=Flag(), source=("a", "b"), description="")
