"""Whose requests come to a server: one person's on stdio, over HTTP whoever the bearer token stands for."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from hashlib import sha256

from mcp.server.auth.middleware.auth_context import get_access_token
from mcp.server.auth.provider import AccessToken
from pydantic import SecretStr

from agentlin_bridge.delegation.finding import LOCAL
from agentlin_bridge.errors import BridgeError, ConfigurationError

_NAME = re.compile(r"[A-Za-z0-9_.:@-]{1,200}")
_SHORTEST = 16


class Principals:
    """The principals of a server, by their bearer tokens, of which only digests are kept.

    It is a token verifier for the SDK.

    Args:
        tokens: the token of each principal; with none, everybody is `local`.

    Raises:
        ConfigurationError: a name or a token cannot be used, two tokens are the same, or one of several principals is
            called `local`.
    """

    def __init__(self, tokens: Mapping[str, SecretStr] | None = None) -> None:
        self._digests: dict[bytes, str] = {}
        for name, secret in (tokens or {}).items():
            token = secret.get_secret_value()
            _check(name, token)
            if name == LOCAL and len(tokens or {}) > 1:
                # It may take over what it finds remotely: any task of the others that the ledger does not know.
                raise ConfigurationError(
                    f"A principal in AGENTLIN_BRIDGE_MCP_TOKENS is called {LOCAL!r} and has others beside it.",
                    next_step="give it another name; `local` is the principal of a bridge that serves nobody else",
                )
            if self._digests.setdefault(_digest(token), name) != name:
                raise ConfigurationError(
                    "Two principals in AGENTLIN_BRIDGE_MCP_TOKENS have the same token.",
                    next_step="give each a token of its own",
                )

    def __bool__(self) -> bool:
        """Whether a token is needed."""
        return bool(self._digests)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose token it is. Every digest is compared, in the same time whatever the token."""
        given = _digest(token)
        found = None
        for known, name in self._digests.items():
            if hmac.compare_digest(given, known):
                found = name
        # What the SDK hands around shall not carry the secret.
        return None if found is None else AccessToken(token="", client_id=found, scopes=[])

    def current(self) -> str:
        """Whose request this code runs for.

        Raises:
            BridgeError: a token is needed, and none came with it.
        """
        if not self:
            return LOCAL
        token = get_access_token()
        if token is None:
            raise BridgeError("The request names no principal.", next_step="send a bearer token of the server's")
        return token.client_id


def _check(name: str, token: str) -> None:
    if not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"{name!r} in AGENTLIN_BRIDGE_MCP_TOKENS cannot be a principal.",
            next_step="use at most 200 letters, digits and the characters _ . : @ -",
        )
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigurationError(
            f"The token of {name!r} in AGENTLIN_BRIDGE_MCP_TOKENS is too short, or cannot be sent in a header.",
            next_step=f"use at least {_SHORTEST} random printable ASCII characters without a space",
        )


def _digest(token: str) -> bytes:
    return sha256(token.encode("utf-8", "surrogatepass")).digest()
