"""The server below a path, behind a proxy with TLS, and what a client can do with the header that names such a path."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Browser, Page
from starlette.testclient import TestClient

from chromium import chromium
from monitoring.site import application
from nginx import Nginx
from served import Releases, Running, Serve, customers, servers

PREFIX = "/churn"
PROXIES = {
    "strips the prefix and names it": ({}, "proxy_pass {server}/; proxy_set_header X-Forwarded-Prefix /churn;"),
    "strips the prefix": ({"root_path": PREFIX}, "proxy_pass {server}/;"),
    "keeps the prefix": ({"root_path": PREFIX}, "proxy_pass {server};"),
}
"""A proxy's habit → the server's settings, and nginx's configuration of `location /churn/`."""


@dataclass
class Proxied:
    """A server behind nginx; `url` ends with the prefix."""

    url: str
    http: httpx2.Client


@pytest.fixture(scope="module", params=list(PROXIES))
def proxied(request: pytest.FixtureRequest, released: Releases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    settings, directives = PROXIES[request.param]
    folder = tmp_path_factory.mktemp("proxied")
    with servers(released, folder) as start:
        server = start(**settings).ready()
        nginx = Nginx(folder / "nginx", f"location {PREFIX}/ {{ {directives.format(server=server.url)} }}")
        url = f"{nginx.url}{PREFIX}"
        with httpx2.Client(base_url=url, verify=False, timeout=30) as http:
            yield Proxied(url, http)
        nginx.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, proxied: Proxied) -> Iterator[Page]:
    """The page, opened; a request that leaves the prefix, or an error on the console, fails the test."""
    strays: list[str] = []
    context = browser.new_context(ignore_https_errors=True)
    opened = context.new_page()
    opened.on("request", lambda sent: None if sent.url.startswith((f"{proxied.url}/", "data:")) else strays.append(sent.url))
    opened.on("console", lambda message: strays.append(message.text))
    opened.goto(f"{proxied.url}/")
    yield opened
    context.close()
    assert strays == []


@pytest.mark.reported
def test_the_form_scores_under_a_root_path_behind_a_tls_proxy(page: Page) -> None:
    with page.expect_navigation() as navigation:
        page.get_by_role("button", name="Score").click()

    assert navigation.value.status == 200
    assert "probability of churning" in page.locator(".result").inner_text()


@pytest.mark.reported
def test_swagger_sends_a_request_under_a_root_path_behind_a_tls_proxy(page: Page, proxied: Proxied) -> None:
    with page.expect_navigation():
        page.get_by_role("link", name="API documentation").click()
    page.wait_for_selector(".opblock")
    page.locator(".opblock-summary-control", has_text="Score customers by their attributes").click()
    page.get_by_role("button", name="Try it out").click()

    with page.expect_response(f"{proxied.url}/predict") as answer:
        page.get_by_role("button", name="Execute").click()

    assert answer.value.status == 200
    assert answer.value.json()["predictions"]


@pytest.mark.reported
@pytest.mark.parametrize(
    ("path", "status", "location"),
    [
        ("/page/score", 303, "/churn/"),
        ("/docs/", 307, "/churn/docs"),
        ("/model/?a=1&b=%2F", 307, "/churn/model?a=1&b=%2F"),
        ("/v2/models/churn/", 307, "/churn/v2/models/churn"),
    ],
)
def test_redirects_stay_under_the_root_path_without_a_host(path: str, status: int, location: str, proxied: Proxied) -> None:
    answer = proxied.http.get(path)

    assert (answer.status_code, answer.headers["location"]) == (status, location)


def test_every_protocol_responds_under_the_root_path(proxied: Proxied) -> None:
    given = customers(1)

    assert proxied.http.post("/predict", json={"customers": given}).status_code == 200
    assert proxied.http.post("/invocations", json={"instances": given}).status_code == 200
    assert proxied.http.post("/explain", json={"customers": given}).status_code == 200
    assert proxied.http.get("/v2/models/churn/ready").json() == {"name": "churn", "ready": True}
    assert proxied.http.get("/openapi.json").json()["servers"] == [{"url": PREFIX}]
    assert 'route="/predict"' in proxied.http.get("/metrics").text
    assert PREFIX not in proxied.http.get("/metrics").text


@pytest.mark.parametrize(
    "prefix",
    [
        "//evil.example",
        "https://evil.example",
        "evil.example",
        "/\\evil.example",
        "/a/../b",
        "/./a",
        "/a//b",
        '/a"><script>',
        "/a b",
        "/a?b",
        "/a%2f%2fb",
        "/a, /b",
        "/\xe4",
        f"/{'a' * 1000}",
    ],
)
def test_an_invalid_forwarded_prefix_is_ignored(prefix: str, server: Running) -> None:
    headers = {b"x-forwarded-prefix": prefix.encode("latin-1"), b"host": b"evil.example"}

    answers = [server.http.get(path, headers=headers) for path in ("/page/score", "/docs/", "/", "/docs", "/openapi.json")]

    assert [each.status_code for each in answers] == [303, 307, 200, 200, 200]
    assert [each.headers["location"] for each in answers[:2]] == ["/", "/docs"]
    assert 'action="/page/score' in answers[2].text
    assert "evil" not in "".join(each.text for each in answers)
    assert "servers" not in answers[4].json()


def test_two_forwarded_prefixes_are_both_ignored(server: Running) -> None:
    headers = [("x-forwarded-prefix", "/a"), ("x-forwarded-prefix", "/b")]

    assert server.http.get("/page/score", headers=headers).headers["location"] == "/"


def test_a_forwarded_prefix_applies_to_its_request_only(server: Running) -> None:
    for prefix in ("/one", "/two"):
        answer = server.http.get("/openapi.json", headers={"x-forwarded-prefix": prefix})

        assert answer.json()["servers"] == [{"url": prefix}]
    assert "servers" not in server.http.get("/openapi.json").json()


def test_the_root_path_setting_overrides_the_header(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(root_path=PREFIX).ready()

    answers = [server.http.get(path, headers={"x-forwarded-prefix": "/other"}) for path in ("/page/score", "/churn/page/score")]

    assert [each.headers["location"] for each in answers] == ["/churn/"] * 2
    assert server.http.get("/churn").status_code == 200
    assert server.http.get("/churning").status_code == 404


def test_a_forwarded_prefix_does_not_bypass_the_key_check(releases: Releases, serve: Serve) -> None:
    releases.release()
    server = serve(api_keys=hashlib.sha256(b"key").hexdigest()).ready()

    for prefix in ("/healthz", "/metrics", "/v2/health", "/v2", "/model"):
        headers = {"x-forwarded-prefix": prefix}
        for path in ("/model", "/docs", f"{prefix}/model", "/openapi.json"):
            assert (prefix, path, server.http.get(path, headers=headers).status_code) == (prefix, path, 401)
        assert server.http.get("/healthz", headers=headers).json() == {"status": "alive"}


@pytest.mark.parametrize("value", ["churn", "/churn/", "/", "//churn", "/a/../b", "/a b", "http://host/churn"])
def test_an_invalid_root_path_is_refused(value: str, serve: Serve) -> None:
    with pytest.raises(AssertionError, match=r"CHURN_ROOT_PATH = .*expected a path such as /churn"):
        serve(root_path=value)


def test_the_watcher_pages_use_relative_links(tmp_path: Path) -> None:
    (tmp_path / "20260101T000000Z-v1-short.html").write_text("<p>a report</p>")
    client = TestClient(application(tmp_path), follow_redirects=False)

    assert 'href="reports/20260101T000000Z-v1-short.html"' in client.get("/").text
    assert 'href="metrics"' in client.get("/").text
    assert client.get("/metrics/").status_code == 404
