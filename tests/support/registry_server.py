"""MLflow's REST API over a test's registry, as far as a server reads it: its artifacts can drip."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from http_server import ReceivedRequest, Reply
from served import Releases

ARTIFACT = re.compile(r"/api/2\.0/mlflow-artifacts/artifacts/(\d+)/artifacts/candidate/(.+)")
DRIP_S = 0.5


@dataclass
class RegistryServer:
    """Answers for an `HttpServer`. The files of the versions in `dripping` come a byte every half second."""

    releases: Releases
    dripping: set[str] = field(default_factory=set)

    def __call__(self, request: ReceivedRequest) -> Reply:
        """The answer to a request."""
        address = urlsplit(request.path)
        query = {name: values[0] for name, values in parse_qs(address.query).items()}
        if found := ARTIFACT.fullmatch(unquote(address.path)):
            return self._artifact(*found.groups())
        if address.path.endswith("/get-download-uri"):
            return Reply.json(200, {"artifact_uri": f"mlflow-artifacts:/{query['version']}"})
        if address.path.endswith("/registered-models/alias"):
            return self._alias(query["alias"])
        return Reply.json(404, {"error_code": "ENDPOINT_NOT_FOUND"})

    def _alias(self, alias: str) -> Reply:
        from mlflow.exceptions import MlflowException

        try:
            found = self.releases.client.get_model_version_by_alias("churn", alias)
        except MlflowException:
            return Reply.json(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
        version = {
            "version": found.version,
            "creation_timestamp": found.creation_timestamp,
            "tags": [{"key": key, "value": value} for key, value in found.tags.items()],
        }
        return Reply.json(200, {"model_version": version})

    def _artifact(self, number: str, name: str) -> Reply:
        path = Path(self.releases.client.get_model_version("churn", number).source) / "artifacts" / "candidate" / name
        if not path.is_file():
            return Reply.json(404, {"error_code": "RESOURCE_DOES_NOT_EXIST"})
        return Reply(200, path.read_bytes(), drip_s=DRIP_S if number in self.dripping else 0)
