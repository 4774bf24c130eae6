"""Keys that pass through: named in options, put in at sending, taken out of all that comes back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from agentlin_bridge.errors import InvalidRequestError

REMOVED = "[removed]"

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")
_OF_SECRETS = frozenset({"apikey", "credential", "credentials", "key", "passwd", "password", "secret", "token"})
_PROVIDER_KEY = re.compile(r"\s*(?:sk-|pk-|rk-|r8_|hf_|gh[pousr]_|xox[abp]-|AIza)[A-Za-z0-9_-]{10,}\s*")
_SHORTEST = 6
"""Shorter values are not taken out of texts: they are in words, too."""


def reference(value: object) -> str | None:
    """The name in a value that is a reference, `${NAME}` and nothing else."""
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    return found[1] if found else None


def references(options: Mapping[str, Any]) -> set[str]:
    """The names that an agent profile's `input` and `callback` refer to."""
    given = options.get("input")
    values = [*(given.values() if isinstance(given, Mapping) else ()), options.get("callback")]
    return {name for value in values if (name := reference(value)) is not None}


class Secrets:
    """What this backend knows and nobody else may see.

    Args:
        api_key: the key of NLA Engine itself.
        named: what `${NAME}` stands for. Names that are not here are refused: options may come from somebody
            who must not read our environment.
    """

    def __init__(self, api_key: SecretStr | None, named: Mapping[str, SecretStr]) -> None:
        self._named = dict(named)
        values = {secret.get_secret_value() for secret in [*named.values(), *([api_key] if api_key else [])]}
        longest_first = sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True)
        self._known = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def check(self, where: str, value: str) -> None:
        """Check a value that options carry: they are kept in the ledger.

        Args:
            where: the value's name in the options; the last word says what it is.
            value: a text, or a reference.

        Raises:
            InvalidRequestError: a reference to nothing, or a key where a reference has to be.
        """
        name = reference(value)
        if name is not None:
            if name not in self._named:
                known = ", ".join(sorted(self._named)) or "there are none"
                raise InvalidRequestError(
                    f"The option {where} refers to ${{{name}}}, which this bridge has no secret for (known: {known}).",
                    next_step=f"set the environment variable {name} and refer to it in an agent profile",
                )
            return
        words = _WORDS.findall(where.rpartition(".")[2])
        is_named_so = bool(words) and words[-1].lower() in _OF_SECRETS
        if value and (is_named_so or _PROVIDER_KEY.fullmatch(value) or self.redact(value) != value):
            raise InvalidRequestError(
                f"The option {where} looks like a key, and options are kept in the ledger.",
                next_step="put it into an environment variable and write ${ITS_NAME} instead",
            )

    def resolve(self, value: str) -> str:
        """What is sent for a value. Call `check` first."""
        name = reference(value)
        return value if name is None else self._named[name].get_secret_value()

    def redact(self, text: str) -> str:
        """A text without any of our secrets."""
        return text if self._known is None else self._known.sub(REMOVED, text)

    def redact_all(self, value: Any) -> Any:
        """A JSON value with every text in it redacted, the keys of objects, too."""
        if isinstance(value, str):
            return self.redact(value)
        if isinstance(value, dict):
            return {self.redact(key): self.redact_all(part) for key, part in value.items()}
        return [self.redact_all(part) for part in value] if isinstance(value, list) else value
