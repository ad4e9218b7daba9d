"""What a column of a contract may be: a contract that could not be trained on is refused as it is imported."""

from datetime import UTC, datetime

import pytest

from churn.domain.kinds import Category, Column, Date, Flag, Grouped, Integer, Kind, NullAs, Real, Role, Text, Timestamp


def column(kind: Kind, role: Role = Role.FEATURE, *, null_as: NullAs = None, default: datetime | None = None) -> Column:
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


@pytest.mark.parametrize(
    ("kind", "null_as"),
    [
        (Integer(), 0),
        (Real(), -1.5),
        (Date(), -1),
        (Category(("Free", "Basic")), "missing"),
        (Flag(), "missing"),
        (Grouped(), "missing"),
    ],
)
def test_every_kind_of_feature_may_be_null(kind: Kind, null_as: NullAs) -> None:
    assert column(kind, null_as=null_as).nullable
    assert not column(kind).nullable


@pytest.mark.parametrize(
    ("kind", "null_as"),
    [
        (Integer(), "missing"),
        (Date(), "missing"),
        (Category(("Free", "Basic")), 0),
        (Category(("Free", "Basic")), "Free"),
        (Category(("Free", "Basic")), ""),
        (Flag(), 0),
        (Grouped(), -1),
    ],
)
def test_a_null_cannot_stand_for_what_the_kind_has_no_input_for(kind: Kind, null_as: NullAs) -> None:
    with pytest.raises(ValueError, match=r"plan: null_as: expected a (number|text)"):
        column(kind, null_as=null_as)


@pytest.mark.parametrize("role", [Role.ENTITY, Role.LABEL])
def test_only_a_feature_may_be_null(role: Role) -> None:
    with pytest.raises(ValueError, match="null_as is for features only"):
        column(Text() if role is Role.ENTITY else Flag(), role, null_as="missing")


@pytest.mark.parametrize(
    ("role", "kind", "instead"),
    [
        (Role.FEATURE, Text(), "derive numbers or a category"),
        (Role.LABEL, Category(("a", "b", "c")), "make it a yes/no column"),
        (Role.LABEL, Real(), "make it a yes/no column"),
        (Role.LABEL, Integer(), "make it a yes/no column"),
    ],
)
def test_free_text_and_other_labels_than_yes_or_no_are_refused_with_what_to_do(role: Role, kind: Kind, instead: str) -> None:
    with pytest.raises(ValueError, match=instead):
        column(kind, role)


def test_a_source_that_is_left_out_is_the_name() -> None:
    assert Column(name="plan", kind=Flag(), description="").sources == ("plan",)


def test_only_the_entity_may_have_several_sources() -> None:
    key = Column(name="customer_id", kind=Text(), role=Role.ENTITY, source=("account", "line"), description="")

    assert key.sources == ("account", "line")
    with pytest.raises(ValueError, match="plan: expected several source names of the entity"):
        Column(name="plan", kind=Flag(), source=("a", "b"), description="")


def test_at_least_one_value_is_commonest() -> None:
    with pytest.raises(ValueError, match="expected commonest of at least 1, got 0"):
        Grouped(commonest=0)


def test_only_the_timestamp_has_a_default() -> None:
    moment = datetime(2026, 1, 1, tzinfo=UTC)

    assert column(Timestamp(), Role.TIMESTAMP, default=moment).default == moment
    with pytest.raises(ValueError, match="plan: default is for the timestamp only"):
        column(Real(), default=moment)
