"""The server's parts, as endpoints take them by FastAPI's dependencies."""

from typing import Annotated

from fastapi import Depends, Request

from serving.server import Server
from serving.service import Service


async def get_server(request: Request) -> Server:
    """The worker's parts."""
    server: Server = request.app.state.server
    return server


ServerDep = Annotated[Server, Depends(get_server)]


async def get_service(server: ServerDep) -> Service:
    """The API's actions."""
    return server.service


ServiceDep = Annotated[Service, Depends(get_service)]
