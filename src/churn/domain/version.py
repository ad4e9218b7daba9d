"""A registered version of the model."""

import json
from dataclasses import dataclass
from datetime import datetime

DIGEST_TAG = "bundle_sha256"
"""The tag with the digest of the version's bundle."""


@dataclass(frozen=True)
class Version:
    """A registered version: its number, when it was made (UTC), its tags, its run's metrics, and where its files are.

    MLflow's own client does not return `location`; a read without MLflow returns neither `aliases` nor `run_id`.
    """

    number: str
    created_at: datetime
    tags: dict[str, str]
    metrics: dict[str, float]
    location: str = ""
    aliases: tuple[str, ...] = ()
    run_id: str = ""

    @property
    def digest(self) -> str:
        """The digest of its bundle; empty where it was registered before bundles had one."""
        return self.tags.get(DIGEST_TAG, "")

    @property
    def onnx_digest(self) -> str:
        """SHA-256 of its ONNX model: the same model fitted twice has the same."""
        return self.tags.get("onnx_sha256", "")

    @property
    def newest_row(self) -> datetime | None:
        """The time (UTC) of the newest row of its workspace, learned from or kept aside.

        None where that is not known: without the tag, or where the tag is later than the version itself, which no row with a
        final label is.
        """
        noted = self.tags.get("newest_row")
        newest = datetime.fromisoformat(noted) if noted else None
        return newest if newest and newest <= self.created_at else None

    def as_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps({**vars(self), "created_at": self.created_at.isoformat()}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Version":
        """What `as_json` wrote."""
        values = json.loads(text)
        aliases = tuple(values.pop("aliases", ()))
        return cls(**{**values, "created_at": datetime.fromisoformat(values["created_at"]), "aliases": aliases})
