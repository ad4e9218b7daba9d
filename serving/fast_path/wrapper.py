"""Wraps the application: what it needs to answer some requests without ASGI."""

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from pydantic import BaseModel

from serving.fast_path.protocol import FastProtocol
from serving.fast_path.request import FastRequest
from serving.json_bodies import parse_model, require_json
from serving.middleware import HEAVY_BYTES, RequestLimits
from serving.predictor import Scored
from serving.problems import Invalid, Unsupported
from serving.schemas import ByIdRequest, PredictRequest
from serving.service import Service


class FastPath:
    """The same application by ASGI; its `protocol` gives requests to `routes`, by target. What those refuse goes by ASGI."""

    protocol = FastProtocol

    def __init__(self, app: RequestLimits, service: Service) -> None:
        self._app = app
        self._service = service
        self._tasks: set[asyncio.Task[None]] = set()
        self.limits, self.on_refused = app.limits, app.on_refused
        predict = partial(self._take, "/predict", PredictRequest, self._predict)
        by_id = partial(self._take, "/predict/by-id", ByIdRequest, self._predict_by_id)
        self.routes: dict[bytes, Callable[[FastRequest], bool]] = {
            f"{root_path}{path}".encode(): take
            for root_path in {"", app.root_path}
            for path, take in (("/predict", predict), ("/predict/by-id", by_id))
        }

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The usual way."""
        await self._app(scope, receive, send)

    def _take(self, path: str, model: type[BaseModel], begin: Callable[[Any, FastRequest], None], request: FastRequest) -> bool:
        """Begin to answer the request; False if it should go by ASGI."""
        size = len(request.body)
        if self._app.draining or size > HEAVY_BYTES:
            return False
        request.start(self._app, path)
        try:
            request.weight = self._app.accept(path, request.headers, size)
            require_json(dict(request.headers).get(b"content-type", b"").decode("latin-1"))
            begin(parse_model(model, request.body), request)
        except (Invalid, Unsupported):  # FastAPI says what is wrong
            request.release()
            return False
        except Exception as error:  # noqa: BLE001 - it is answered, and logged if it is no refusal
            request.on_result(error)
        return True

    def _predict(self, body: PredictRequest, request: FastRequest) -> None:
        self._service.submit(body.customers, request)

    def _predict_by_id(self, body: ByIdRequest, request: FastRequest) -> None:
        task = asyncio.get_running_loop().create_task(_await(self._service.score_by_id(body.customer_ids), request))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _await(score: Coroutine[Any, Any, Scored], request: FastRequest) -> None:
    result: Scored | Exception
    try:
        result = await score
    except Exception as error:  # noqa: BLE001 - it is answered, and logged if it is no refusal
        result = error
    request.on_result(result)
