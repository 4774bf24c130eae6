"""Listening on an address: on other than loopback addresses only behind a key."""

from __future__ import annotations

import ipaddress
import signal
import socket

from agentlin_bridge.errors import ConfigurationError


def bound(host: str, port: int, *, guard: str, is_guarded: bool, next_step: str) -> socket.socket:
    """A socket that is bound, and does not listen yet.

    Args:
        host: the address; empty for all.
        port: 0 picks a free one.
        guard: what has to keep strangers out.
        is_guarded: whether it does.
        next_step: how to set it up.

    Raises:
        ConfigurationError: the address cannot be used, or strangers could reach it.
    """
    try:
        found = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = found[0]
        if not is_guarded and not ipaddress.ip_address(address[0]).is_loopback:
            raise ConfigurationError(
                f"Without {guard} the server listens on loopback addresses only, and {host!r} is none.",
                next_step=f"{next_step}, or use --host 127.0.0.1",
            )
        listener = socket.socket(family, kind, protocol)
        try:
            if hasattr(signal, "SIGHUP"):  # on Windows the option would let two servers share a port
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigurationError(
            f"The server cannot listen on {host}:{port}: {error.strerror}.", next_step="choose another host or port"
        ) from error
    return listener


def address_of(listener: socket.socket) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address a socket is bound to."""
    return ipaddress.ip_address(listener.getsockname()[0])


def url_of(listener: socket.socket) -> str:
    """The URL under which it is reached from this machine, without a path."""
    address, port = address_of(listener), listener.getsockname()[1]
    if address.is_unspecified:
        address = ipaddress.ip_address("::1" if address.version == 6 else "127.0.0.1")
    return f"http://[{address}]:{port}" if address.version == 6 else f"http://{address}:{port}"
