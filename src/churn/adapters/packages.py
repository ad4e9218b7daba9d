"""Packages of an optional dependency group."""

from importlib import import_module

from churn.errors import ConfigError


def require(group: str, *modules: str) -> None:
    """Import modules that the group installs.

    Raises:
        ConfigError: one of them is not installed.
    """
    for module in modules:
        try:
            import_module(module)
        except ModuleNotFoundError as error:
            raise ConfigError(f"expected the package {module}, which is not installed: uv sync --group {group}") from error
