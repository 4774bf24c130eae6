"""Keys: named in options, sent to the engine, and seen nowhere else."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from agentlin_bridge.errors import InvalidRequestError, RemoteError
from agentlin_bridge.remote.nla_engine.backend import NlaEngineBackend
from agentlin_bridge.remote.nla_engine.options import RunOptions, run_of
from agentlin_bridge.remote.nla_engine.secrets import Secrets, reference, references
from tests.remote.nla_engine.asking import ended, request, texts_of
from tests.remote.nla_engine.conftest import Open
from tests.support.nla_engine import NlaEngine, Run, done

pytestmark = pytest.mark.anyio

PROVIDER_KEY = "r8_0123456789abcdef"
SECRETS = {"REPLICATE_KEY": SecretStr(PROVIDER_KEY), "HOOK": SecretStr("https://app.example/hook/unguessable")}
OPTIONS = {"input": {"replicate_key": "${REPLICATE_KEY}"}, "callback": "${HOOK}"}


async def test_references_are_put_in_at_sending(open_backend: Open) -> None:
    asked = request("Use ${REPLICATE_KEY}", options={**OPTIONS, "input": {"k": "${REPLICATE_KEY}", "t": "a ${HOOK}"}})
    async with open_backend(secrets=SECRETS) as (backend, engine):
        backend.check_options(asked.options)
        await backend.start(asked)
    assert engine.starts == [
        {
            "input": {"k": PROVIDER_KEY, "t": "a ${HOOK}", "prompt": "Use ${REPLICATE_KEY}"},
            "callback": f"https://app.example/hook/unguessable#{asked.remote_id}",
        }
    ]


async def test_keys_are_seen_nowhere(open_backend: Open, caplog: pytest.LogCaptureFixture) -> None:
    """The engine says them again in all it can: variables, logs, output, errors."""
    caplog.set_level(logging.DEBUG)

    def behave(agent: str, body: dict[str, Any]) -> Run:
        key = body["input"]["replicate_key"]
        if body["input"]["prompt"] == "fail":
            return Run([{"status": "error", "logs": [f"Writer: cannot use {key} or engine-key"]}])
        return done({"answer": {"text": f"with {key}", key: [key, 1]}, key: "engine-key"}, f"Writer: {key}", key)

    shown = []
    async with open_backend(NlaEngine(behave, has_details=True), secrets=SECRETS) as (backend, engine):
        for text in ("go", "fail"):
            task = await backend.start(request(text, options=OPTIONS))
            while not task.output and task.error is None:
                task = await backend.retrieve(task.id)
            shown += [task, await ended(backend, task.id)]
        shown += [task async for task in backend.list()]
        engine.failing["GET /task"] = ['"engine-key"']
        with pytest.raises(RemoteError) as raised:
            [task async for task in backend.list()]
        seen = [*(task.model_dump_json() for task in shown), *map(repr, shown), repr(backend), str(vars(backend))]
    assert any("with [removed]" in text for task in shown for text in texts_of(task))
    told = json.dumps(list(engine.tasks.values()))
    for key in (PROVIDER_KEY, "engine-key", "unguessable", "r8_variable_of_the_agent"):
        assert key in told, "the engine did say it"
        assert not any(key in text for text in [*seen, repr(raised.value), caplog.text])


async def test_a_secret_that_is_gone_by_the_time_of_sending(open_backend: Open) -> None:
    async with open_backend() as (backend, engine):
        with pytest.raises(RemoteError, match=r"refers to \$\{REPLICATE_KEY\}.*Next: set the environment variable"):
            await backend.start(request(options=OPTIONS))
    assert engine.requests == []


def check(options: dict[str, Any], agent_id: str | None = "writer") -> None:
    backend = NlaEngineBackend("http://x.example", SecretStr("engine-key"), agent_id=agent_id, secrets=SECRETS)
    backend.check_options(options)


@pytest.mark.parametrize(
    "options",
    [
        {},
        OPTIONS,
        {"agent_id": "movie-agent_1.2", "prompt_key": "synopsis", "input": {"prompt": "a"}},
        {"input": {"keyword": "x", "monkey": "y", "max_tokens": "100", "api_key": ""}},
        {"callback": "https://app.example:8443/hook?x=1"},
    ],
)
def test_options_that_can_be_used(options: dict[str, Any]) -> None:
    check(options)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"input": {"count": 3}}, r"option input\.count cannot be used: Input should be a valid string"),
        ({"input": "x"}, "option input cannot be used"),
        ({"inputs": {}}, r"option inputs cannot be used.*takes agent_id, callback, input, prompt_key"),
        ({"agent_id": 7}, "option agent_id cannot be used"),
        ({"agent_id": "a/../b"}, "option agent_id is no id"),
        ({"agent_id": ".."}, "option agent_id is no id"),
        ({"agent_id": ""}, "option agent_id is no id"),
        ({"prompt_key": ""}, "option prompt_key is empty"),
        ({"input": {"prompt": "x"}}, r"option input\.prompt would go where the instructions go"),
        ({"prompt_key": "t", "input": {"t": "x"}}, r"option input\.t would go where"),
        ({"input": {"k": "${OTHER}"}}, r"input\.k refers to \$\{OTHER\}.*known: HOOK, REPLICATE_KEY"),
        ({"callback": "${OTHER}"}, r"callback refers to \$\{OTHER\}"),
        ({"callback": "ftp://secret.example"}, "option callback is no http"),
        ({"callback": "https://secret.example/#x"}, "option callback is no http"),
        ({"callback": "https://secret.example/a b"}, "option callback is no http"),
        ({"callback": "https://secret.example:port"}, "option callback is no http"),
        ({"callback": "https:secret"}, "option callback is no http"),
        ({"callback": "${REPLICATE_KEY}"}, "option callback is no http"),
        *(
            ({"input": {name: "secret"}}, rf"option input\.{name} looks like a key.*Next: .*\$\{{ITS_NAME\}}")
            for name in ("apikey", "api_key", "replicateKey", "REPLICATE_API_TOKEN", "APIKey", "my-password", "key")
        ),
        ({"input": {"a.key": "secret"}}, "looks like a key"),
        *(
            ({"input": {"note": value}}, r"option input\.note looks like a key")
            for value in ("sk-secretsecret", " r8_secretsecret", "hf_secretsecret", "see engine-key", PROVIDER_KEY)
        ),
    ],
)
def test_options_that_cannot(options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as raised:
        check(options)
    said = f"{raised.value} {raised.value.__cause__!r}"
    assert "secret.example" not in said
    assert "secretsecret" not in said
    assert PROVIDER_KEY not in said
    assert ": secret" not in said


def test_an_agent_has_to_be_named() -> None:
    with pytest.raises(InvalidRequestError, match=r"No agent of NLA Engine is named\. Next: give an agent profile"):
        check({}, agent_id=None)
    check({"agent_id": "writer"}, agent_id=None)


def test_references() -> None:
    assert reference("${A_1}") == "A_1"
    assert [reference(value) for value in ("$A", "${A} ", "x${A}", "${1}", "", None, 3)] == [None] * 7
    assert references({"input": {"a": "${A}", "b": "x", "c": "${C}"}, "callback": "${D}", "agent_id": "${E}"}) == {
        "A",
        "C",
        "D",
    }
    assert references({"input": "${A}"}) == set()
    assert references({}) == set()


def test_a_run_does_not_show_its_inputs() -> None:
    run = run_of(OPTIONS, ["x"], Secrets(None, SECRETS), default_agent="writer", mark=None)
    assert run.input["replicate_key"] == PROVIDER_KEY
    assert repr(run) == "Run(agent_id='writer')"
    assert sorted(RunOptions.__annotations__) == ["agent_id", "callback", "input", "prompt_key"]


@given(st.text(), st.sampled_from([PROVIDER_KEY, "engine-key", "engine-key-and-more"]), st.text())
def test_what_is_known_never_gets_through(before: str, key: str, after: str) -> None:
    named = {"A": SecretStr(PROVIDER_KEY), "B": SecretStr("engine-key-and-more"), "C": SecretStr("abc")}
    secrets = Secrets(SecretStr("engine-key"), named)
    value = {f"{before}{key}{after}": [f"{before}{key}{after}", None, {"x": 1.5}]}
    said = json.dumps(secrets.redact_all(value), ensure_ascii=False)
    assert key not in said
    assert "and-more" not in said or "and-more" in before + after
    assert secrets.redact("abc") == "abc", "what is as short as a word stays"
    assert Secrets(None, {}).redact(key) == key
