"""Requests to those who retrain: a time limit, a few attempts, and no secret in any message."""

import json
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import requests

from churn.errors import MonitorError

TIMEOUT_S = 10.0
"""How long to wait for a connection, and for an answer."""
ATTEMPTS = 3
WAIT_S = 1.0
"""Before the second attempt, and twice that before the third."""
SHOWN = 300
"""Characters of an answer in a message."""


@dataclass(frozen=True)
class Answer:
    """What came back, with the token masked: a server may repeat what was sent."""

    url: str
    status: int
    text: str

    def __str__(self) -> str:
        text = " ".join(self.text.split())[:SHOWN]
        return f"{self.url}: answered {self.status}{text and f': {text}'}"

    def json(self) -> dict[str, Any]:
        """The object that it holds.

        Raises:
            MonitorError: it does not.
        """
        try:
            return dict(json.loads(self.text))
        except (ValueError, TypeError):
            raise MonitorError(f"{self}; that is not a JSON object: check the address") from None


def ask(
    method: str,
    url: str,
    body: Mapping[str, Any] | None = None,
    *,
    token: str = "",
    headers: Mapping[str, str] | None = None,
    authority: str | bool = True,
) -> Answer:
    """Send a request, without following redirects; what is below 500 is an answer.

    It is sent up to `ATTEMPTS` times if the server is out of reach or fails, and once if it takes the request and says nothing:
    it may be at work on it.

    Raises:
        MonitorError: there is no answer, or the token does not fit into a header.
        ValueError: the body is not JSON.
    """
    shown = re.sub(r"://[^/@]*@", "://", url).partition("?")[0]
    if not (token.isascii() and token.isprintable()):
        raise MonitorError(f"{shown}: the token has characters that a header does not take; correct the secret")
    content = json.dumps(body, allow_nan=False) if body is not None else None
    failure = ""
    for attempt in range(ATTEMPTS):
        time.sleep(attempt * WAIT_S)
        # No error is chained: the libraries' own messages have the whole address, which may hold a secret.
        try:
            response = requests.request(
                method,
                url,
                data=content,
                headers={"Content-Type": "application/json", **(headers or {})},
                auth=_bearer(token) if token else None,
                timeout=TIMEOUT_S,
                allow_redirects=False,
                verify=authority,
            )
        except requests.ConnectionError as error:
            failure = f"{shown}: out of reach: {_masked(str(_root(error)), token)}"
        except requests.Timeout:
            raise MonitorError(f"{shown}: no answer within {TIMEOUT_S:g} s; check the server") from None
        except OSError as error:  # of which requests' other errors are kinds
            raise MonitorError(f"{shown}: cannot be requested ({type(error).__name__}); check the address") from None
        else:
            answer = Answer(shown, response.status_code, _masked(response.text, token))
            if answer.status < 500:
                return answer
            failure = str(answer)
    raise MonitorError(f"{failure}; {ATTEMPTS} attempts: check the address and the server")


def _bearer(token: str) -> Callable[[requests.PreparedRequest], requests.PreparedRequest]:
    """Sets the header in a way that a ~/.netrc does not overrule."""

    def authorised(request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {token}"
        return request

    return authorised


def _masked(text: str, token: str) -> str:
    return text.replace(token, "***") if token else text


def _root(error: BaseException) -> BaseException:
    """The first of a chain of errors, which says it shortest."""
    while earlier := error.__cause__ or error.__context__:
        error = earlier
    return error
