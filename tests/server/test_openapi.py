"""The OpenAPI document: it says what the server does, and the server does what it says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from agentlin_bridge.server.web.app import VERSION
from tests.support.postgres import Postgres
from tests.support.processes import subprocess_environment

from .agents import Scripted, result, weather
from .conftest import Server, Serving
from .crashing import CrashServer

SECONDS = int(os.environ.get("AGENTLIN_BRIDGE_SCHEMA_SECONDS", "20"))
"""For which requests are made up, on each kind of database."""


def document(server: Server) -> dict[str, Any]:
    response = server.get(server.url.removesuffix("/v1") + "/openapi.json")
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def test_it_needs_no_key_and_names_the_version(serving: Serving) -> None:
    server = serving(api_key="secret")
    server.headers.pop("Authorization")
    found = document(server)
    assert found["openapi"] == "3.1.0"
    assert found["info"]["version"] == VERSION
    assert found["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    assert "secret" not in str(found["paths"])


def test_it_has_every_route(server: Server) -> None:
    found = document(server)
    described = {(path, method.upper()) for path, methods in found["paths"].items() for method in methods}
    for path, method in described:
        url = server.url.removesuffix("/v1") + path.replace("{task_id}", "task_none")
        assert server.request(method, url).status_code not in {405, 501}
        assert server.request("PATCH", url).status_code == 405
    assert ("/v1/tasks/{task_id}/events", "GET") in described
    assert len(described) == 13
    names = [operation["operationId"] for methods in found["paths"].values() for operation in methods.values()]
    assert len(set(names)) == len(names)


def test_its_references_lead_somewhere(server: Server) -> None:
    found = document(server)

    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    wanted = references(found)
    assert wanted
    assert wanted <= {f"#/components/schemas/{name}" for name in found["components"]["schemas"]}
    for schema in found["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_events_are_what_it_says_they_are(serving: Serving) -> None:
    server = serving(Scripted(weather))
    found = document(server)
    validator = jsonschema.Draft202012Validator(
        {"$ref": "#/components/schemas/EventEnvelope", "components": found["components"]}
    )
    asked = server.make("Paris", session_id="s", task_id="task_1")
    server.make([], session_id="s", tool_results=[result(asked["input_required_call_ids"][0], "sun")], task_id="task_2")
    for task_id in ("task_1", "task_2"):
        lines = server.get(f"tasks/{task_id}/events").text.splitlines()
        sent = [json.loads(line[6:]) for line in lines if line.startswith("data: ")]
        assert len(sent) >= 4
        for envelope in sent:
            validator.validate(envelope)
    with pytest.raises(jsonschema.ValidationError):
        validator.validate({"jsonrpc": "2.0", "id": "r", "result": {"task_id": "task_1"}})


def test_made_up_requests_get_documented_answers(serving: Serving, tmp_path: Path) -> None:
    server = serving(Scripted(weather), api_key="secret")
    server.make("Paris", task_id="task_1", session_id="s")
    check_with_made_up_requests(server.url, tmp_path)


def test_made_up_requests_get_documented_answers_on_postgres(postgres: Postgres, tmp_path: Path) -> None:
    with CrashServer(postgres.new_database(), tmp_path / "journal") as server:
        server.start()
        check_with_made_up_requests(server.url.removesuffix("/tasks"), tmp_path)
        assert server.is_alive


def check_with_made_up_requests(url: str, directory: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "schemathesis.cli",
        "run",
        url.removesuffix("/v1") + "/openapi.json",
        "--header=Authorization: Bearer secret",
        "--checks=not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,"
        "response_headers_conformance,negative_data_rejection,ignored_auth,unsupported_method",
        "--phases=coverage,fuzzing,stateful",
        "--mode=all",
        f"--max-time={SECONDS}",
        f"--max-examples={SECONDS // 2}",
        "--generation-deterministic",
        "--suppress-health-check=all",
        "--no-color",
    ]
    outcome = subprocess.run(
        command,
        cwd=directory,
        env=subprocess_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS + 60,
        check=False,
        stdin=subprocess.DEVNULL,
    )
    assert outcome.returncode == 0, outcome.stdout[-6000:] + outcome.stderr[-2000:]
    made_up = re.search(r"(\d+) generated", outcome.stdout)
    assert made_up is not None
    assert int(made_up[1]) > 100
