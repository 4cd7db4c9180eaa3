"""Where a server listens."""

import errno
import socket

from paddle_rt.errors import UserError


def bind(host: str, port: int) -> socket.socket:
    """Return a socket with an address, before anything that takes long is loaded.

    Args:
        host: A name or an address of this machine.
        port: The port; 0 for a free one.

    Raises:
        UserError: The address is not one of this machine, or is taken.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError) as error:
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise UserError(f"port {port} of {host} is taken by another program; choose another --port") from error
        raise UserError(f"cannot listen at {host}, port {port}: {error}; choose another --host or --port") from error
    return listener


def address_of(listener: socket.socket) -> str:
    """Return the address of a socket as browsers take it."""
    host, port = listener.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
