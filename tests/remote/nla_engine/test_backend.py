"""The `nla` backend: what it sends, and what it makes of what comes back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agentlin_bridge.errors import (
    BridgeError,
    RemoteError,
    RemoteNotFound,
    RemoteProtocolError,
    RemoteRefused,
    RemoteUnavailable,
    ReplyLost,
    UnsupportedError,
)
from agentlin_bridge.events.progress import progress_of
from agentlin_bridge.remote.backend import Capabilities, Continuation, ToolDefinition
from agentlin_bridge.remote.nla_engine import backend as module
from agentlin_bridge.remote.nla_engine import pace, transport
from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from agentlin_bridge.remote.nla_engine.pace import Pace
from agentlin_bridge.remote.nla_engine.reading import read_task
from agentlin_bridge.remote.nla_engine.secrets import Secrets
from agentlin_bridge.task import ImageContentItem, ImageURL, TaskObject, TaskStatus, TextContentItem
from tests.remote.nla_engine.asking import ended, request, texts_of
from tests.remote.nla_engine.conftest import Open
from tests.support.nla_engine import NlaEngine, Run, done, echo
from tests.support.replay import Answer, playing

pytestmark = pytest.mark.anyio


def always(run: Run) -> NlaEngine:
    return NlaEngine(lambda agent, body: run)


@asynccontextmanager
async def answered(answer: Answer) -> AsyncIterator[NlaEngineBackend]:
    """A backend that is always given this answer."""
    async with (
        playing(answer) as player,
        NlaEngineBackend(player.base_url.removesuffix("/v1"), SecretStr("engine-key")) as backend,
    ):
        yield backend


# One task -----------------------------------------------------------------------------------------------


async def test_a_task_from_start_to_answer(open_backend: Open) -> None:
    asked = request("a heist in space", "with cats", options={"agent_id": "movie-agent", "input": {"genre": "scifi"}})
    async with open_backend() as (backend, engine):
        started = await backend.start(asked)
        assert started.status is TaskStatus.WORKING
        assert started.id in engine.tasks, "its id is the engine's, so that it can be adopted"
        task = await ended(backend, started.id)
    assert (task.id, task.status, task.error) == (started.id, TaskStatus.COMPLETED, None)
    assert texts_of(task) == ["movie-agent: a heist in space\n\nwith cats"]
    assert engine.starts == [{"input": {"genre": "scifi", "prompt": "a heist in space\n\nwith cats"}}]
    assert engine.requests[:2] == ["GET /task", "POST /workflow/movie-agent"]
    assert set(engine.requests[2:]) == {f"GET /task/{task.id}"}
    assert {header.get("apikey") for header in engine.headers} == {"engine-key"}
    assert not any("authorization" in header for header in engine.headers)


async def test_what_the_options_change(open_backend: Open) -> None:
    options = {"prompt_key": "synopsis", "callback": "https://app.example/hook/x?a=b"}
    async with open_backend(marks_callbacks=False) as (backend, engine):
        await backend.start(request("hello", options=options))
        await backend.start(request("hello", options={}))
    assert engine.starts == [
        {"input": {"synopsis": "hello"}, "callback": "https://app.example/hook/x?a=b"},
        {"input": {"prompt": "hello"}},
    ]
    assert engine.count("POST /workflow/writer") == 2


async def test_both_success_statuses_are_taken_and_details_are_dropped(open_backend: Open) -> None:
    def behave(agent: str, body: dict[str, Any]) -> Run:
        run = echo(agent, body)
        run.reply = 200
        return run

    async with open_backend(NlaEngine(behave, has_details=True)) as (backend, engine):
        task = await ended(backend, (await backend.start(request())).id)
    assert task.created_at == 1767225600
    assert set(task.model_extra or {}) == set(), "agent and user may hold keys"
    (told,) = engine.tasks.values()
    assert "agent" in told


@pytest.mark.parametrize("left_out", [{"logs"}, {"output"}, {"logs", "output"}])
async def test_fields_may_be_missing(open_backend: Open, left_out: set[str]) -> None:
    async with open_backend(NlaEngine(leaves_out=frozenset(left_out))) as (backend, _):
        task = await ended(backend, (await backend.start(request())).id)
    assert task.status is TaskStatus.COMPLETED
    assert texts_of(task) == ([] if "output" in left_out else ["writer: a heist in space"])


@pytest.mark.parametrize(
    ("output", "texts", "whole"),
    [
        ({"story": "Once."}, ["Once."], {"story": "Once."}),
        ({"story": {"a": 1}}, ['{\n  "a": 1\n}'], {"story": {"a": 1}}),
        ({"a": "x", "b": "ü"}, ['{\n  "a": "x",\n  "b": "ü"\n}'], {"a": "x", "b": "ü"}),
        ("Once.", ["Once."], None),
        (["x"], ['[\n  "x"\n]'], None),
        (7, ["7"], None),
        (False, ["false"], None),
        ({}, [], None),
        ("", [], None),
        (None, [], None),
    ],
)
async def test_outputs(open_backend: Open, output: Any, texts: list[str], whole: Any) -> None:
    async with open_backend(always(done(output, "Writer: Running"))) as (backend, _):
        task = await ended(backend, (await backend.start(request())).id)
    assert task.status is TaskStatus.COMPLETED
    assert texts_of(task) == texts
    extra = [item.model_extra or {} for item in task.output]
    assert extra == [{} if whole is None else {"output": whole} for _ in texts]


@pytest.mark.parametrize(
    ("logs", "reason"),
    [
        (["A: Running", "Response: model overloaded"], "the last line of its log is: Response: model overloaded;"),
        ([], "gives no reason"),
        ("boom", "the last line of its log is: boom"),
        ([None, 3], "gives no reason"),
        (["key sk-abcdefghijkl\nTraceback (most recent call last)\n x"], "its log is: key [removed]"),
    ],
)
async def test_a_run_that_fails(open_backend: Open, logs: Any, reason: str) -> None:
    async with open_backend(always(Run([{"status": "error", "logs": logs}]))) as (backend, _):
        task = await ended(backend, (await backend.start(request())).id)
    assert task.status is TaskStatus.FAILED
    assert task.error is not None
    assert "on NLA Engine" in task.error.message
    assert reason.rstrip(";") in task.error.message
    assert "Next: " in task.error.message
    assert len(task.error.message) < 500
    assert task.output == []


# Following ----------------------------------------------------------------------------------------------


async def test_the_log_shows_how_a_task_gets_on(open_backend: Open) -> None:
    lines = ["Synopsis: Running", "Response: two\nlines", "Draft: Running"]
    updates = [{"logs": lines[: count + 1]} for count in range(3)]
    async with open_backend(always(Run([*updates, {"status": "complete", "output": "x"}]))) as (backend, _):
        task = await backend.start(request())
        shown = []
        while task.status is TaskStatus.WORKING:
            text = progress_of(task).text
            if text not in shown:
                shown.append(text)
            await anyio.sleep(0.005)
            task = await backend.retrieve(task.id)
    assert shown == [
        "",
        "Synopsis: Running",
        "Synopsis: Running\nResponse: two lines",
        "Synopsis: Running\nResponse: two lines\nDraft: Running",
    ]
    assert texts_of(task) == ["x"], "the log is no part of the answer"


async def test_what_is_shown_of_a_log_is_bounded(open_backend: Open) -> None:
    lines = [f"{number} " + "x" * 10_000 for number in range(5_000)]
    async with open_backend(always(Run([{"logs": lines}]))) as (backend, _):
        task = await backend.start(request())
        while not task.output:
            await anyio.sleep(0.005)
            task = await backend.retrieve(task.id)
    (text,) = texts_of(task)
    assert len(text.splitlines()) == 20
    assert text.splitlines()[-1].startswith("4999 x")
    assert len(text) <= 20 * 301


async def test_a_running_task_is_asked_for_once_in_a_pause(open_backend: Open) -> None:
    async with open_backend(always(Run()), pace=Pace(first=60)) as (backend, engine):
        task = await backend.start(request())
        assert [(await backend.retrieve(task.id)).status for _ in range(3)] == [TaskStatus.WORKING] * 3
        assert engine.count(f"GET /task/{task.id}") == 0
        other = engine.add()
        assert [(await backend.retrieve(other)).status for _ in range(3)] == [TaskStatus.WORKING] * 3
        assert engine.count(f"GET /task/{other}") == 1


async def test_pauses_grow_to_the_longest(open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now))
    looks: list[float] = []
    async with open_backend(always(Run()), pace=Pace(deadline=600)) as (backend, engine):
        task = await backend.start(request())
        while now < 1060:
            now += 0.1
            await backend.retrieve(task.id)
            if engine.count(f"GET /task/{task.id}") > len(looks):
                looks.append(round(now - 1000, 1))
    pauses = [round(later - earlier, 1) for earlier, later in zip([0.0, *looks], looks, strict=False)]
    assert pauses[:3] == [pytest.approx(1, abs=0.11), pytest.approx(1.6, abs=0.11), pytest.approx(2.6, abs=0.11)]
    assert max(pauses) == pytest.approx(10, abs=0.11)


@pytest.mark.parametrize(
    ("update", "status", "says"),
    [
        ({}, TaskStatus.EXPIRED, "still says 'running'"),
        ({"status": "waiting for a human"}, TaskStatus.FAILED, "still says 'waiting for a human'"),
        ({"status": None}, TaskStatus.FAILED, "gives no status"),
    ],
)
async def test_a_task_that_never_ends_is_given_up(
    open_backend: Open, update: dict[str, Any], status: TaskStatus, says: str
) -> None:
    soon = Pace(first=0.01, longest=0.01, deadline=0.1)
    async with open_backend(always(Run([update])), pace=soon) as (backend, _):
        task = await ended(backend, (await backend.start(request())).id)
    assert (task.status, task.output) == (status, [])
    assert task.error is not None
    assert says in task.error.message
    assert "not stopped and may still cost" in task.error.message


async def test_a_task_that_is_gone(open_backend: Open) -> None:
    async with open_backend(always(Run())) as (backend, engine):
        task = await backend.start(request())
        engine.tasks.clear()
        with pytest.raises(RemoteNotFound, match=r"has no such task \(HTTP 404: Task not found\)"):
            await ended(backend, task.id)
        with pytest.raises(RemoteNotFound):
            await backend.retrieve("..")
    assert "GET /" not in engine.requests


async def test_callbacks_are_told_but_not_believed(open_backend: Open) -> None:
    """They come out of order and to whoever knows the URL; what counts is what the engine says when it is asked."""
    async with (
        playing(Answer(200, {})) as receiver,
        open_backend(NlaEngine(tells_late=True)) as (backend, engine),
    ):
        asked = request(options={"callback": f"{receiver.base_url}/hook"})
        task = await ended(backend, (await backend.start(asked)).id)
    assert task.status is TaskStatus.COMPLETED
    assert engine.starts[0]["callback"] == f"{receiver.base_url}/hook#{asked.remote_id}"
    assert [seen.url for seen in receiver.seen] == ["/v1/hook", "/v1/hook"], "the mark stays with the engine"
    assert [seen.body["status"] for seen in receiver.seen] == ["complete", "running"]


# What it cannot do --------------------------------------------------------------------------------------


async def test_capabilities_say_what_it_cannot_do(open_backend: Open) -> None:
    async with open_backend() as (backend, engine):
        assert backend.capabilities == Capabilities(client_tools=False, sessions=False, files=False, cancel=False)
        assert "cannot be stopped" in backend.notice
        assert (backend.name, backend.place) == ("nla", engine.base_url)
        assert await backend.dies_with_its_stream() is False
        assert await backend.remedy(None, ["start"]) is None
        backend.recall({"a": "b"})
        assert backend.notes == {}
        for hold in (backend.pause, backend.resume):
            with pytest.raises(UnsupportedError, match=r"'nla' cannot (pause|resume) a task\. Next: cancel"):
                await hold("x")
        with pytest.raises(RemoteError, match="in one pass; none can go on"):
            await backend.proceed(Continuation("results", "t2", "s", "u", "t1", [], []))
    assert engine.requests == []


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"client_tools": [ToolDefinition("look", "", {})]}, "cannot call client tools"),
        ({"previous_remote_id": "x"}, "cannot continue a task"),
        (
            {"content": [TextContentItem(text="x"), ImageContentItem(image_url=ImageURL(url="https://x.example"))]},
            "takes text only",
        ),
    ],
)
async def test_nothing_is_started_that_it_cannot_do(open_backend: Open, fields: dict[str, Any], problem: str) -> None:
    async with open_backend() as (backend, engine):
        with pytest.raises(RemoteError, match=rf"{problem}.* Nothing was started\. Next: "):
            await backend.start(request(**fields))
    assert engine.requests == []


async def test_cancel_asks_nothing_and_says_so(open_backend: Open) -> None:
    async with open_backend(always(Run()), pace=Pace(first=60)) as (backend, engine):
        asked = request()
        task = await backend.start(asked)
        before = list(engine.requests)
        assert await backend.cancel(asked.remote_id) == "unsupported"
        assert await backend.cancel("unheard-of") == "unsupported"
        assert engine.requests == before
        await backend.retrieve(task.id)
        assert engine.count(f"GET /task/{task.id}") == 1, "it is no longer followed"


async def test_delete(open_backend: Open) -> None:
    async with open_backend() as (backend, engine):
        over, running = engine.add(status="complete"), engine.add()
        assert await backend.delete(over) == "stopped"
        assert await backend.delete(running) == "kept running"
        assert engine.tasks == {}
        with pytest.raises(RemoteNotFound):
            await backend.delete(over)


async def test_a_delete_whose_reply_is_lost(open_backend: Open) -> None:
    async with open_backend() as (backend, engine):
        gone, there, odd = engine.add(status="complete"), engine.add(status="complete"), engine.add(status="complete")
        engine.failing[f"DELETE /task/{gone} late"] = ["cut"]
        engine.failing[f"DELETE /task/{there}"] = [502, 0]
        engine.failing[f"DELETE /task/{odd}"] = ['{"deleted": true}']
        assert await backend.delete(gone) == "kept running", "what was deleted is not known"
        assert await backend.delete(there) == "stopped"
        assert await backend.delete(odd) == "kept running"


# Lists --------------------------------------------------------------------------------------------------


async def test_listing(open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    async with open_backend(NlaEngine(has_details=True)) as (backend, engine):
        first, second, third = engine.add(status="complete"), engine.add(), engine.add(status="complete")
        engine.tasks["broken"] = {"status": "complete"}
        assert [task.id async for task in backend.list()] == [third, second, first]
        assert [task.id async for task in backend.list(status=TaskStatus.COMPLETED)] == [third, first]
        assert [task.id async for task in backend.list(session_id="sess_1")] == []
        monkeypatch.setattr(module, "LISTED", 2)
        assert [task.id async for task in backend.list()] == [third, second]
        engine.failing["GET /task"] = ['{"tasks": []}']
        with pytest.raises(RemoteProtocolError, match="list of tasks is no list"):
            [task async for task in backend.list()]


@pytest.mark.parametrize(
    ("created_at", "expected"),
    [
        ("2026-01-01T00:00:00.000Z", 1767225600),
        ("2026-01-01T00:00:00", 1767225600),
        ("2026-01-01T01:00:00+01:00", 1767225600),
        (1767225600000, 1767225600),
        (1767225600.5, 1767225600.5),
        ("yesterday", 0),
        (True, 0),
        (None, 0),
        ([], 0),
    ],
)
def test_times(created_at: Any, expected: float) -> None:
    raw = {"id": "x", "createdAt": created_at}
    assert read_task(raw, Secrets(None, {})).created_at == expected


@given(
    st.fixed_dictionaries(
        {"id": st.text(min_size=1)},
        optional={
            name: st.recursive(
                st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
                lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
                max_leaves=5,
            )
            for name in ("logs", "output", "status", "createdAt", "callback", "agent", "user", "name")
        }
        | {"status": st.sampled_from(["running", "complete", "error"])},
    )
)
def test_whatever_a_task_holds_it_can_be_read(raw: dict[str, Any]) -> None:
    task = read_task(raw, Secrets(SecretStr("engine-key"), {}))
    assert TaskObject.model_validate(task.model_dump()).status is task.status


# Errors -------------------------------------------------------------------------------------------------


async def test_a_wrong_key(open_backend: Open) -> None:
    async with open_backend(key="another-key") as (backend, engine):
        for operation in (backend.start(request()), backend.retrieve("x"), backend.delete("x"), backend.agents()):
            with pytest.raises(RemoteRefused, match=r"refused the key.*NLA_ENGINE_API_KEY") as raised:
                await operation
            assert raised.value.status == 401
            assert "another-key" not in repr(raised.value)
        with pytest.raises(RemoteRefused):
            [task async for task in backend.list()]
    assert engine.starts == []


async def test_without_a_key_none_is_sent(open_backend: Open) -> None:
    async with open_backend(NlaEngine(key=None), key=None) as (backend, engine):
        await backend.start(request())
    assert not any("apikey" in header for header in engine.headers)


@pytest.mark.parametrize(
    ("status", "error", "match"),
    [
        (400, RemoteError, r"rejected the request \(HTTP 400: The engine failed\)"),
        (403, RemoteRefused, "refused the key"),
        (404, RemoteNotFound, r"has no agent 'writer' \(HTTP 404"),
        (422, RemoteError, "rejected the request"),
        (429, RemoteUnavailable, "overloaded"),
    ],
)
async def test_a_start_that_is_refused(open_backend: Open, status: int, error: type[RemoteError], match: str) -> None:
    engine = always(Run(reply=status, is_stored=False))
    async with open_backend(engine) as (backend, _):
        with pytest.raises(error, match=match) as raised:
            await backend.start(asked := request())
        assert (type(raised.value), raised.value.status) == (error, status)
        with pytest.raises(RemoteNotFound, match="has not been given the task"):
            await backend.retrieve(asked.remote_id)
        engine.behave = echo
        assert (await backend.start(asked)).status is TaskStatus.WORKING, "nothing was started, so it may be sent again"
    assert len(engine.starts) == 2


async def test_an_unknown_agent(open_backend: Open) -> None:
    async with open_backend(NlaEngine(agents=[{"id": "writer"}])) as (backend, _):
        with pytest.raises(RemoteNotFound, match=r"has no agent 'painter'.*Agent painter not found"):
            await backend.start(request(options={"agent_id": "painter"}))


@pytest.mark.parametrize(("shape", "says"), [("message", ": Not today"), ("html", ""), ("empty", "")])
async def test_error_bodies(open_backend: Open, shape: Any, says: str) -> None:
    engine = NlaEngine(error_body=shape, failing={"GET /task/x": [400]})
    async with open_backend(engine) as (backend, _):
        with pytest.raises(RemoteError) as raised:
            await backend.retrieve("x")
    assert raised.value.message == f"NLA Engine rejected the request (HTTP 400{says})."


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"error": "no"}, "HTTP 400: no"),
        ({"error": {"message": "no", "code": 3}}, "HTTP 400: no"),
        ({"detail": "no"}, "HTTP 400: no"),
        ({"message": ["no"]}, r"HTTP 400\)"),
        ({"message": "echo of engine-key here"}, r"HTTP 400: echo of \[removed\] here"),
        ('"' + "x" * 5000 + '"', "HTTP 400: x{499}…"),
    ],
)
async def test_error_texts(body: Any, says: str) -> None:
    async with answered(Answer(400, body)) as backend:
        with pytest.raises(RemoteError, match=says):
            await backend.retrieve("x")


async def test_reads_are_repeated(open_backend: Open) -> None:
    async with open_backend() as (backend, engine):
        task_id = engine.add(status="complete")
        engine.failing = {f"GET /task/{task_id}": ["cut", 502, 0], "GET /task": [500]}
        assert (await backend.retrieve(task_id)).status is TaskStatus.COMPLETED
        with pytest.raises(ReplyLost, match=r"failed while answering \(HTTP 500: Not today\)"):
            [task async for task in backend.list()]
    assert engine.count(f"GET /task/{task_id}") == 3
    assert engine.count("GET /task") == 3


@pytest.mark.parametrize("body", ["", "<html>hello</html>", "null", "[" * 100_000])
async def test_garbage(body: str) -> None:
    async with answered(Answer(200, body, {"content-type": "text/html"})) as backend:
        with pytest.raises(RemoteProtocolError, match="HTTP 200 with text/html, not with JSON") as raised:
            await backend.retrieve("x")
    assert raised.value.status == 200


@pytest.mark.parametrize("body", [[], "text", {"status": "complete"}, {"id": ""}, {"id": 7}])
async def test_something_that_is_no_task(body: Any) -> None:
    async with answered(Answer(200, [body])) as backend:
        with pytest.raises(RemoteProtocolError, match="something that is no task"):
            await backend.retrieve("x")


async def test_half_a_surrogate_pair_is_repaired() -> None:
    answer = Answer(200, '{"id": "x", "status": "complete", "output": "a \\ud83d b"}')
    async with answered(answer) as backend:
        task = await backend.retrieve("x")
    task.model_dump_json().encode()
    assert texts_of(task) == ["a ? b"]


async def test_a_very_large_answer(open_backend: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "ANSWER_LIMIT", 2**20)
    async with open_backend() as (backend, engine):
        task_id = engine.add(output={"text": "x" * 2**20})
        with pytest.raises(RemoteProtocolError, match="larger than 1 MiB"):
            await backend.retrieve(task_id)


async def test_the_key_follows_no_redirect(open_backend: Open) -> None:
    async with open_backend() as (_, engine):
        host = engine.base_url.removeprefix("http://")
        redirect = Answer(307, "", {"location": f"http://user:pass@{host}/api/v1/task/x"})
        async with answered(redirect) as backend:
            with pytest.raises(RemoteError, match=rf"redirects to {host} \(HTTP 307\)") as raised:
                await backend.retrieve("x")
            assert "pass" not in str(raised.value)
            with pytest.raises(RemoteError, match="the key is not taken there"):
                await backend.start(request(options={"agent_id": "a"}))
        async with answered(Answer(301, "", {"location": "/elsewhere"})) as backend:
            with pytest.raises(RemoteError, match="redirects to another path"):
                await backend.retrieve("x")
    assert engine.requests == []


async def test_nobody_there(open_backend: Open) -> None:
    async with open_backend() as (_, engine):
        url = engine.base_url
    async with NlaEngineBackend(url, agent_id="writer") as backend:
        for operation in (backend.start(request()), backend.retrieve("x")):
            with pytest.raises(RemoteUnavailable, match=rf"{url} cannot be reached.*NLA_ENGINE_BASE_URL"):
                await operation


@pytest.mark.parametrize("url", ["http://127.0.0.1:port", "ftp://127.0.0.1", "engine.example"])
async def test_an_unusable_url(url: str) -> None:
    async with NlaEngineBackend(url) as backend:
        with pytest.raises(RemoteUnavailable, match=r"is not a usable URL.*NLA_ENGINE_BASE_URL"):
            await backend.retrieve("x")


async def test_the_path_of_the_api_may_be_part_of_the_url(open_backend: Open) -> None:
    async with open_backend() as (_, engine):
        backend = NlaEngineBackend(f"{engine.base_url}/api/v1/", SecretStr("engine-key"))
        assert backend.place == engine.base_url
        async with backend:
            assert await backend.agents() == []


@pytest.mark.parametrize("key", ["very-secret\n", "very-sécret"])
async def test_a_key_that_cannot_be_sent_is_not_shown(open_backend: Open, key: str) -> None:
    async with open_backend(key=key) as (backend, engine):
        with pytest.raises(RemoteUnavailable, match=r"cannot be sent.*NLA_ENGINE_API_KEY") as raised:
            await backend.start(request())
    assert "cret" not in f"{raised.value!r} {raised.value.__cause__!r}"
    assert engine.requests == []


async def test_a_remote_that_does_not_answer(open_backend: Open) -> None:
    gate = anyio.Event()
    engine = always(Run(gate=gate))
    async with open_backend(engine, answer_timeout=0.3, compares=False) as (backend, _):
        with pytest.raises(BridgeError, match=r"is unknown: .* did not answer within 0\.3 seconds"):
            await backend.start(request())
        gate.set()
    assert len(engine.starts) == 1
