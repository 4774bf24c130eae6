"""Who a bearer key belongs to. Only digests of the keys are kept."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256

from pydantic import SecretStr

from agentlin_bridge.errors import ConfigurationError
from agentlin_bridge.server.protocol.bodies import OTHER_ID


@dataclass(frozen=True)
class Caller:
    """Somebody with a right to ask.

    Attributes:
        user: whose tasks they see and make; None for somebody who sees all.
    """

    user: str | None


class Keys:
    """The keys of one server.

    Args:
        api_key: a key without a user; who has it sees all tasks.
        users: the key of each user.

    Raises:
        ConfigurationError: a key is empty, or two are the same, or a user's name cannot be used.
    """

    def __init__(self, api_key: SecretStr | None = None, users: Mapping[str, SecretStr] | None = None) -> None:
        given = [(Caller(name), key) for name, key in (users or {}).items()]
        if api_key is not None:
            given.append((Caller(None), api_key))
        for caller, key in given:
            if caller.user is not None and not re.fullmatch(OTHER_ID, caller.user):
                raise ConfigurationError(
                    f"{caller.user!r} cannot be the user of a key.",
                    next_step="use at most 200 printable ASCII characters, the first of them no space",
                )
            if not key.get_secret_value():
                raise ConfigurationError("A key of the server is empty.", next_step="set one, or none at all")
        self._callers = [(_digest(key.get_secret_value().encode()), caller) for caller, key in given]
        if len({digest for digest, _ in self._callers}) < len(self._callers):
            raise ConfigurationError(
                "Two keys of the server are the same.", next_step="give every user a key of its own"
            )

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self._callers)

    def caller(self, token: bytes) -> Caller | None:
        """Whose key it is. Every key is compared, in the same time whatever the token."""
        digest = _digest(token)
        found = None
        for known, caller in self._callers:
            if hmac.compare_digest(digest, known):
                found = caller
        return found


def _digest(key: bytes) -> bytes:
    return sha256(key).digest()
