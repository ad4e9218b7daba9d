"""The watcher's pages, metrics and commands, as processes and in a browser."""

import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import httpx2
import pytest
from playwright.sync_api import Browser, Page
from prometheus_client import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.parser import text_string_to_metric_families

from chromium import chromium
from churn.errors import ConfigError
from monitoring import metrics
from monitoring.reports import PROJECT
from monitoring.site import serve
from watching import HOUR, NOON, Origin, Workspace, dearer, process, wait_until

pytestmark = pytest.mark.slow

KEPT = 3


@pytest.fixture(scope="module")
def reported(origin: Origin, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Two checks of two windows each: four reports, of which the newest three are kept."""
    workspace = Workspace.made(tmp_path_factory.mktemp("reported"), origin, kept_reports=KEPT)
    workspace.predict(NOON - 2 * HOUR, NOON, 1200)
    workspace.predict(NOON, NOON + HOUR, 600, change=dearer, seed=1)
    for at in (NOON, NOON + HOUR):
        workspace.check(at)
    return workspace


@pytest.fixture(scope="module")
def site(reported: Workspace) -> Iterator[httpx2.Client]:
    with serve(reported.settings) as address, httpx2.Client(base_url=address) as client:
        wait_until(lambda: answers(client))
        yield client


def answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/healthz").status_code == 200
    except httpx2.TransportError:
        return False


@pytest.fixture
def quiet(origin: Origin, tmp_path: Path) -> Workspace:
    """A workspace without predictions."""
    return Workspace.made(tmp_path, origin)


def test_the_health_check_succeeds(site: httpx2.Client) -> None:
    answer = site.get("/healthz")

    assert (answer.status_code, answer.text) == (200, "alive\n")


def test_the_page_lists_the_newest_reports_first(site: httpx2.Client) -> None:
    ends = re.findall(r"<tr><td>(\w+)</td><td>(\w+)</td><td>(\w+)</td>", site.get("/").text)

    assert ends == [
        ("20260302T130000Z", "v1", "short"),
        ("20260302T130000Z", "v1", "long"),
        ("20260302T120000Z", "v1", "short"),
    ]


def test_a_file_that_is_not_a_report_is_not_listed(site: httpx2.Client, reported: Workspace) -> None:
    stray = reported.settings.reports / "notes.html"
    stray.write_text("mine")

    try:
        page = site.get("/")
    finally:
        stray.unlink()

    assert page.status_code == 200
    assert "notes" not in page.text


def test_every_link_of_the_page_works(site: httpx2.Client) -> None:
    links = re.findall(r'href="([^"]+)"', site.get("/").text)

    assert len(links) == 1 + 2 * KEPT
    assert [site.get(f"/{each}").status_code for each in links] == [200] * len(links)


def test_the_page_without_reports_shows_none_yet(quiet: Workspace) -> None:
    with serve(quiet.settings) as address, httpx2.Client(base_url=address) as client:
        wait_until(lambda: answers(client))

        assert "none yet" in client.get("/").text


def test_files_that_are_not_reports_are_not_served(site: httpx2.Client, reported: Workspace) -> None:
    assert (reported.folder / "mlflow.db").exists()

    for path in ("/reports/..%2f..%2fmlflow.db", "/reports/%2e%2e/%2e%2e/mlflow.db", "/mlflow.db"):
        assert site.get(path).status_code == 404


def test_every_metric_is_exported(site: httpx2.Client) -> None:
    found = {each.name: each for each in text_string_to_metric_families(site.get("/metrics").text)}

    declared = [family for each in vars(metrics).values() if isinstance(each, MetricWrapperBase) for family in described(each)]
    assert len(declared) > 20
    assert [(each.name, each.type) for each in declared if each.name not in found] == []
    assert [found[each.name].type for each in declared] == [each.type for each in declared]


def described(metric: MetricWrapperBase) -> list[Metric]:
    return list(metric.describe())


def test_the_oldest_reports_are_deleted(reported: Workspace) -> None:
    reports = reported.folder / "monitoring" / "reports"

    for kind in ("html", "json", "run"):
        assert len([*reports.glob(f"*.{kind}")]) == KEPT
    assert not [*reports.glob("20260302T120000Z-v1-long.*")]


def test_the_evidently_workspace_has_the_kept_runs(reported: Workspace) -> None:
    from evidently.ui.workspace import Workspace as Evidently

    workspace = Evidently(str(reported.folder / "monitoring" / "reports" / "workspace"))

    project = next(each for each in workspace.list_projects() if each.name == PROJECT)
    runs = workspace.list_runs(project.id)
    assert len(runs) == KEPT
    ends = {workspace.get_run(project.id, each).metadata["end"] for each in runs}
    assert ends == {NOON.isoformat(), (NOON + HOUR).isoformat()}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as found:
        yield found


@pytest.fixture
def page(browser: Browser, site: httpx2.Client) -> Iterator[Page]:
    """A page that sends no request to another host."""
    page, requested = browser.new_page(), list[str]()
    page.on("request", lambda request: requested.append(request.url))
    yield page
    page.close()
    assert [each for each in requested if not each.startswith((str(site.base_url), "data:", "blob:"))] == []


def test_a_report_linked_from_the_page_shows_the_drifted_features(page: Page, site: httpx2.Client) -> None:
    page.goto(f"{site.base_url}")

    page.locator("a", has_text="HTML").first.click()

    page.get_by_text("monthly_fee").first.wait_for()
    assert page.get_by_text("PSI").count() > 0


def test_a_port_in_use_is_an_error_in_one_line(quiet: Workspace) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = process(quiet.but(monitor_port=port), "-m", "monitoring")
        _, output = done.communicate()

    assert done.returncode == 1
    assert output == f"monitoring: port {port} on 127.0.0.1 is in use: set CHURN_MONITOR_PORT\n"


def test_a_check_prints_its_decision(quiet: Workspace) -> None:
    done = process(quiet, "-m", "monitoring", "check")
    output, log = done.communicate()

    assert done.returncode == 0, log
    assert output.startswith("insufficient data: short: 0 rows, 300 are needed;")
    assert len(output.splitlines()) == len(quiet.checks()) == 1


def test_a_check_without_a_registry_is_an_error_in_one_line(quiet: Workspace) -> None:
    (quiet.folder / "mlflow.db").unlink()

    done = process(quiet, "-m", "monitoring", "check")
    _, output = done.communicate()

    assert done.returncode == 1
    assert len(output.splitlines()) == 1
    assert output.startswith("monitoring: model registry sqlite:///")


def test_a_reset_is_recorded(quiet: Workspace) -> None:
    done = process(quiet, "-m", "monitoring", "reset")
    output, log = done.communicate()

    assert (done.returncode, output) == (0, "the circuit is closed\n"), log
    assert [each["kind"] for each in quiet.retrainings()] == ["reset"]


@pytest.fixture
def watching(quiet: Workspace) -> Iterator[tuple["Popen[str]", str]]:
    """A watcher's process and its address."""
    log = quiet.folder / "watcher.log"
    with log.open("w") as out:
        running = process(quiet, "-m", "monitoring", stdout=out, stderr=out)
    found = wait_until(lambda: re.search(r"http://\S+", log.read_text()) or running.poll() is not None)
    assert isinstance(found, re.Match), log.read_text()
    yield running, found[0]
    running.kill()
    running.communicate()


def test_the_watcher_runs_checks_and_serves_their_results(watching: tuple["Popen[str]", str], quiet: Workspace) -> None:
    _, address = watching

    with httpx2.Client(base_url=address) as client:
        wait_until(lambda: 'churn_monitor_checks_total{result="done"} 1.0' in client.get("/metrics").text)

    assert [each["decision"] for each in quiet.checks()] == ["insufficient data"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_watcher_exits_with_0_on_a_signal(watching: tuple["Popen[str]", str], number: int) -> None:
    running, address = watching
    with httpx2.Client(base_url=address) as client:
        wait_until(lambda: answers(client))

    running.send_signal(number)

    assert running.wait(60) == 0


def test_an_address_of_another_host_is_an_error(quiet: Workspace) -> None:
    settings = quiet.but(monitor_host="192.0.2.1").settings

    with pytest.raises(ConfigError, match=r"on 192\.0\.2\.1 .*; correct the address"), serve(settings):
        pass
