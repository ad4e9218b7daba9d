"""Checks the head of a request while it is parsed: its size, and what proxies could read in two ways."""

from typing import Any

from serving.answers import Headers
from serving.http.connections import Limits
from serving.problems import BadRequest, ExpectationFailed, HeadTooLarge, NotOffered, TargetTooLong, WrongVersion

END_OF_HEAD = b"\r\n\r\n"
HOP = frozenset({b"upgrade", b"http2-settings"})
"""What asks for another protocol on this connection."""


def target_too_long(limits: Limits) -> TargetTooLong:
    """The refusal of a target that is."""
    return TargetTooLong(f"the target is longer than {limits.target_bytes} bytes; send what is long in a body")


def too_large(limits: Limits) -> HeadTooLarge:
    """The refusal of a head with too much in it."""
    return HeadTooLarge(f"more than {limits.fields} header fields or {limits.head_bytes} bytes of them; send fewer")


def check_head(headers: Headers, version: str, limits: Limits) -> bool:
    """Whether the client waits for `100 Continue`. llhttp checks `content-length`, the middleware the credentials.

    Raises:
        Problem: there are too many fields, or proxies could read them in two ways.
    """
    names = [name for name, _ in headers]
    if len(names) > limits.fields:
        raise too_large(limits)
    if version not in {"1.1", "1.0"}:
        raise WrongVersion(f"expected HTTP/1.1, got HTTP/{version}; send HTTP/1.1")
    if (hosts := names.count(b"host")) != 1 and (hosts or version == "1.1"):
        raise BadRequest(f"expected one Host header, got {hosts}; send one")
    if names.count(b"content-type") > 1:
        raise BadRequest("expected one Content-Type header, got several; send one")
    if b"transfer-encoding" in names:
        _check_coding([value for name, value in headers if name == b"transfer-encoding"], version)
    if b"expect" not in names:
        return False
    if any(name == b"expect" and value.lower() != b"100-continue" for name, value in headers):
        raise ExpectationFailed("expected no Expect but 100-continue; leave it out")
    return version == "1.1"


def _check_coding(codings: list[bytes], version: str) -> None:
    if version == "1.0":
        raise BadRequest("Transfer-Encoding is not part of HTTP/1.0; send Content-Length")
    if [coding.lower() for coding in codings] != [b"chunked"]:
        raise NotOffered("expected Transfer-Encoding: chunked and no other; send it so, or with Content-Length")


def end_of_piece(data: bytes, start: int, most: int) -> int:
    """Where a piece of at most `most` bytes ends: after a head that another may follow, so that few requests begin in it."""
    stop = min(start + most, len(data))
    # Few bodies have a CR, and one byte is found a hundred times faster than four.
    if data.find(b"\r", start, stop) >= 0:
        end = data.find(END_OF_HEAD, start, stop)
        if end >= 0 and data.find(b"\r", end + len(END_OF_HEAD), stop) >= 0:
            return end + len(END_OF_HEAD)
    return stop


def origin_form(url: bytes, method: bytes) -> bytes:
    """The path and query of a target that names the server too; the `*` of OPTIONS as it is.

    Raises:
        BadRequest: it is neither.
    """
    if url == b"*" and method == b"OPTIONS":
        return url
    scheme, separator, rest = url.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        raise BadRequest("expected a target like /path; correct the request line")
    authority = rest.partition(b"/")[0].partition(b"?")[0].partition(b"#")[0]
    target = rest[len(authority) :]
    return target if target.startswith(b"/") else b"/" + target


def check_upgrade(method: bytes, headers: Headers) -> None:
    """Let a wish for another protocol pass that may be ignored.

    Raises:
        Problem: nothing but that protocol would do.
    """
    if method == b"CONNECT":
        raise NotOffered("this is no proxy; send the request without CONNECT")
    if any(name == b"upgrade" and b"websocket" in value.lower() for name, value in headers):
        raise BadRequest("there are no WebSockets here; send plain requests")


def without_upgrade(parser: Any, url: bytes, headers: Headers) -> bytes:
    """The head of a request without its wish for another protocol."""
    head = [b"%b %b HTTP/%b" % (parser.get_method(), url, parser.get_http_version().encode())]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip() for token in value.split(b",")]
            head.append(b"connection: " + b", ".join(token for token in tokens if token.lower() not in HOP))
        elif name not in HOP:
            head.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*head, b"", b""])
