"""Sockets to listen on, and one line that says why there is none."""

import errno
import socket

from churn.errors import ConfigError


def listener(host: str, port: int, remedy: str) -> socket.socket:
    """A socket that listens on the address; the caller closes it. `remedy` says how to name another port, as `set CHURN_PORT`.

    Raises:
        ConfigError: another process listens there, or this one may not, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        match error.errno:
            case errno.EADDRINUSE:
                reason = f"is in use: {remedy}"
            case errno.EACCES:
                reason = f"needs rights that this process lacks: {remedy} to 1024 or more"
            case _:
                reason = f"cannot be listened on: {error.strerror or error}; correct the address"
        raise ConfigError(f"port {port} on {host} {reason}") from None
