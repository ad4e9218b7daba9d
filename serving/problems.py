"""Why a request is refused: each with its status, a word for a metric's label, and a line for the client without personal data.

Problem
├── Invalid          422  the body is not what the contract expects
├── Contradiction    422  two columns of a row exclude each other
├── TooLarge         413  body or number of rows
├── BadRequest       400  not HTTP, or HTTP that can be read in two ways
├── Unauthorized     401  no key, or a wrong one
├── Forbidden        403  a key without the right that the route needs
├── QuotaExceeded    429  more outcomes than a key may report in an hour
├── NotFound         404  unknown customers, or features that are too old
├── WrongMethod      405  a method that the route does not take
├── SlowHead         408  the head of the request took too long
├── TargetTooLong    414  path and query
├── Unsupported      415  a content type or coding that the route does not take
├── ExpectationFailed 417 an `Expect` other than 100-continue
├── HeadTooLarge     431  size or number of header fields
├── NotOffered       501  CONNECT, or a transfer coding
├── WrongVersion     505  neither HTTP/1.1 nor HTTP/1.0
├── Overloaded       503  shed, or past its deadline
├── StoreDown        503  the online store is out of reach or too slow
├── NoModel          503  no version is ready
└── LogDown          503  an outcome could not be kept
"""


class ClientDisconnected(Exception):  # noqa: N818 - no error of the server
    """The client closed its connection before its answer."""


class Problem(Exception):  # noqa: N818 - the word of HTTP's problem details
    """A request that is refused."""

    status = 500
    reason = "failed"
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail

    def text_headers(self) -> dict[str, str]:
        """The headers as the framework takes them."""
        return {name.decode(): value.decode() for name, value in self.headers}


class Invalid(Problem):
    """The body is not what the contract expects."""

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


class BadRequest(Problem):
    """Not HTTP, or HTTP that can be read in two ways."""

    status, reason = 400, "bad_request"


class NotFound(Problem):
    """There is no such customer, version or route."""

    status, reason = 404, "not_found"


class WrongMethod(Problem):
    """A method that the route does not take; `allow` is the value of the header that says which it takes."""

    status, reason = 405, "method"

    def __init__(self, allow: bytes) -> None:
        super().__init__(f"Method Not Allowed; this route takes {allow.decode()}")
        self.headers = ((b"allow", allow),)


class SlowHead(Problem):
    """The head of the request took too long."""

    status, reason = 408, "slow_head"


class TargetTooLong(Problem):
    """Path and query."""

    status, reason = 414, "target_too_long"


class Unsupported(Problem):
    """A content type or coding that the route does not take."""

    status, reason = 415, "unsupported"


class ExpectationFailed(Problem):
    """An `Expect` other than 100-continue."""

    status, reason = 417, "expectation"


class HeadTooLarge(Problem):
    """Size or number of header fields."""

    status, reason = 431, "head_too_large"


class NotOffered(Problem):
    """CONNECT, or a transfer coding."""

    status, reason = 501, "not_offered"


class WrongVersion(Problem):
    """Neither HTTP/1.1 nor HTTP/1.0."""

    status, reason = 505, "version"


class Unavailable(Problem):
    """Not now."""

    status, reason = 503, "unavailable"
    headers = ((b"retry-after", b"1"),)


class Overloaded(Unavailable):
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


FAILED = Problem("the server failed; its log says why")
