"""Why a request is refused: each with its status, a word for a metric's label, and a line for the client without personal data.

Problem
├── Invalid          422  the body is not what the contract asks for
├── Contradiction    422  two columns of a row exclude each other
├── TooLarge         413  body or number of rows
├── Unauthorized     401  no key, or a wrong one
├── Forbidden        403  a key without the right that the route needs
├── QuotaExceeded    429  more outcomes than a key may report in an hour
├── NotFound         404  unknown customers, or features that are too old
├── Unsupported      415  a content type that the route does not take
├── Busy             503  shed, or past its deadline
├── StoreDown        503  the online store is out of reach or too slow
├── NoModel          503  no version is ready
└── LogDown          503  an outcome could not be kept
"""


class Gone(Exception):  # noqa: N818 - no error, and nobody is told
    """The client went away before its answer."""


class Problem(Exception):  # noqa: N818 - the word of HTTP's problem details
    """A request that is refused."""

    status = 500
    reason = "problem"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Invalid(Problem):
    """The body is not what the contract asks for."""

    status, reason = 422, "invalid"


class Contradiction(Invalid):
    """Two columns of a row exclude each other."""

    def __init__(self, row: int, name: str, rule: str) -> None:
        super().__init__(f"customers[{row}]: {name}: {rule}; correct the row")


class TooLarge(Problem):
    """Body or number of rows."""

    status, reason = 413, "too_large"


class Unauthorized(Problem):
    """No key, or a wrong one."""

    status, reason = 401, "unauthorized"
    headers = ((b"www-authenticate", b'Basic realm="churn", charset="UTF-8"'),)


class Forbidden(Problem):
    """A key without the right that the route needs."""

    status, reason = 403, "forbidden"


class QuotaExceeded(Problem):
    """More outcomes than a key may report in an hour; `wait_s` is the time to wait."""

    status, reason = 429, "quota"

    def __init__(self, detail: str, wait_s: int) -> None:
        super().__init__(detail)
        self.headers = ((b"retry-after", str(wait_s).encode()),)


class NotFound(Problem):
    """Nothing is known of what was asked for."""

    status, reason = 404, "not_found"


class Unsupported(Problem):
    """A content type that the route does not take."""

    status, reason = 415, "unsupported"


class Unavailable(Problem):
    """Not now."""

    status, reason = 503, "unavailable"
    headers = ((b"retry-after", b"1"),)


class Busy(Unavailable):
    """Shed, or past its deadline."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class StoreDown(Unavailable):
    """The online store is out of reach or too slow."""

    reason = "online_store"


class NoModel(Unavailable):
    """No version is ready."""

    reason = "no_model"

    def __init__(self, detail: str = "no model version is ready; see /readyz") -> None:
        super().__init__(detail)


class LogDown(Unavailable):
    """An outcome could not be kept."""

    reason = "event_log"
