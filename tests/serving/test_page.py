"""The page and the API's documentation, in a browser."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Browser, Page

from chromium import chromium
from churn.contract import RAW_FEATURES, RULES
from served import CUSTOMERS, ROOT, Releases, Running, Serve, customers
from serving.examples import EXAMPLE
from serving.page.routes import FIGURES
from serving.rows import columns_of

DESKTOP, NARROW = {"width": 1200, "height": 900}, {"width": 360, "height": 740}

Open = Callable[..., Page]

START = {each.name: EXAMPLE[each.name] for each in RAW_FEATURES}
"""What the form begins with."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Opens a path of a server; a request to another host or an error in the console fails the test."""
    complaints: list[str] = []
    contexts = []

    def opened(server: Running, path: str = "/", *, size: dict[str, int] = DESKTOP, refused: bool = False) -> Page:
        context = browser.new_context(viewport=size)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: _note(complaints, request.url, request.url.startswith((server.url, "data:"))))
        # Chromium itself reports the status of a refusal; nothing else may be on the console.
        page.on(
            "console", lambda message: _note(complaints, message.text, refused and "responded with a status of" in message.text)
        )
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(server.url + path)
        return page

    yield opened
    for each in contexts:
        each.close()
    assert complaints == []


def _note(complaints: list[str], text: str, expected: bool) -> None:
    if not expected:
        complaints.append(text)


def _tab_to(page: Page, target: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", target):
            return
    raise AssertionError(f"{target} is not reached by Tab")


def _post(server: Running, path: str, fields: dict[str, Any]) -> Any:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    return server.http.post(path, content=urlencode(fields), headers=headers)


def _form(**overrides: str) -> dict[str, str]:
    """The fields of a good customer, as a browser posts them."""
    return {name: str(value).lower() if isinstance(value, bool) else str(value) for name, value in START.items()} | (overrides)


def test_the_page_shows_the_serving_version(stocked: Running, open_page: Open) -> None:
    about = stocked.http.get("/model").json()

    page = open_page(stocked)

    assert page.title() == "Churn"
    assert page.locator("html").get_attribute("lang") == "en"
    version = page.locator(".version")
    assert f"Version {about['model_version']} is in production" in version.inner_text()
    assert f"{100 * about['threshold']:.1f} %" in version.inner_text()
    assert about["bundle_sha256"][:12] in version.inner_text()


def test_a_customer_is_scored_with_the_keyboard_only(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked)

    _tab_to(page, "#field-monthly_fee")
    page.keyboard.press("Control+A")
    page.keyboard.type("55.5")
    with page.expect_navigation():
        page.keyboard.press("Enter")

    expected = stocked.predict([START | {"monthly_fee": 55.5}]).json()["predictions"][0]
    result = page.locator(".result")
    assert f"{100 * expected['churn_probability']:.1f} %" in result.inner_text()
    assert ("Flagged as churning" if expected["churn"] else "Not flagged") in result.inner_text()
    assert page.locator("#field-monthly_fee").input_value() == "55.5"
    assert page.evaluate("document.activeElement.id") == "outcome"
    page.locator("summary").focus()
    page.keyboard.press("Enter")
    assert page.locator(".reasons .bar").last.is_visible()


def test_bars_have_the_length_and_text_of_their_contributions(stocked: Running, open_page: Open) -> None:
    customer = START
    reasons = stocked.http.post("/explain", json={"customers": [customer]}).json()["explanations"][0]["reasons"]
    page = open_page(stocked)

    with page.expect_navigation():
        page.get_by_role("button", name="Score").click()

    rows = page.locator(".reasons li")
    assert rows.count() == len(reasons)
    for row, reason in zip(rows.all(), reasons, strict=True):
        bar, given = row.locator(".bar"), reason["contribution"]
        share = abs(given / reasons[0]["contribution"])
        assert float(str(bar.get_attribute("width"))) == pytest.approx(max(100 * share, 0.5), abs=0.01)
        assert (float(str(bar.get_attribute("x"))) >= 100) == (given >= 0)
        text = str(row.text_content())
        assert ("raises" if given >= 0 else "lowers") in text
        assert f"{abs(given):.2f}" in text
        assert reason["text"].partition(": ")[2] in text


def test_a_known_customer_is_looked_up_and_fills_the_form(stocked: Running, open_page: Open) -> None:
    known = customers(CUSTOMERS)[7]
    page = open_page(stocked)

    page.get_by_label("Customer identifier").fill(known["customer_id"])
    with page.expect_navigation():
        page.keyboard.press("Enter")

    expected = stocked.http.post("/predict/by-id", json={"customer_ids": [known["customer_id"]]}).json()["predictions"][0]
    assert page.locator("#result-heading").inner_text() == f"Result for {known['customer_id']}"
    assert f"{100 * expected['churn_probability']:.1f} %" in page.locator(".result").inner_text()
    assert float(page.locator("#field-monthly_fee").input_value()) == known["monthly_fee"]
    assert page.locator("#field-commitment").input_value() == known["commitment"]
    with page.expect_navigation():
        page.get_by_role("button", name="Score").click()
    assert f"{100 * expected['churn_probability']:.1f} %" in page.locator(".result").inner_text()


def test_an_unknown_customer_is_named_beside_the_form(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked, refused=True)

    page.get_by_label("Customer identifier").fill("<b>nobody</b>")
    with page.expect_navigation() as navigation:
        page.keyboard.press("Enter")

    assert navigation.value.status == 404
    assert "unknown customers: <b>nobody</b>" in page.get_by_role("alert").inner_text()
    assert page.get_by_label("Customer identifier").input_value() == "<b>nobody</b>"


def test_contradicting_columns_are_refused_with_the_contract_rule(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked, refused=True)

    page.locator("#field-has_locker").select_option("false")
    page.locator("#field-second_locker").select_option("Yes")
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Score").click()

    assert navigation.value.status == 422
    rule = next(each.description for each in RULES if each.name == "no_locker_no_second")
    assert rule in page.get_by_role("alert").inner_text()
    assert page.locator("#field-second_locker").input_value() == "Yes"


def test_a_value_out_of_range_is_marked_at_its_field(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked, refused=True)
    page.evaluate("document.querySelectorAll('form').forEach(form => form.noValidate = true)")

    page.locator("#field-member_months").fill("721")
    with page.expect_navigation() as navigation:
        page.keyboard.press("Enter")

    assert navigation.value.status == 422
    assert "member_months" in page.get_by_role("alert").inner_text()
    assert "less than or equal to 720" in page.locator("#field-member_months-wrong").inner_text()
    assert page.locator("#field-member_months").get_attribute("aria-invalid") == "true"


def test_bad_fields_are_refused_with_their_name(stocked: Running) -> None:
    refusals = [
        ({"member_months": "twelve"}, "member_months: Input should be a valid integer"),
        ({"member_months": "1.5"}, "member_months: Input should be a valid integer"),
        ({"member_months": ""}, "member_months: Field required"),
        ({"monthly_fee": "nan"}, "monthly_fee: Input should be a valid number"),
        ({"commitment": "Weekly"}, "commitment: Input should be"),
        ({"has_locker": "1"}, "has_locker: Input should be a valid boolean"),
        ({"favourite_colour": "blue"}, "favourite_colour: Extra inputs are not permitted"),
    ]
    assert _post(stocked, "/page/score", _form()).status_code == 200

    for change, words in refusals:
        answer = _post(stocked, "/page/score", _form(**change))

        assert answer.status_code == 422
        assert answer.headers["content-type"].startswith("text/html")
        assert words in answer.text


def test_a_body_that_is_not_a_form_is_refused(stocked: Running) -> None:
    bodies = [b"\xff\xfe", b"&".join(b"a=%d" % number for number in range(1000)), b"", b'{"customers": []}']

    assert [stocked.http.post("/page/score", content=each).status_code for each in bodies] == [422] * 4
    assert [stocked.http.post("/page/customer", content=each).status_code for each in bodies] == [422] * 4


def test_an_unreachable_online_store_is_reported_and_the_form_still_scores(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(online_store="redis://127.0.0.1:1").ready()

    answer = _post(server, "/page/customer", {"customer_id": "someone"})

    assert answer.status_code == 503
    assert 'role="alert"' in answer.text
    assert answer.headers["retry-after"] == "1"
    assert _post(server, "/page/score", _form()).status_code == 200


def test_the_page_reports_a_missing_version(serve: Serve, open_page: Open) -> None:
    server = serve().alive()
    server.wait(lambda: "there is no production version" in server.http.get("/").text)

    page = open_page(server, refused=True)

    assert "No version is ready" in page.locator(".version").inner_text()
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Score").click()
    assert navigation.value.status == 503
    assert "no model version is ready" in page.get_by_role("alert").inner_text()


def test_the_page_shows_a_pinned_version(releases: Releases, serve: Serve, tmp_path: Path) -> None:
    releases.release()
    served = serve().ready()
    assert "Follows the registry" in served.http.get("/").text

    name = json.loads((tmp_path / "models" / "good.json").read_text())["names"][0]
    (tmp_path / "models" / "pinned.json").write_text(json.dumps({"names": [name]}))

    assert "Pinned: rolled back on this server" in served.http.get("/").text


def test_every_control_has_a_label_with_the_contract_description(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked)

    for each in RAW_FEATURES:
        assert each.description in str(page.locator(f"#field-{each.name}").evaluate("control => control.labels[0].textContent"))
    unlabelled = "() => [...document.querySelectorAll('input, select')].filter(each => each.labels.length != 1).length"
    assert page.evaluate(unlabelled) == 0


def test_every_control_has_keyboard_focus_in_order_with_a_visible_outline(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked)
    expected = page.evaluate("() => [...document.querySelectorAll('a, input, select, button')].map(each => each.outerHTML)")

    reached = []
    for _ in expected:
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.outerHTML"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"

    assert reached == expected
    assert 'class="skip"' in reached[0]


def test_the_page_fits_a_phone_and_scrolls_to_the_result(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked, size=NARROW)
    too_wide = "document.documentElement.scrollWidth > innerWidth"
    assert not page.evaluate(too_wide)

    with page.expect_navigation():
        page.get_by_role("button", name="Score").click()

    assert not page.evaluate(too_wide)
    page.wait_for_function("() => { const { top } = outcome.getBoundingClientRect(); return top >= 0 && top < innerHeight / 2 }")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_have_sufficient_contrast(stocked: Running, open_page: Open, scheme: Literal["light", "dark"]) -> None:
    page = open_page(stocked)
    page.emulate_media(color_scheme=scheme)
    with page.expect_navigation():
        page.get_by_role("button", name="Score").click()

    pairs = page.evaluate(
        """() => {
            const ground = each => {
                const own = getComputedStyle(each).backgroundColor;
                return own != 'rgba(0, 0, 0, 0)' || !each.parentElement ? own : ground(each.parentElement);
            };
            const hasText = each => [...each.childNodes].some(node => node.nodeType == 3 && node.textContent.trim());
            const texts = [...document.querySelectorAll('body *')].filter(hasText);
            return texts.map(each => [each.className, getComputedStyle(each).color, ground(each)]);
        }"""
    )

    assert len(pairs) > 100
    # Source: WCAG 2.2, 1.4.3: 4.5 : 1.
    assert {each[0]: _contrast(each[1], each[2]) for each in pairs if _contrast(each[1], each[2]) < 4.5} == {}


def _contrast(one: str, other: str) -> float:
    """Source: WCAG 2.2, contrast ratio and relative luminance."""
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: str) -> float:
    shares = [int(each) / 255 for each in re.findall(r"\d+", colour)[:3]]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in shares]
    return sum(weight * each for weight, each in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_the_documentation_renders_without_other_servers(stocked: Running, open_page: Open) -> None:
    page = open_page(stocked)

    with page.expect_navigation():
        page.get_by_role("link", name="API documentation").click()

    page.wait_for_selector(".opblock")
    assert page.get_by_text("Score customers by their attributes").is_visible()
    page.locator(".opblock-summary-control", has_text="Alive: ").click()
    page.get_by_role("button", name="Try it out").click()
    page.get_by_role("button", name="Execute").click()
    page.wait_for_selector(".live-responses-table")


def test_the_content_security_policy_allows_no_unsafe_source(stocked: Running) -> None:
    for path in ("/", "/docs"):
        given = stocked.http.get(path).headers["content-security-policy"]

        assert "unsafe" not in given
        assert "default-src 'none'" in given
        assert "frame-ancestors 'none'" in given
    assert "/page/score" not in stocked.http.get("/openapi.json").json()["paths"]


def test_a_get_of_a_form_url_redirects_to_the_page(stocked: Running) -> None:
    answer = stocked.http.get("/page/score")

    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_the_page_accepts_the_key_as_a_basic_auth_password(releases: Releases, serve: Serve, browser: Browser) -> None:
    releases.release()
    server = serve(api_keys=hashlib.sha256(b"secret").hexdigest()).ready()
    refused = server.http.get("/")
    assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")

    context = browser.new_context(http_credentials={"username": "any", "password": "secret"})
    page = context.new_page()
    page.goto(server.url)
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Score").click()
    found = page.locator(".result").inner_text()
    context.close()

    assert navigation.value.status == 200
    assert "probability of churning" in found


def test_the_form_starts_with_a_valid_customer() -> None:
    columns = columns_of([START])

    assert [each.name for each in RULES if not each.holds(columns).all()] == []


def test_every_metric_on_the_page_comes_from_the_evaluation() -> None:
    measured = json.loads((ROOT / "metrics" / "evaluate.json").read_text())["test"]

    assert [name for name, *_ in FIGURES if name.removeprefix("test.") not in measured] == []
