"""HTTP to the task API: two clients, bearer key, bounded answers, and errors that tell sent from not sent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx

from agentlin_bridge.errors import RemoteProtocolError, RemoteUnavailable, ReplyLost
from agentlin_bridge.remote.agentlin.endpoint import Address, Endpoint
from agentlin_bridge.remote.agentlin.faults import read_json

ANSWER_LIMIT = 64 * 1024 * 1024
"""Bytes of one answer that are read at most."""

CONTROL_TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0

Answer = tuple[int, Mapping[str, Any]]


class Transport:
    """Sends requests to an endpoint.

    Control requests have a client of their own: rounds keep their connection open for as long as the
    remote runs, and would starve them.
    """

    def __init__(self, endpoint: Endpoint, *, headers: Mapping[str, str]) -> None:
        self._endpoint = endpoint
        trust_env = not endpoint.is_local
        self._control = httpx.AsyncClient(
            timeout=httpx.Timeout(CONTROL_TIMEOUT, connect=CONNECT_TIMEOUT), headers=dict(headers), trust_env=trust_env
        )
        self._rounds = httpx.AsyncClient(
            timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT, write=CONTROL_TIMEOUT),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20, keepalive_expiry=5),
            headers=dict(headers),
            trust_env=trust_env,
        )

    async def close(self) -> None:
        """Close both clients and their connections."""
        await self._control.aclose()
        await self._rounds.aclose()

    async def control(self, method: str, path: str, *, params: Mapping[str, Any] | None = None) -> Answer:
        """Send a control request (retrieve, list, cancel, delete).

        Raises:
            RemoteUnavailable: nothing was sent.
            ReplyLost: no answer came.
            RemoteProtocolError: the answer is no JSON object.
        """
        return await self._send(self._control, method, path, params=params)

    async def round(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Send a round and wait, without a time limit, for its end. Raises like `control`."""
        return await self._send(self._rounds, "POST", path, json=body)

    async def _send(self, client: httpx.AsyncClient, method: str, path: str, **arguments: Any) -> Answer:
        address = await self._endpoint.resolve()
        try:
            status, payload = await self._once(client, address, method, path, **arguments)
        except RemoteUnavailable:
            renewed = await self._endpoint.renew(address)
            if renewed is None:
                raise
            return await self._once(client, renewed, method, path, **arguments)
        if status == 401 and (renewed := await self._endpoint.renew(address)) is not None and renewed != address:
            return await self._once(client, renewed, method, path, **arguments)
        return status, payload

    async def _once(
        self, client: httpx.AsyncClient, address: Address, method: str, path: str, **arguments: Any
    ) -> Answer:
        headers = {"Authorization": f"Bearer {address.api_key.get_secret_value()}"} if address.api_key else {}
        url = address.base_url.rstrip("/") + path
        try:
            for _ in range(2):
                async with client.stream(method, url, headers=headers, **arguments) as response:
                    location = response.headers.get("location")
                    if response.is_redirect and location:
                        url = _same_origin(url, location)
                        continue
                    return await _read(response)
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise RemoteUnavailable(
                f"The remote at {address.base_url} cannot be reached: {str(error) or type(error).__name__}.",
                next_step="check that it runs and that AGENTLIN_BASE_URL is right",
            ) from error
        except httpx.InvalidURL as error:
            raise RemoteUnavailable(
                f"{address.base_url} is not a usable URL: {error}.", next_step="correct AGENTLIN_BASE_URL"
            ) from error
        except httpx.HTTPError as error:
            raise ReplyLost(
                f"The connection to {address.base_url} broke before the answer came: "
                f"{str(error) or type(error).__name__}.",
                next_step="retrieve the task to see whether it runs",
            ) from error
        raise RemoteProtocolError(
            f"The remote at {address.base_url} redirects in a circle.", next_step="check AGENTLIN_BASE_URL"
        )


def _same_origin(url: str, location: str) -> str:
    """Where a redirect leads, but never away from the configured origin.

    The published server redirects `/tasks` to an absolute `http://` URL even behind TLS. Its path is
    followed on our own scheme and host, so that the key neither leaks nor is dropped.
    """
    here, there = urlsplit(url), urlsplit(urljoin(url, location))
    if there.hostname != here.hostname:
        raise RemoteProtocolError(
            f"The remote redirects to another host ({there.hostname}); the key is not sent there.",
            next_step="set AGENTLIN_BASE_URL to that host if it is right",
        )
    return here._replace(path=there.path, query=there.query or here.query).geturl()


async def _read(response: httpx.Response) -> Answer:
    chunks: list[bytes] = []
    size = 0
    async for chunk in response.aiter_bytes():
        size += len(chunk)
        if size > ANSWER_LIMIT:
            raise RemoteProtocolError(
                f"The remote's answer is larger than {ANSWER_LIMIT // 2**20} MiB.",
                next_step="ask the remote agent for less output",
                status=response.status_code,
            )
        chunks.append(chunk)
    body = b"".join(chunks)
    content_type = response.headers.get("content-type", "")
    if response.status_code >= 400:
        try:
            return response.status_code, read_json(response.status_code, content_type, body)
        except RemoteProtocolError:
            # A proxy's error page: its status says enough.
            return response.status_code, {"message": response.reason_phrase}
    return response.status_code, read_json(response.status_code, content_type, body)
