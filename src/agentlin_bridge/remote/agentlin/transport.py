"""HTTP to the task API: two clients, bearer key, bounded answers, and errors that tell sent from not sent."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urljoin, urlsplit

import anyio
import httpx

from agentlin_bridge.errors import RemoteProtocolError, ReplyLost
from agentlin_bridge.remote.agentlin.endpoint import Address, Endpoint
from agentlin_bridge.remote.agentlin.faults import read_json
from agentlin_bridge.remote.http import (
    ANSWER_LIMIT,
    CONNECT_TIMEOUT,
    NOTHING_SENT,
    Counterpart,
    as_our_errors,
    read_bounded,
)

CONTROL_TIMEOUT = 30.0

STREAM_IDLE = 60.0
"""Seconds without a byte after which an event stream counts as lost; the published server pings every 15."""

Answer = tuple[int, Mapping[str, Any]]


class _Request(NamedTuple):
    client: httpx.AsyncClient
    method: str
    path: str
    arguments: dict[str, Any]


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
            # A round on a connection that the server is about to close would be lost: each opens its own.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
            headers=dict(headers),
            trust_env=trust_env,
        )

    async def close(self) -> None:
        """Close both clients and their connections."""
        await self._control.aclose()
        await self._rounds.aclose()

    async def base_url(self) -> str:
        """Where requests go now."""
        return (await self._endpoint.resolve()).base_url

    async def control(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, Any] | None = None,
        json: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Send a control request (retrieve, list, cancel, delete, probe).

        Raises:
            RemoteUnavailable: nothing was sent.
            ReplyLost: no answer came.
            RemoteProtocolError: the answer is no JSON object.
        """
        arguments = {"params": params, "json": json, "headers": headers or {}}
        async with self._sending(_Request(self._control, method, path, arguments)) as response:
            return await _read(response)

    async def round(self, path: str, body: Mapping[str, Any]) -> Answer:
        """Send a round and wait, without a time limit, for its end. Raises like `control`."""
        async with self._sending(_Request(self._rounds, "POST", path, {"json": body, "headers": {}})) as response:
            return await _read(response)

    @asynccontextmanager
    async def stream(self, path: str, body: Mapping[str, Any]) -> AsyncIterator[Answer | AsyncIterator[bytes]]:
        """Send a round and read its event stream; an answer that is no stream is given as a whole.

        Leaving it closes the stream. Raises like `control`; a stream that is silent for `STREAM_IDLE`
        seconds counts as lost.
        """
        headers = {"Accept": "text/event-stream"}
        async with self._sending(_Request(self._rounds, "POST", path, {"json": body, "headers": headers})) as response:
            if response.headers.get("content-type", "").startswith("text/event-stream") and response.is_success:
                yield _chunks(response)
            else:
                yield await _read(response)

    @asynccontextmanager
    async def _sending(self, request: _Request) -> AsyncIterator[httpx.Response]:
        async with AsyncExitStack() as stack:
            address = await self._endpoint.resolve()
            with as_our_errors(_counterpart(address)):
                yield await self._answered(stack, address, request)

    async def _answered(self, stack: AsyncExitStack, address: Address, request: _Request) -> httpx.Response:
        """The response, from another address if this one is gone or has a new key by now."""
        try:
            response = await _open(stack, address, request)
        except NOTHING_SENT:
            renewed = await self._endpoint.renew(address)
            if renewed is None:
                raise
            return await _open(stack, renewed, request)
        if response.status_code == 401:
            renewed = await self._endpoint.renew(address)
            if renewed is not None and renewed != address:
                return await _open(stack, renewed, request)
        return response


async def _open(stack: AsyncExitStack, address: Address, request: _Request) -> httpx.Response:
    key = {"Authorization": f"Bearer {address.api_key.get_secret_value()}"} if address.api_key else {}
    arguments = {**request.arguments, "headers": {**request.arguments["headers"], **key}}
    url = address.base_url.rstrip("/") + request.path
    for _ in range(2):
        opening = request.client.stream(request.method, url, **arguments)
        response = await stack.enter_async_context(opening)
        location = response.headers.get("location")
        if not (response.is_redirect and location):
            return response
        url = _same_origin(url, location)
    raise RemoteProtocolError(
        f"The remote at {address.base_url} redirects in a circle.", next_step="check AGENTLIN_BASE_URL"
    )


def _counterpart(address: Address) -> Counterpart:
    return Counterpart("The remote", address.base_url, "AGENTLIN_BASE_URL", "AGENTLIN_API_KEY")


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    chunks = response.aiter_bytes()
    while True:
        chunk = None
        with anyio.move_on_after(STREAM_IDLE):
            chunk = await anext(chunks, b"")
        if chunk is None:
            raise ReplyLost(
                f"The event stream was silent for {STREAM_IDLE:.0f} seconds.",
                next_step="retrieve the task to see whether it runs",
            )
        if not chunk:
            return
        yield chunk


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
    body = await read_bounded(response, ANSWER_LIMIT, next_step="ask the remote agent for less output")
    content_type = response.headers.get("content-type", "")
    if response.status_code >= 400:
        try:
            return response.status_code, read_json(response.status_code, content_type, body)
        except RemoteProtocolError:
            # A proxy's error page: its status says enough.
            return response.status_code, {"message": response.reason_phrase}
    return response.status_code, read_json(response.status_code, content_type, body)
