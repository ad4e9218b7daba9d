"""The limit: the same uvicorn with nothing behind it. Reads the body and answers with a file's bytes.

`BARE_ANSWERS` is a folder with an answer for every path: what our server said to the same request.
"""

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

ANSWERS = {f"/{file.stem}": file.read_bytes() for file in Path(os.environ["BARE_ANSWERS"]).glob("*.json")}


async def app(scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
    """ASGI, by hand."""
    if scope["type"] != "http":
        return
    more = True
    while more:
        more = (await receive()).get("more_body", False)
    answer = ANSWERS[scope["path"]]
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})
