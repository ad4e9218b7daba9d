"""What every test is kept from: the environment that another file's tests left."""

import os
from collections.abc import Iterator

import pytest


@pytest.fixture(scope="module", autouse=True)
def own_mlflow_variables() -> Iterator[None]:
    """`mlflow.set_tracking_uri` sets a variable of the process, which outlives the server that it names."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_") and name not in before]:
        del os.environ[name]
    os.environ.update(before)
