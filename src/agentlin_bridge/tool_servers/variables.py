"""Environment variables in configuration values, so that no secret has to be written down."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr

from agentlin_bridge.errors import ConfigurationError

_REFERENCE = re.compile(r"\$\{(?:env:)?([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}|\$\{([^}]*)\}")


class Variables:
    """Fills in references: `${NAME}`, `${env:NAME}` and `${NAME:-default}`.

    Attributes:
        used: the values that were put in.
    """

    def __init__(self) -> None:
        self.used: set[str] = set()

    def fill_in(self, value: Any, where: str) -> Any:
        """A value, however deep, with the environment's variables in their places.

        Args:
            value: what the configuration says.
            where: what to call it in an error.

        Raises:
            ConfigurationError: naming a variable that is not set, or a reference that only some host understands.
        """
        if isinstance(value, Mapping):
            return {key: self.fill_in(one, f"{where}.{key}") for key, one in value.items()}
        if isinstance(value, list):
            return [self.fill_in(one, where) for one in value]
        if isinstance(value, SecretStr):
            return SecretStr(self.fill_in(value.get_secret_value(), where))
        return _REFERENCE.sub(lambda found: self._value(found, where), value) if isinstance(value, str) else value

    def _value(self, found: re.Match[str], where: str) -> str:
        name, default, unknown = found.groups()
        if name is None:
            raise ConfigurationError(
                f"{where} refers to ${{{unknown}}}, which only the host can fill in.",
                next_step="write ${NAME} for an environment variable, or describe the server in the configuration file",
            )
        value = os.environ.get(name) or default
        if value is None:
            raise ConfigurationError(
                f"{where} refers to the environment variable {name}, which is not set.", next_step=f"set {name}"
            )
        self.used.add(value)
        return value
