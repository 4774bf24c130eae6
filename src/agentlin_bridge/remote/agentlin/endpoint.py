"""Where the task API is, and with which key. The embedded server's address can change; a deployment's not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from pydantic import SecretStr


@dataclass(frozen=True, slots=True)
class Address:
    """A base URL that ends in `/v1` or wherever `/tasks` hangs, and the bearer key for it."""

    base_url: str
    api_key: SecretStr | None = None


class Endpoint(Protocol):
    """Finds the task API."""

    @property
    def place(self) -> str:
        """What stays the same about it, even if the address changes."""
        ...

    @property
    def is_local(self) -> bool:
        """Whether it is on this machine, where the environment's proxies have no business."""
        ...

    async def resolve(self) -> Address:
        """The address to use now.

        Raises:
            RemoteUnavailable: there is none.
        """
        ...

    async def renew(self, failed: Address) -> Address | None:
        """Another address, after `failed` could not be reached or refused the key; None if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class FixedEndpoint:
    """A deployment: one address."""

    address: Address
    is_local: bool = False

    @property
    def place(self) -> str:
        return self.address.base_url.rstrip("/")

    async def resolve(self) -> Address:
        return self.address

    async def renew(self, failed: Address) -> Address | None:
        return None
