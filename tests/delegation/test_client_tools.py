"""Client tools made of functions, and what validation says."""

from __future__ import annotations

import asyncio
from datetime import date
from typing import Annotated, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from agentlin_bridge import ClientTool, InvalidRequestError, Limits, ToolResult, client_tool
from agentlin_bridge.delegation.answering import as_result, bounded, current_call, execute, refusal, size_of
from agentlin_bridge.delegation.client_tools import as_client_tools
from agentlin_bridge.json_schema import misfit
from agentlin_bridge.task import ImageContentItem, TextContentItem, ToolCallItem

pytestmark = pytest.mark.anyio


class Place(BaseModel):
    """Where."""

    city: str
    country: str = "FR"


def test_a_typed_function_says_all_there_is_to_say() -> None:
    @client_tool
    def forecast(place: Place, day: Annotated[date, Field(description="Which day.")], json: bool = False) -> str:
        """Forecast the weather.

        For one day.
        """
        return f"{place.city} {day.year} {json}"

    assert forecast.name == "forecast"
    assert forecast.description == "Forecast the weather.\n\nFor one day."
    assert forecast.parameters["required"] == ["place", "day"]
    assert forecast.parameters["properties"]["day"] == {
        "description": "Which day.",
        "format": "date",
        "title": "Day",
        "type": "string",
    }
    assert forecast.definition.parameters == forecast.parameters


def test_the_decorator_takes_arguments() -> None:
    @client_tool(name="other", description="Other.", idempotent=True)
    def one() -> None:
        """One."""

    assert (one.name, one.description, one.idempotent) == ("other", "Other.", True)


class Opaque:
    pass


def positional(city: str, /) -> None: ...
def variable(*cities: str) -> None: ...
def untyped(city) -> None: ...  # type: ignore[no-untyped-def]
def opaque(city: Opaque) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (positional, "cannot have the parameter"),
        (variable, "cannot have the parameter"),
        (untyped, "'city' of the client tool 'untyped' has no type"),
        (opaque, "cannot be described by a JSON Schema"),
    ],
)
def test_functions_that_cannot_be_tools(function: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError, match=said):
        client_tool(function)


def test_openai_shapes_are_understood() -> None:
    function = {"name": "f", "description": "F.", "parameters": {"type": "object", "properties": {}}}
    (tool,) = as_client_tools([{"type": "function", "function": function}]).values()
    assert (tool.name, tool.description, tool.handler) == ("f", "F.", None)
    with pytest.raises(InvalidRequestError, match="is no client tool"):
        as_client_tools([{"type": "function", "function": "f"}])


async def run(tool: ClientTool, arguments: str) -> ToolResult:
    refused = refusal(tool.name, arguments, {tool.name: tool.definition})
    return refused or await execute(tool, ToolCallItem(call_id="c", name=tool.name, arguments=arguments), Limits())


async def test_handlers_get_the_types_they_declare() -> None:
    def forecast(place: Place, day: date, days: int = 2) -> str:
        """Forecast."""
        return f"{place.country} {day.year} {days}"

    tool = client_tool(forecast)
    assert (await run(tool, '{"place": {"city": "Paris"}, "day": "2026-02-01"}')).text == "FR 2026 2"
    wrong = await run(tool, '{"place": {"city": "Paris"}, "day": "someday"}')
    assert wrong.is_error
    assert "forecast do not fit: ('day',): Input should be a valid date" in wrong.text


async def test_callable_objects_and_awaitables() -> None:
    class Adder:
        async def __call__(self, a: int) -> int:
            return a + 1

    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert (await run(ClientTool("add", "", schema, Adder()), '{"a": 1}')).text == "2"


async def test_a_handler_that_cancels_itself_is_an_error_result() -> None:
    async def quits() -> None:
        raise asyncio.CancelledError

    assert (await run(client_tool(quits), "{}")).text == "quits was cancelled by the host before it finished."


async def test_handlers_can_see_their_call() -> None:
    def who() -> str:
        return current_call.get().call_id

    assert (await run(client_tool(who), "{}")).text == "c"


async def test_results_that_are_not_unicode_are_repaired() -> None:
    def listing() -> str:
        return "caf\udce9.txt"

    def failing() -> str:
        raise OSError("caf\udce9.txt")

    assert (await run(client_tool(listing), "{}")).text == "caf?.txt"
    assert (await run(client_tool(failing), "{}")).text.endswith("OSError: caf?.txt")


async def test_a_validation_error_inside_a_handler_does_not_blame_the_arguments() -> None:
    def picky() -> str:
        return Place.model_validate({}).city

    assert (await run(client_tool(picky), "{}")).text.startswith("picky failed: ValidationError: ")


async def test_arguments_nested_too_deeply() -> None:
    def plain() -> str:
        return "x"

    assert "are not JSON" in (await run(client_tool(plain), "[" * 100_000)).text


async def test_a_timeout_of_the_handlers_own_is_not_ours() -> None:
    def impatient() -> None:
        raise TimeoutError("the database is slow")

    assert (await run(client_tool(impatient), "{}")).text == "impatient failed: TimeoutError: the database is slow"


async def test_sync_approvals_are_asked_with_the_call() -> None:
    asked: list[ToolCallItem] = []

    def approve(call: ToolCallItem) -> bool:
        asked.append(call)
        return "ok" in call.arguments

    def act(what: str) -> str:
        """Act."""
        return what

    tool = client_tool(approval=approve)(act)
    assert (await run(tool, '{"what": "ok"}')).text == "ok"
    assert (await run(tool, '{"what": "no"}')).is_error
    assert [call.name for call in asked] == ["act", "act"]


def test_schemas_never_reach_out() -> None:
    assert "refers to something that is not in it" in misfit({"$ref": "http://127.0.0.1:1/schema"}, {})
    nested = {"properties": {"a": {"items": {"type": "integer"}}}}
    assert misfit(nested, {"a": [1, "x"]}) == "['a'][1]: 'x' is not of type 'integer'"
    assert misfit(nested, {"a": [1]}) == ""


def test_results_of_every_kind() -> None:
    image = ImageContentItem.model_validate({"image_url": {"url": "u"}})
    assert as_result(None) == ToolResult()
    assert as_result("x").text == "x"
    assert as_result(["x", image]).content[1] == image
    assert as_result([]).text == "[]"
    assert as_result([1, "x"]).text == '[1,"x"]'
    assert as_result({"a": date(2026, 1, 2)}).text == '{"a":"2026-01-02"}'
    assert as_result(Place(city="Paris")).text == '{"city":"Paris","country":"FR"}'
    assert as_result(b"bytes").text == "bytes"
    assert as_result(Opaque).text.startswith("<class")
    given_result = ToolResult.error("x")
    assert as_result(given_result) is given_result


PARTS = st.lists(
    st.text(max_size=30)
    | st.text(max_size=30).map(lambda url: ImageContentItem.model_validate({"image_url": {"url": url}})),
    max_size=6,
)


@given(PARTS, st.integers(1, 120))
def test_bounded_results(parts: list[Any], limit: int) -> None:
    whole = ToolResult(content=parts, is_error=True)
    cut = bounded(whole, limit)
    if size_of(whole) <= limit:
        assert cut is whole
        return
    assert cut.is_error
    note = cut.content[-1]
    assert isinstance(note, TextContentItem)
    assert note.text == f"\n[cut: the result has {size_of(whole)} characters, the limit is {limit}]"
    kept = [item for item in cut.content[:-1] if not (isinstance(item, TextContentItem) and "[left out" in item.text)]
    assert sum(size_of(ToolResult(content=[item])) for item in kept) <= limit
