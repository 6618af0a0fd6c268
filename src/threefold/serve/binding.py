"""Taking an address to listen at, for the service and for the page of a watch."""

import os
import socket

from threefold.errors import RecipeError, ThreefoldError


def bind(host: str, port: int) -> socket.socket:
    """A socket that listens at the address; raises ThreefoldError in one line."""
    if not 0 <= port <= 65535:
        raise RecipeError(f"port: {port}; expected 0 to 65535")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise ThreefoldError(f"host {host!r}: {error.strerror or error}") from None
    try:
        both = family == socket.AF_INET6  # `::` takes IPv4 as well
        return socket.create_server(address, family=family, backlog=1024, dualstack_ipv6=both)
    except OSError as error:
        raise ThreefoldError(f"{host}:{port}: cannot be listened to ({os.strerror(error.errno or 0)})") from None


def url_of(listening: socket.socket) -> str:
    """`http://host:port` of a socket that listens; an IPv6 host in brackets."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
