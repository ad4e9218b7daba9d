"""The page for people, `GET /`: the version that serves, a form made from the contract, a look-up, and a score with its reasons.

Rendered here, without scripts: a form is posted and answered with the whole page. `/docs` is served from here too; nothing on
either page comes from another host.
"""

import asyncio
import base64
import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup
from pydantic import ValidationError

from churn.adapters.bundle import unique_keys
from churn.contract import BY_NAME, DATES, RAW_FEATURES, Category, Column, Date, Flag, Integer, Kind, Real
from churn.contract import Text as TextKind
from churn.domain.access import Right
from churn.domain.reasons import validation_message
from churn.domain.values import MAX_ID, from_text
from serving.answers import REASON
from serving.dependencies import ServerDep
from serving.examples import EXAMPLE
from serving.explain import explanations
from serving.json_bodies import in_words
from serving.keys import Requires
from serving.predictor import Scored
from serving.problems import Invalid, NotFound, Problem
from serving.schemas import ByIdRequest, Customer
from serving.server import Server
from serving.versions.model import Model

TEMPLATES = Path(__file__).parent / "templates"
STATIC = "/static-offline-docs"
"""Where fastapi_offline puts Swagger UI's files."""

MAX_FIELDS = 200
SHOWN_REASONS = 8
"""The others are folded away."""

Text = Callable[[float], str]


def _percent(value: float) -> str:
    return f"{100 * value:.1f} %"


def _figure(value: float) -> str:
    return f"{value:.3f}"


FIGURES: tuple[tuple[str, str, str, Text], ...] = (
    ("test.roc_auc", "ROC-AUC", "1 ranks perfectly, 0.5 at random", _figure),
    ("test.pr_auc", "PR-AUC", "higher is better", _figure),
    ("test.log_loss", "Log loss", "lower is better", _figure),
    ("test.ece", "Calibration error", "ECE, 0 is perfect", _figure),
    ("test.lift_at_10", "Lift at 10 %", "times the average churn rate", lambda value: f"{value:.2f}"),
    ("test.recall", "Recall", "of churners, flagged", _percent),
    ("test.precision", "Precision", "of flagged, churners", _percent),
)
"""The metrics of a version on the page, if it has them: name, label, how to read it, format."""


@dataclass(frozen=True)
class Input:
    """One control of the form, of that type of HTML; `options` are (value, text) of a choice."""

    name: str
    label: str
    hint: str
    type: str
    options: tuple[tuple[str, str], ...]
    bounds: dict[str, str]
    required: bool


@dataclass(frozen=True)
class Shown:
    """What the page shows besides the version: what was filled in, and what came of it."""

    values: Mapping[str, str]
    customer_id: str = ""
    form: str = ""
    result: dict[str, Any] | None = None
    problem: Problem | None = None
    wrong: Mapping[str, str] = field(default_factory=dict)


@cache
def _page() -> tuple[Template, dict[str, Any], str]:
    """The page's template with what never changes in it, and its policy, which names the style sheet by its hash."""
    css = (TEMPLATES / "page.css").read_text()
    environment = Environment(loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters |= {"percent": _percent, "signed": _signed}
    inputs = [_input(each) for each in RAW_FEATURES]
    values = {"css": Markup(css), "inputs": inputs, "max_id": MAX_ID, "shown_reasons": SHOWN_REASONS}
    more = "img-src 'self' data:; form-action 'self'"
    return environment.get_template("page.html"), values, policy(style=[css], more=more)


def _rendered(request: Request, server: Server, shown: Shown) -> Response:
    now = server.swap.current
    template, values, allowed = _page()
    html = template.render(
        **values,
        root=request.scope.get("root_path", ""),
        shown=shown,
        detail=_detail(shown.problem),
        version=_version(now) if now else None,
        reason=server.swap.reason,
        pinned=bool(server.cache.pin.name),
    )
    headers = shown.problem.text_headers() if shown.problem else {}
    status = shown.problem.status if shown.problem else 200
    if shown.problem:
        setattr(request.state, REASON, shown.problem.reason)
    return HTMLResponse(html, status, headers | {"content-security-policy": allowed, "referrer-policy": "no-referrer"})


PREDICT = [Depends(Requires(Right.PREDICT))]

router = APIRouter(include_in_schema=False)


@router.get("/")
async def show(request: Request, server: ServerDep) -> Response:
    """The page with the form filled in by an example."""
    return _rendered(request, server, Shown(_start()))


@router.post("/page/score", dependencies=PREDICT)
async def score(request: Request, server: ServerDep) -> Response:
    """Score the customer that was filled in."""
    given = _fields(await request.body())
    try:
        customer = Customer.model_validate(_typed(given))
        scored = await server.service.score_inline([customer])
    except ValidationError as error:
        problem = Invalid(in_words(error.errors()))
        return _rendered(request, server, Shown(given, form="score", problem=problem, wrong=_wrong(error)))
    except Problem as problem:
        return _rendered(request, server, Shown(given, form="score", problem=problem))
    return _rendered(request, server, Shown(given, form="score", result=await _result(scored)))


@router.post("/page/customer", dependencies=PREDICT)
async def look_up(request: Request, server: ServerDep) -> Response:
    """Score the customer with that identifier, and fill the form with its values."""
    customer_id = _fields(await request.body()).get("customer_id", "").strip()
    try:
        ids = ByIdRequest.model_validate({"customer_ids": [customer_id]}).customer_ids
        scored = await server.service.score_by_id(ids)
    except ValidationError as error:
        return _rendered(request, server, Shown(_start(), customer_id, "customer", problem=Invalid(in_words(error.errors()))))
    except Problem as problem:
        return _rendered(request, server, Shown(_start(), customer_id, "customer", problem=problem))
    result = await _result(scored)
    known = _texts({each["feature"]: _given(each) for each in result["reasons"] if each["feature"] in BY_NAME})
    return _rendered(request, server, Shown({**_start(), **known}, customer_id, "customer", result=result))


@router.get("/page/score")
@router.get("/page/customer")
async def home(request: Request) -> Response:
    """For the address that a form leaves in the browser, opened again."""
    return RedirectResponse(f"{request.scope.get('root_path', '')}/", 303)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """The API's documentation."""
    html, allowed = _swagger(request.scope.get("root_path", ""), request.app.title)
    return HTMLResponse(html, headers={"content-security-policy": allowed})


@lru_cache(maxsize=8)  # not of every prefix: a client may name any
def _swagger(root: str, title: str) -> tuple[str, str]:
    """Swagger UI's page, and the policy that lets its own inline script run, by its hash."""
    static = f"{root}{STATIC}"
    answer = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title=f"{title}: API",
        swagger_js_url=f"{static}/swagger-ui-bundle.js",
        swagger_css_url=f"{static}/swagger-ui.css",
        swagger_favicon_url=f"{static}/favicon.png",
    )
    html = bytes(answer.body).decode()
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    return html, policy(script=scripts, style=[], more="script-src-attr 'none'; img-src 'self' data:; connect-src 'self'")


def policy(*, style: list[str], script: list[str] | None = None, more: str = "") -> str:
    """A content security policy: nothing but `more`, and styles and scripts of this server or with the text of those given.

    Without `script`, none runs; with a style of its own, a page loads no other.
    """
    styles = " ".join(_hash(each) for each in style) or "'self'"
    scripts = "" if script is None else f"script-src 'self' {' '.join(_hash(each) for each in script)}; "
    return f"default-src 'none'; {scripts}style-src {styles}; {more}; base-uri 'none'; frame-ancestors 'none'"


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _input(column: Column) -> Input:
    options: tuple[tuple[str, str], ...] = ()
    bounds: dict[str, str] = {}
    rule = "may be blank" if column.nullable else ""
    kind = "number"
    blank = (("", "Not given"),) if column.nullable else ()
    match column.kind:
        case Category(values):
            options, rule = (*((each, each) for each in values), *blank), ""
        case Flag():
            options, rule = (("true", "Yes"), ("false", "No"), *blank), ""
        case Date():
            kind = "date"
        case TextKind():
            kind, bounds = "text", {"maxlength": str(MAX_ID)}
        case Integer(ge, le) | Real(ge, le):
            step = "1" if isinstance(column.kind, Integer) else "any"
            given = {"min": ge, "max": le, "step": step}
            bounds = {name: str(each) for name, each in given.items() if each is not None}
            rule = ", ".join(filter(None, [_range(ge, le), rule]))
    hint = f"{column.description} ({rule})" if rule else column.description
    return Input(column.name, _label(column.name), hint, kind, options, bounds, not column.nullable)


def _range(ge: float | None, le: float | None) -> str:
    match ge, le:
        case None, None:
            return ""
        case _, None:
            return f"from {ge:,}"
        case None, _:
            return f"up to {le:,}"
        case _:
            return f"{ge:,} to {le:,}"


def _fields(body: bytes) -> dict[str, str]:
    """The fields of a form, as it was posted."""
    try:
        return unique_keys(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS))
    except ValueError:
        raise Invalid("body: not the fields of the page's form, each once; use the form, or POST /predict") from None


def _typed(given: Mapping[str, str]) -> dict[str, Any]:
    """The form's texts as the API takes them; a text that is none of the column's kind stays, for the API to refuse."""
    kinds = {each.name: each.kind for each in RAW_FEATURES}
    return {name: _read(kinds.get(name), text) for name, text in given.items() if text.strip()}


def _read(kind: Kind | None, text: str) -> Any:
    try:
        return from_text(kind, text) if kind else text
    except ValueError:
        return text


def _start() -> dict[str, str]:
    return _texts({each.name: EXAMPLE[each.name] for each in RAW_FEATURES})


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    """Values as the form has them."""
    return {name: _text(each) for name, each in values.items()}


def _given(reason: Mapping[str, Any]) -> Any:
    """A reason's value as the form has it: of days the date that is as long ago today."""
    name, value = reason["feature"], reason["value"]
    return datetime.now(UTC).date() - timedelta(days=value) if name in DATES and value is not None else value


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case float():
            return f"{value:.15g}"
        case _:
            return str(value)


def _wrong(error: ValidationError) -> dict[str, str]:
    """What is wrong with each field."""
    errors = error.errors(include_url=False, include_input=False)
    return {str(each["loc"][0]): validation_message(each) for each in errors if each["loc"]}


def _detail(problem: Problem | None) -> str:
    """A problem's text, without the place in a list: the page has one customer."""
    return re.sub(r"^customer(s|_ids)\[0\]:? ?", "", problem.detail) if problem else ""


async def _result(scored: Scored) -> dict[str, Any]:
    """The template's view of a score; without reasons if the version has no explanation."""
    try:
        explained = await asyncio.to_thread(explanations, scored)
        found, base = explained["explanations"][0], explained["base_log_odds"]
    except NotFound:
        found, base = {**scored.predictions()[0], "reasons": [], "log_odds": None}, None
    reasons = found["reasons"]
    largest = max((abs(each["contribution"]) for each in reasons), default=0) or 1
    return {
        **found,
        "base": base,
        "version": scored.model.version,
        "threshold": scored.model.threshold,
        "reasons": [each | _sentence(each) | _bar(each["contribution"] / largest) for each in reasons],
    }


def _sentence(reason: Mapping[str, Any]) -> dict[str, str]:
    """A reason's text in two: what is the case, with the feature named as in the form, and what it does."""
    what, _, effect = reason["text"].partition(": ")
    return {"what": _label(reason["feature"]) + what.removeprefix(reason["feature"]), "effect": effect}


def _label(name: str) -> str:
    return name.replace("_", " ").capitalize()


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _bar(share: float) -> dict[str, float]:
    """A bar from the middle of a width of 200, to the right where the risk is raised; a hair is always seen."""
    width = max(100 * abs(share), 0.5)
    return {"x": 100 if share >= 0 else 100 - width, "width": width}


def _version(now: Model) -> dict[str, Any]:
    figures = [(label, how, text(now.metrics[name])) for name, label, how, text in FIGURES if name in now.metrics]
    return {
        "number": now.version,
        "threshold": now.threshold,
        "trained_at": now.created_at.astimezone(UTC),
        "age": in_time(datetime.now(UTC) - now.created_at),
        "digest": now.digest,
        "figures": figures,
    }


def in_time(age: timedelta) -> str:
    """An age in its largest whole unit: `3 days`."""
    seconds = max(int(age.total_seconds()), 0)
    for unit, length in (("day", 86_400), ("hour", 3_600), ("minute", 60)):
        if number := seconds // length:
            return f"{number} {unit}{'s' if number > 1 else ''}"
    return "less than a minute"
