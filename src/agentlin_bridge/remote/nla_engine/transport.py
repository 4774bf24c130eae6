"""HTTP to NLA Engine: its own key header, bounded answers, no redirects, and errors that tell sent from not sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
from pydantic import SecretStr

from agentlin_bridge.errors import RemoteProtocolError, ReplyLost
from agentlin_bridge.remote.http import (
    ANSWER_LIMIT,
    CONNECT_TIMEOUT,
    Counterpart,
    as_our_errors,
    json_of,
    read_bounded,
)
from agentlin_bridge.remote.nla_engine.faults import raise_error
from agentlin_bridge.remote.nla_engine.secrets import Secrets

ANSWER_TIMEOUT = 30.0
"""Seconds one request may take. The engine answers at once; what an agent does is asked for later."""

_LESS = "delete old tasks there, or have the agent return less"


class Transport:
    """Sends requests to one NLA Engine.

    Args:
        base_url: the address before `/api/v1`.
        api_key: sent as `apikey`, and nowhere else: redirects are not followed.
        secrets: taken out of what error bodies say.
        is_local: whether it is on this machine, where the environment's proxies have no business.
        answer_timeout: seconds one request may take.
    """

    def __init__(
        self, base_url: str, api_key: SecretStr | None, secrets: Secrets, *, is_local: bool, answer_timeout: float
    ) -> None:
        self.base_url = base_url.rstrip("/").removesuffix("/api/v1")
        self._counterpart = Counterpart("NLA Engine", self.base_url, "NLA_ENGINE_BASE_URL", "NLA_ENGINE_API_KEY")
        self._api_key = api_key
        self._secrets = secrets
        self._timeout = answer_timeout
        timeout = httpx.Timeout(answer_timeout, connect=min(CONNECT_TIMEOUT, answer_timeout))
        self._reading = httpx.AsyncClient(timeout=timeout, trust_env=not is_local)
        # A run asked for on a connection that the remote is about to close would be lost: each opens its own.
        alone = httpx.Limits(max_connections=None, max_keepalive_connections=0)
        self._running = httpx.AsyncClient(timeout=timeout, limits=alone, trust_env=not is_local)

    async def close(self) -> None:
        """Close the connections."""
        await self._reading.aclose()
        await self._running.aclose()

    async def send(
        self,
        method: str,
        path: str,
        *,
        what: str,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
    ) -> Any:
        """The JSON of a successful answer.

        Args:
            method: the HTTP method.
            path: what follows `/api/v1`.
            what: the thing that is asked for, for a 404.
            params: the query.
            body: sent as JSON.

        Raises:
            RemoteUnavailable: nothing was sent, or it was turned away.
            ReplyLost: it may have had its effect.
            RemoteProtocolError: it succeeded, but the answer cannot be read.
            RemoteError: it was refused.
        """
        client = self._reading if body is None else self._running
        url = f"{self.base_url}/api/v1{path}"
        with self._in_time(), as_our_errors(self._counterpart):
            key = {"apikey": self._api_key.get_secret_value()} if self._api_key else {}
            async with client.stream(method, url, params=params, json=body, headers=key) as response:
                content = await read_bounded(response, ANSWER_LIMIT, next_step=_LESS)
        status = response.status_code
        if status >= 300:
            raise_error(
                status, json_of(content), self._secrets, what=what, location=response.headers.get("location", "")
            )
        found = json_of(content)
        if found is None:
            kind = response.headers.get("content-type") or "no content type"
            raise RemoteProtocolError(
                f"NLA Engine answered HTTP {status} with {kind[:100]}, not with JSON.",
                next_step="check that NLA_ENGINE_BASE_URL is the address before /api/v1",
                status=status,
            )
        return found

    @contextmanager
    def _in_time(self) -> Iterator[None]:
        try:
            with anyio.fail_after(self._timeout):
                yield
        except TimeoutError as error:
            raise ReplyLost(
                f"NLA Engine at {self.base_url} did not answer within {self._timeout:g} seconds.",
                next_step="look whether the request had its effect",
            ) from error
