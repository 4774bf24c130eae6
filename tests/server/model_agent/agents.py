"""Model agents whose model is a scripted endpoint."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from agentlin_bridge.server.agent import Conversation, Item, OfferedTool, Round, Step
from agentlin_bridge.server.model_agent.agent import ModelAgent
from agentlin_bridge.server.model_agent.agents import ModelAgents
from agentlin_bridge.server.model_agent.profiles import AgentProfile, read_profiles
from agentlin_bridge.task import MessageItem, TextContentItem, ToolCallItem, ToolResult, ToolResultItem
from tests.support.processes import subprocess_environment

from .endpoint import Endpoint, Json, Model, Reply, endpoint

SYNC = httpx2.Client(verify=False)
"""Never used; a model makes one for itself otherwise, which takes long."""
KEY = "sk-proj-0123456789abcdefghijABCDEFGHIJ"
WEATHER = OfferedTool(
    "get_weather", "The weather of a city.", {"type": "object", "properties": {"city": {"type": "string"}}}
)
MOVE = OfferedTool("move", "Move.")


@dataclass
class Heard:
    """A voice that remembers what it was told."""

    texts: list[str] = field(default_factory=list)
    thoughts: list[str] = field(default_factory=list)

    def text(self, delta: str) -> None:
        self.texts.append(delta)

    def reasoning(self, delta: str) -> None:
        self.thoughts.append(delta)


def profile(base_url: str, *, provider: str = "openai", **fields: Any) -> AgentProfile:
    """The profile of an agent whose model answers at a URL."""
    where = "api_base" if provider == "deepseek" else "base_url"
    options = {where: base_url, "api_key": KEY, **fields.pop("model_options", {})}
    (read,) = read_profiles({"helper": {"model": f"{provider}:scripted", "model_options": options, **fields}})
    return read


@dataclass
class Talk:
    """An agent, its model's endpoint, and what the agent's voice was told."""

    agent: ModelAgent
    endpoint: Endpoint
    voice: Heard = field(default_factory=Heard)

    async def step(self, conversation: Conversation | str, **request: Any) -> Step:
        """Take a step; plain text is a first user message."""
        if isinstance(conversation, str):
            conversation = asked(conversation, **request)
        return await self.agent.step(conversation, self.voice)


@asynccontextmanager
async def talking(model: Model | Reply, **fields: Any) -> AsyncIterator[Talk]:
    """An agent with a scripted model, opened while entered."""
    # The provider's package keeps its own HTTP client for ever, in an event loop that ends with the test.
    async with endpoint(model) as served, httpx2.AsyncClient(verify=False) as http:
        options = {"http_async_client": http, "http_client": SYNC, "max_retries": 0, **fields.pop("model_options", {})}
        agent = ModelAgents([profile(served.base_url, model_options=options, **fields)]).pick({})
        async with agent:
            yield Talk(agent, served)


def tool_process(starts: Path, **fields: Any) -> Json:
    """A tool server that is a process and notes its starts in a file, as a profile writes it."""
    return {
        "command": sys.executable,
        "args": ["-m", "tests.server.model_agent.tools", str(starts)],
        "cwd": str(Path(__file__).parents[3]),
        "env": {**subprocess_environment(), "TOKEN": "secret-token"},
        **fields,
    }


def asked(
    text: str, *, tools: Iterable[OfferedTool] = (), rounds: tuple[Round, ...] = (), **request: Any
) -> Conversation:
    """A conversation with one user message."""
    return Conversation((TextContentItem(text=text),), client_tools=tuple(tools), rounds=rounds, request=request)


def called(name: str, call_id: str = "call_1", **arguments: Any) -> ToolCallItem:
    return ToolCallItem(call_id=call_id, name=name, arguments=json.dumps(arguments))


def returned(call_id: str, text: str) -> ToolResultItem:
    return ToolResultItem(call_id=call_id, message_content=[TextContentItem(text=text)])


def failed(call_id: str, text: str) -> ToolResultItem:
    return ToolResult.error(text).to_item(call_id)


def text_in(step: Step) -> str:
    """The text of a step's message."""
    return "".join(item.text for item in step.items if isinstance(item, MessageItem))


def calls_in(step: Step) -> list[ToolCallItem]:
    return [item for item in step.items if isinstance(item, ToolCallItem)]


async def refusal(agent: ModelAgent, step: Step) -> str:
    """What the agent answers to the only incomplete call of a step, as it comes back from a database."""
    (call,) = [call for call in calls_in(step) if call.status == "incomplete"]
    stored = ToolCallItem.model_validate_json(call.model_dump_json())
    result = await agent.call(stored)
    assert result.call_id == call.call_id
    return result.text


def shape(items: Iterable[Item]) -> list[Mapping[str, Any]]:
    """Items without what is empty."""
    return [item.model_dump(exclude_none=True, exclude_defaults=True) for item in items]
