"""Access to the API: what a key may do, how CHURN_API_KEYS says it, and the path below which a proxy offers the API."""

import re
from enum import StrEnum
from hashlib import sha256

EXAMPLE = "make a digest with `printf %s KEY | sha256sum`, and name its rights as DIGEST:predict+outcomes"
EMPTY = sha256(b"").hexdigest()
MAX_ROOT_PATH = 200
_DIGEST = re.compile(r"[0-9a-f]{64}")
_ROOT_PATH = re.compile(r"(/(?!\.{1,2}(/|$))[A-Za-z0-9._~-]+)*")


class Right(StrEnum):
    """What a key may do besides reading what the server says about itself."""

    PREDICT = "predict"
    """Score and explain customers, on every protocol and on the page."""
    OUTCOMES = "outcomes"
    """Report outcomes, from which labels of training rows are made."""
    ADMIN = "admin"
    """Make the server poll the registry."""


DEFAULT = frozenset({Right.PREDICT})
"""The rights of a key that names none."""


def parse_keys(text: str) -> dict[str, frozenset[Right]]:
    """The rights of each key by its SHA-256 digest in hexadecimal: `DIGEST,DIGEST:outcomes,DIGEST:predict+outcomes`.

    Raises:
        ValueError: it is not of that form, a right is unknown, or a digest is there twice. The message has no digest in it.
    """
    keys: dict[str, frozenset[Right]] = {}
    for entry in filter(None, text.split(",")):
        digest, colon, names = entry.partition(":")
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"not SHA-256 digests in hexadecimal, separated by commas; {EXAMPLE}")
        if digest == EMPTY:
            raise ValueError(f"the digest of an empty key, as of a variable that is not set; {EXAMPLE}")
        if digest in keys:
            raise ValueError("a digest is there twice; join its rights with +")
        rights = names.split("+") if colon else [*DEFAULT]
        if unknown := [name for name in rights if name not in [*Right]]:
            raise ValueError(f"expected the rights {', '.join(Right)}, joined by +, got {unknown[0][:20]!r}")
        keys[digest] = frozenset(map(Right, rights))
    return keys


def is_root_path(text: str) -> bool:
    """Whether it is empty or a path such as `/churn`: unreserved characters alone, no empty segment, no `.` or `..`."""
    return len(text) <= MAX_ROOT_PATH and bool(_ROOT_PATH.fullmatch(text))
