"""The workflows, beyond zizmor: timeouts and permissions; commands are Makefile targets; the watcher can start one."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from churn import paths
from monitoring.triggers.webhook import Webhook

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / ".github" / "workflows"
TEXTS = {path.stem: path.read_text() for path in sorted(FOLDER.iterdir())}
# YAML 1.1 calls `on` true.
WORKFLOWS: dict[str, dict[Any, Any]] = {name: yaml.safe_load(text) for name, text in TEXTS.items()}
JOBS = {f"{name}/{job}": found for name, each in WORKFLOWS.items() for job, found in each["jobs"].items()}
MAKEFILE = (ROOT / "Makefile").read_text()
VERBS = set(re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE))
COMMAND = re.compile(
    r"make( --silent)?(?P<verbs>( [a-z-]+)+)( [A-Z]+=[a-z]+)*( >>\"\$GITHUB_(OUTPUT|STEP_SUMMARY)\")?",
)
WRITES = {
    "cd/publish": {"packages", "id-token", "attestations"},
    "codeql/analyze": {"security-events"},
    "freshness/propose": {"contents", "pull-requests"},
    "train/comment": {"pull-requests"},
}
"""Job → its write permissions; other jobs have none."""

every_workflow = pytest.mark.parametrize("name", WORKFLOWS)
every_job = pytest.mark.parametrize("name", JOBS)
every_job_of_its_own = pytest.mark.parametrize("name", [name for name, job in JOBS.items() if "uses" not in job])


def triggers(name: str) -> dict[str, Any]:
    found: dict[str, Any] = WORKFLOWS[name][True]
    return found


def steps(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = JOBS[name].get("steps", [])
    return found


def commands() -> Iterator[tuple[str, str]]:
    """(job, command) of every step that is not an action."""
    for name in JOBS:
        yield from ((name, step["run"]) for step in steps(name) if "run" in step)


def verbs(command: str) -> list[str]:
    found = COMMAND.fullmatch(command)
    return found["verbs"].split() if found else []


def index(name: str, verb: str) -> int:
    """Where in a job a verb is run."""
    return next(at for at, step in enumerate(steps(name)) if verb in verbs(step.get("run", "")))


@every_workflow
def test_every_action_is_pinned_to_a_commit_with_its_version(name: str) -> None:
    lines = [line for line in TEXTS[name].splitlines() if re.match(r"\s*(- )?uses:", line)]
    of_others = [line for line in lines if "uses: $/.github/" not in line]

    assert lines
    assert [line for line in of_others if not re.search(r"uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$", line)] == []


def test_an_action_has_the_same_commit_in_every_workflow() -> None:
    pins = {line for text in TEXTS.values() for line in re.findall(r"uses: (\S+@\S+ # \S+)", text)}
    # Parts of one repository, as init and analyze of CodeQL, are of one release.
    repositories = {"/".join(pin.split("@")[0].split("/")[:2]) for pin in pins}

    assert len({pin.split("@")[1] for pin in pins}) == len(repositories)


@every_job
def test_a_job_has_only_the_expected_write_permissions(name: str) -> None:
    rights = JOBS[name]["permissions"]

    assert isinstance(rights, dict)
    assert {what for what, right in rights.items() if right == "write"} == WRITES.get(name, set())


@every_job_of_its_own
def test_every_job_has_a_timeout(name: str) -> None:
    assert 0 < JOBS[name]["timeout-minutes"] <= 120


@every_job_of_its_own
def test_every_job_runs_on_a_pinned_runner_release(name: str) -> None:
    assert re.fullmatch(r"ubuntu-\d\d\.04", JOBS[name]["runs-on"])


@pytest.mark.parametrize("name", ["cd", "retrain"])
def test_workflows_that_change_production_are_never_cancelled(name: str) -> None:
    assert WORKFLOWS[name]["concurrency"]["cancel-in-progress"] is False


@every_job
def test_jobs_with_secrets_use_an_environment(name: str) -> None:
    assert "secrets." not in str(JOBS[name]) or JOBS[name]["environment"] in ("production", "training", "coverage")


def test_the_comment_job_does_not_check_out_pull_request_code() -> None:
    checkout, *_ = steps("train/comment")

    assert checkout["with"]["ref"] == "${{ github.event.pull_request.base.sha }}"


def test_the_job_that_runs_upgraded_packages_has_no_write_permission() -> None:
    assert JOBS["freshness/upgrade"]["permissions"] == {"contents": "read"}
    assert "secrets" not in str(JOBS["freshness/upgrade"])
    assert not {"setup", "lint", "test", "repro"} & {
        verb for step in steps("freshness/propose") for verb in verbs(step.get("run", ""))
    }


@every_job
def test_artifacts_are_downloaded_outside_the_checkout(name: str) -> None:
    downloads = [step for step in steps(name) if step.get("uses", "").startswith("actions/download-artifact@")]

    # What ran before may have written a Makefile into it.
    assert all(step["with"].get("path", "").startswith("${{ runner.temp }}/") for step in downloads)


def test_the_upgrade_pull_request_has_data_files_and_no_code() -> None:
    upload = steps("freshness/upgrade")[-1]["with"]["path"].split()
    proposed = re.findall(r"^PROPOSED := (.*)$", MAKEFILE, re.MULTILINE)[0].split()
    tracked = subprocess.run(
        ["git", "ls-files", *proposed], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.splitlines()

    assert upload == [*proposed, "reports/report.md"]
    assert {Path(path).suffix for path in tracked} <= {".lock", ".json", ".csv", ".md", ".png"}


@pytest.mark.parametrize("name", [name for name in WORKFLOWS if "run:" in TEXTS[name]])
def test_run_steps_use_a_strict_shell(name: str) -> None:
    assert WORKFLOWS[name]["defaults"]["run"]["shell"] == "bash -euo pipefail {0}"
    assert not [step for job in WORKFLOWS[name]["jobs"].values() for step in job.get("steps", []) if "shell" in step]


@pytest.mark.parametrize(("job", "command"), commands())
def test_every_workflow_command_is_a_make_target(job: str, command: str) -> None:
    assert verbs(command), f"{job}: `{command}` is not `make VERB`"
    assert set(verbs(command)) <= VERBS


def test_the_makefile_does_not_expand_workflow_variables() -> None:
    outside = {name for job in JOBS for step in steps(job) for name in step.get("env", {})}
    outside |= {name for job in JOBS.values() for name in job.get("env", {})}
    outside |= {name for each in WORKFLOWS.values() for name in each.get("env", {})}

    # make would expand `$(…)` in a value; the shell, given `$$NAME`, does not.
    assert {name for name in outside - {"KUBECONFIG"} if re.search(rf"(?<!\$)\$\({name}\)", MAKEFILE)} == set()


def test_the_help_of_a_make_target_names_its_variables() -> None:
    taken = re.findall(r'^([a-z-]+):.*## (.*)\n(?:\t.*\n)*?\t.*"\$\$\{?([A-Z_]+)', MAKEFILE, re.MULTILINE)

    assert [(verb, name) for verb, text, name in taken if name not in text and name != "CHURN_GIT_SHA"] == []


def test_ci_runs_every_required_check() -> None:
    ran = {verb for job, command in commands() if job.startswith("ci/") for verb in verbs(command)}

    assert {
        "lint",
        "test",
        "test-all",
        "coverage",
        "repro",
        "ci-unchanged",
        "images",
        "up",
        "smoke",
        "down",
        "kind-up",
        "kind-smoke",
        "kind-test",
        "kind-drift",
    } <= ran


@pytest.mark.parametrize(("started", "log_step"), [("up", "logs"), ("kind-up", "kind-logs")])
def test_logs_are_printed_after_a_failure_before_teardown(started: str, log_step: str) -> None:
    starters = [job for job, command in commands() if started in verbs(command)]

    assert len(starters) == 2
    assert all(steps(job)[index(job, log_step)]["if"].startswith("failure()") for job in starters)
    assert all(index(job, started) < index(job, log_step) for job in starters)


def test_training_validates_runs_reports_and_registers_in_order() -> None:
    assert index("train/train", "validate") < index("train/train", "repro") < index("train/train", "report")
    assert JOBS["train/comment"]["needs"] == "train"
    assert JOBS["train/register"]["needs"] == "train"


def test_the_validation_report_is_uploaded_without_quarantined_rows() -> None:
    upload = steps("train/train")[-1]

    assert upload["if"] == "(success() || failure()) && steps.rows.outcome != 'skipped'"
    assert str(paths.VALIDATION) in upload["with"]["path"].split()
    assert str(paths.QUARANTINE) not in upload["with"]["path"], "everyone who may read a run could download customers' rows"
    # Without a status function of its own, a condition holds only after success.
    assert not re.search(r"always\(|failure\(|cancelled\(", JOBS["train/comment"]["if"])


def test_a_report_compares_with_the_previous_main_commit() -> None:
    report = steps("train/train")[index("train/train", "report")]

    # A pull request's checkout is a merge into main as it is, which the event's `base.sha` need not be.
    assert report["env"]["BASE"] == "${{ github.event_name == 'push' && github.event.before || 'HEAD^' }}"
    assert steps("train/train")[0]["with"]["fetch-depth"] == 0


def test_a_release_passes_ci_and_is_signed_before_deployment() -> None:
    assert JOBS["cd/ci"]["uses"] == "$/.github/workflows/ci.yml"
    assert JOBS["cd/publish"]["needs"] == "ci"
    assert index("cd/publish", "publish") < index("cd/publish", "sign")
    assert JOBS["cd/deploy"]["needs"] == "publish"
    assert index("cd/deploy", "verify") < index("cd/deploy", "deploy") < index("cd/deploy", "rollout")


def test_a_failed_release_is_rolled_back() -> None:
    deploy = steps("cd/deploy")[index("cd/deploy", "deploy")]
    rollback = steps("cd/deploy")[-1]

    assert verbs(rollback["run"]) == ["rollback"]
    assert rollback["if"] == f"(failure() || cancelled()) && steps.{deploy['id']}.outcome != 'skipped'"


def test_retraining_starts_on_the_watchers_dispatch_event() -> None:
    sent = Webhook("https://api.github.com/repos/someone/churn/dispatches", "github")._body("retrain-v1", {"rows": 500})

    assert triggers("retrain")["repository_dispatch"] == {"types": [sent["event_type"]]}
    assert set(re.findall(r"client_payload\.(\w+)", TEXTS["retrain"])) == set(sent["client_payload"])


def test_retraining_starts_on_a_schedule_and_manually() -> None:
    assert {"schedule", "workflow_dispatch"} <= set(triggers("retrain"))


def test_a_retraining_name_runs_once() -> None:
    assert "github.event.client_payload.name" in WORKFLOWS["retrain"]["concurrency"]["group"]
    # `make ci-has-run` looks for the name of the run.
    title = WORKFLOWS["retrain"]["run-name"]
    assert title.removeprefix("Retrain ") == WORKFLOWS["retrain"]["env"]["NAME"]
    assert '"Retrain " + env.NAME' in MAKEFILE
    assert JOBS["retrain/retrain"]["if"] == "needs.once.outputs.has_run == 'false'"


def test_registry_jobs_run_one_at_a_time() -> None:
    turns = [JOBS[name]["concurrency"] for name in ("train/register", "retrain/retrain")]

    # Without a queue, a third in the group would cancel the second.
    assert turns == [{"group": "registry", "cancel-in-progress": False, "queue": "max"}] * 2


def test_locked_dependencies_are_audited() -> None:
    assert {"pull_request", "schedule"} <= set(triggers("dependency-review"))
    assert index("dependency-review/audit", "audit")
    assert "if" not in JOBS["dependency-review/audit"]


def test_dependabot_covers_every_package_ecosystem_of_the_repository() -> None:
    kinds = {
        "uv": "uv.lock",
        "docker": "Dockerfile.*",
        "docker-compose": "docker-compose*.yml",
        "github-actions": ".github/workflows/*",
    }
    others = {"npm": "package.json", "terraform": "*.tf", "gomod": "go.mod", "helm": "Chart.yaml"}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    found = {kind for kind, pattern in (kinds | others).items() if any(Path(path).match(pattern) for path in tracked)}

    known = {each["package-ecosystem"] for each in yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]}

    assert known == found


def test_dependabot_waits_at_least_7_days() -> None:
    updates = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]

    assert all(each["cooldown"]["default-days"] >= 7 for each in updates)
