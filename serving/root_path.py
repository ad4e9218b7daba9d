"""The path below which a proxy offers the server, such as `/churn`: where it comes from, and what it changes.

ASGI calls it `root_path`. The pages, the OpenAPI document and redirects put it before their own paths. They never name a host or
a scheme: behind a proxy the server knows neither.
"""

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import RedirectResponse

from churn.domain.access import is_root_path

HEADER = b"x-forwarded-prefix"


def mount(scope: Any, root_path: str) -> str:
    """The path of the request without the prefix; sets `root_path` and `path` in the scope as ASGI has them.

    With a setting, `path` may come with the prefix or without: proxies differ in whether they strip it. Without one, the header
    X-Forwarded-Prefix names what the proxy has stripped. A client can send that header too. It decides only what the links in its
    own answer begin with, and what is not a plain path on this host is ignored.
    """
    path: str = scope["path"]
    if root_path:
        if path == root_path or path.startswith(f"{root_path}/"):
            path = path.removeprefix(root_path) or "/"
    else:
        root_path = _forwarded(scope["headers"])
    if root_path:
        scope["root_path"], scope["path"] = root_path, f"{root_path}{path}"
    return path


def _forwarded(headers: list[tuple[bytes, bytes]]) -> str:
    """What the one X-Forwarded-Prefix says; empty if it is not a plain path."""
    given = [value for name, value in headers if name == HEADER]
    found = given[0].decode("latin-1").rstrip("/") if len(given) == 1 else ""
    return found if is_root_path(found) else ""


def without_slash(request: Request, route_of: Callable[[str], str]) -> RedirectResponse | None:
    """A redirect to the route of this path without its last slash, if there is one. The framework's own names host and scheme."""
    root_path = request.scope.get("root_path", "")
    path = request.scope["path"].removeprefix(root_path).rstrip("/")
    if not path or request.scope["path"][-1] != "/" or route_of(path) == "other":
        return None
    query = request.scope["query_string"].decode("latin-1")
    return RedirectResponse(quote(f"{root_path}{path}") + (f"?{query}" if query else ""), 307)
