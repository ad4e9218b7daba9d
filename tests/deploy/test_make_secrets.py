"""The first start of the stack makes random secrets, each in the files of the services that need it."""

import hashlib
import importlib.util
import json
import stat
from configparser import ConfigParser
from pathlib import Path
from types import ModuleType

import pytest

from churn.domain.access import parse_keys

ROOT = Path(__file__).parents[2]


@pytest.fixture
def maker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script over a folder of its own, in an environment that gives nothing."""
    spec = importlib.util.spec_from_file_location("make_secrets", ROOT / "ops/make_secrets.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "KEPT", tmp_path / "all")
    monkeypatch.setattr(module.os, "chown", lambda *arguments: None)
    for name in module.NAMES:
        monkeypatch.delenv(name, raising=False)
    return module


def test_secrets_are_long_and_unique(maker: ModuleType) -> None:
    made = maker.make()

    assert set(made) == set(maker.NAMES)
    assert len(set(made.values())) == len(made)
    assert all(len(each) >= 32 for each in made.values())


def test_a_second_run_keeps_the_secrets(maker: ModuleType) -> None:
    first = maker.make()

    assert maker.make() == first


def test_an_environment_variable_overrides_a_secret(maker: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    maker.make()
    monkeypatch.setenv("API_KEY", "of my own")

    assert maker.make()["API_KEY"] == "of my own"


def test_secret_files_are_readable_by_their_owner_only(maker: ModuleType, tmp_path: Path) -> None:
    maker.hand_out(maker.make())

    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    readable = [path for path in files if stat.S_IMODE(path.stat().st_mode) != 0o400]
    assert {path.relative_to(tmp_path).parts[0] for path in readable} == {"postgres", "valkey", "object-store", "grafana"}


def test_every_secret_file_of_the_settings_is_written(maker: ModuleType, tmp_path: Path) -> None:
    import yaml

    maker.hand_out(maker.make())

    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
    for name, service in services.items():
        mounted = [each.split(":")[0] for each in service.get("volumes", []) if each.endswith("-secrets:/run/secrets:ro")]
        folder = mounted[0].removesuffix("-secrets") if mounted else ""
        for value in (service.get("environment") or {}).values():
            if str(value).startswith("/run/secrets/"):
                assert (tmp_path / folder / Path(value).name).is_file(), f"{name}: {value}"


def test_special_characters_are_escaped_in_every_file(maker: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from urllib.parse import unquote, urlsplit

    odd = 'p:a\\s/s@ "w%'
    for name in ("VALKEY_PASSWORD", "POSTGRES_READER_PASSWORD", "S3_API_SECRET"):
        monkeypatch.setenv(name, odd)

    maker.hand_out(maker.make())

    assert unquote(urlsplit((tmp_path / "api/online_store").read_text()).password or "") == odd
    assert json.loads((tmp_path / "valkey/password.conf").read_text().removeprefix("requirepass ")) == odd
    assert r"*:*:*:reader:p\:a\\s/s@ \"w%".replace(r"\"", '"') in (tmp_path / "trainer/pgpass").read_text()
    (api,) = [each for each in json.loads((tmp_path / "object-store/s3.json").read_text())["identities"] if each["name"] == "api"]
    assert api["credentials"][0]["secretKey"] == odd
    credentials = ConfigParser(interpolation=None)
    credentials.read(tmp_path / "api/aws")
    assert credentials["default"]["aws_secret_access_key"] == odd


@pytest.mark.parametrize(
    ("name", "right", "users"),
    [("API_KEY", "predict", {"demo"}), ("OUTCOMES_KEY", "outcomes", {"demo"}), ("ADMIN_KEY", "admin", set())],
)
def test_the_server_gets_hashed_keys_with_one_right_each(
    name: str, right: str, users: set[str], maker: ModuleType, tmp_path: Path
) -> None:
    made = maker.make()
    maker.hand_out(made)

    keys = parse_keys((tmp_path / "api/api_keys").read_text())
    assert keys[hashlib.sha256(made[name].encode()).hexdigest()] == {right}
    assert len(keys) == 3
    holders = [path for path in tmp_path.rglob("*") if path.is_file() and made[name] in path.read_text()]
    assert {path.relative_to(tmp_path).parts[0] for path in holders} == {"all"} | users


def test_only_the_tracking_server_has_access_to_artifacts(maker: ModuleType) -> None:
    allowed = {who for who, actions in maker.GRANTS.items() if any(each.endswith(":mlflow") for each in actions)}

    assert allowed == {"mlflow"}


def test_only_the_seed_identity_is_an_s3_administrator(maker: ModuleType) -> None:
    assert {who for who, actions in maker.GRANTS.items() if "Admin" in actions} == {"seed"}


def test_the_command_prints_one_secret_or_all(
    maker: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = maker.make()

    monkeypatch.setattr(maker.sys, "argv", ["make_secrets.py", "show", "API_KEY"])
    maker.main()
    one = capsys.readouterr().out
    monkeypatch.setattr(maker.sys, "argv", ["make_secrets.py", "show"])
    maker.main()

    assert one == f"{made['API_KEY']}\n"
    assert capsys.readouterr().out.splitlines() == [f"{name}={value}" for name, value in made.items()]
