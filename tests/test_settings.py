"""Settings: what the environment and the file mean, and what half of them says."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from agentlin_bridge import ConfigurationError, InvalidRequestError, TaskBridge
from agentlin_bridge.settings import DEFAULT_BASE_URL, BackendName, Config, load_settings
from agentlin_bridge.wiring import DEMO_NOTICE, build_backends

CONFIGS = Path(__file__).parents[1] / "configs"


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("environment", "backend", "url"),
    [
        ({}, BackendName.EMBEDDED, None),
        ({"AGENTLIN_API_KEY": "k"}, BackendName.AGENTLIN, DEFAULT_BASE_URL),
        ({"AGENTLIN_BASE_URL": "http://127.0.0.1:1/v1"}, BackendName.AGENTLIN, "http://127.0.0.1:1/v1"),
        ({"CLIENT_BASE_URL": "http://127.0.0.1:2/v1"}, BackendName.AGENTLIN, "http://127.0.0.1:2/v1"),
        (
            {"AGENTLIN_BASE_URL": "http://127.0.0.1:1/v1", "CLIENT_BASE_URL": "http://127.0.0.1:2/v1"},
            BackendName.AGENTLIN,
            "http://127.0.0.1:1/v1",
        ),
        ({"AGENTLIN_API_KEY": "k", "AGENTLIN_BRIDGE_BACKEND": "embedded"}, BackendName.EMBEDDED, None),
        ({"AGENTLIN_API_KEY": "", "AGENTLIN_BASE_URL": ""}, BackendName.EMBEDDED, None),
        ({"NLA_ENGINE_BASE_URL": "http://127.0.0.1:3"}, BackendName.NLA, None),
        ({"NLA_ENGINE_BASE_URL": "http://127.0.0.1:3", "AGENTLIN_API_KEY": "k"}, BackendName.AGENTLIN, None),
        (
            {"NLA_ENGINE_BASE_URL": "http://127.0.0.1:3", "AGENTLIN_BRIDGE_BACKEND": "embedded"},
            BackendName.EMBEDDED,
            None,
        ),
    ],
)
def test_which_backend(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], backend: BackendName, url: str | None
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    assert settings.backend is backend
    built = build_backends(settings, Config())[0]
    assert built.name == backend
    assert (built.notice == DEMO_NOTICE) is (backend is BackendName.EMBEDDED)
    if url is not None:
        assert url in repr(vars(vars(built)["_transport"])["_endpoint"])


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"AGENTLIN_BRIDGE_DATABASE": "postgresql://me:secret@host/db"}, "started on demand keeps its tasks in a file"),
        ({"AGENTLIN_BRIDGE_BACKEND": "nla"}, "NLA_ENGINE_BASE_URL is not set"),
        ({"NLA_ENGINE_API_KEY": "secret"}, "NLA_ENGINE_BASE_URL is not set"),
        ({"NLA_ENGINE_BASE_URL": "engine"}, "NLA_ENGINE_BASE_URL: 'engine' is not an http"),
        ({"AGENTLIN_BRIDGE_BACKEND": "agentlin"}, "neither AGENTLIN_BASE_URL nor AGENTLIN_API_KEY"),
        ({"AGENTLIN_BRIDGE_BACKEND": "temporal"}, "AGENTLIN_BRIDGE_BACKEND is 'temporal'.*agentlin, embedded, nla"),
        ({"AGENTLIN_CLIENT_ID": "AIME"}, "AGENTLIN_CLIENT_ID is set, but neither"),
        ({"AGENTLIN_BASE_URL": "agentlin.example"}, "AGENTLIN_BASE_URL: 'agentlin.example' is not an http"),
        ({"AGENTLIN_BASE_URL": "http://127.0.0.1:99999/v1"}, "AGENTLIN_BASE_URL: Port out of range"),
        ({"AGENTLIN_BASE_URL": "http://127.0.0.1:0/v1"}, "is not an http"),
        ({"AGENTLIN_BASE_URL": "https://me:secret@host/v1"}, "must not carry credentials"),
        ({"AGENTLIN_API_KEY": "secret\nkey"}, "AGENTLIN_API_KEY: the key holds characters"),
        ({"AGENTLIN_API_KEY": "secrét"}, "AGENTLIN_API_KEY: the key holds characters"),
        ({"AGENTLIN_BRIDGE_SERVER_KEYS": "secret"}, "server_keys.*write it as JSON"),
    ],
)
def test_half_a_configuration_is_an_error(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], said: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError, match=said) as raised:
        TaskBridge.from_env()
    assert raised.value.next_step
    assert "secret" not in str(raised.value)


def test_a_key_from_a_file_may_end_in_a_line_break(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_API_KEY", " key\n")
    key = load_settings().api_key
    assert key is not None
    assert key.get_secret_value() == "key"


def profiles(directory: Path, text: str) -> None:
    (directory / "agentlin-bridge.toml").write_text(text)


def test_profiles_name_the_backends_that_are_used_besides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NLA_ENGINE_BASE_URL", "http://127.0.0.1:3")
    monkeypatch.setenv("AGENTLIN_BRIDGE_BACKEND", "embedded")
    profiles(tmp_path, '[agents.movie]\nbackend = "nla"\nagent_id = "movie"\n[agents.plain]\n')
    bridge = TaskBridge.from_env(ledger=str(tmp_path / "ledger"))
    assert bridge.capabilities.client_tools
    assert bridge.capabilities_of("plain").client_tools
    assert not bridge.capabilities_of("movie").client_tools


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ('backend = "nla"', "NLA_ENGINE_BASE_URL is not set"),
        ('backend = "agentlin"', "neither AGENTLIN_BASE_URL nor AGENTLIN_API_KEY"),
        ('backend = "temporal"', "agents.movie.backend is 'temporal'"),
        ("backend = [1]", r"agents.movie.backend is \[1\]"),
    ],
)
def test_a_profile_whose_backend_is_not_set_up_is_an_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, profile: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    profiles(tmp_path, f"[agents.movie]\n{profile}\n")
    with pytest.raises(ConfigurationError, match=said):
        TaskBridge.from_env()


def test_of_the_environment_only_what_profiles_refer_to_is_sent_to_the_engine(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in {"NLA_ENGINE_BASE_URL": "http://127.0.0.1:3", "GIVEN": "given", "OTHER": "other"}.items():
        monkeypatch.setenv(name, value)
    profiles(tmp_path, '[agents.movie]\nagent_id = "movie"\n[agents.movie.input]\nkey = "${GIVEN}"\n')
    settings = load_settings()
    (engine,) = build_backends(settings, settings.load_config())
    engine.check_options({"agent_id": "movie", "input": {"key": "${GIVEN}"}})
    with pytest.raises(InvalidRequestError, match=r"refers to \$\{OTHER\}, which this bridge has no secret for"):
        engine.check_options({"agent_id": "movie", "input": {"key": "${OTHER}"}})


def test_the_key_is_nowhere_to_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_API_KEY", "very-secret")
    monkeypatch.setenv("AGENTLIN_BRIDGE_LEDGER", "postgresql://me:very-secret@host/db")
    settings = load_settings()
    shown = [repr(settings), str(settings), settings.model_dump_json(), repr(build_backends(settings, Config())[0])]
    assert not any("very-secret" in text for text in shown)
    bridge = TaskBridge.from_env()
    with pytest.raises(TypeError, match="keeps its key"):
        pickle.dumps(bridge)


def test_the_example_file_names_every_limit_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AGENTLIN_BRIDGE_CONFIG", str(CONFIGS / "agentlin-bridge.toml"))
    config = load_settings().load_config()
    assert config.limits == Config().limits
    assert config.limits.model_fields_set == set(type(config.limits).model_fields)
    assert config.mcp == Config().mcp
    assert config.mcp.model_fields_set == set(type(config.mcp).model_fields)
    assert config.client_tools["run_query"].parameters["required"] == ["sql"]
    assert config.agents == {"reader": {"disallowed_tools": ["Bash", "Write", "Edit"]}}


def test_a_file_in_the_working_directory_counts(tmp_path: Path) -> None:
    assert load_settings().load_config() == Config()
    (tmp_path / "agentlin-bridge.toml").write_text("[limits]\nsettle = 1", encoding="utf-8")
    assert load_settings().load_config().limits.settle == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "names .*missing.toml, which does not exist"),
        ("[limits", "cannot be read: "),
        ("[limits]\nsettle = -1", "limits.settle: Input should be greater"),
        ('[mcp]\nprefix = "a b"', "mcp.prefix: String should match"),
        ("[client_tools.x]\nhandler = 1", "client_tools.x.handler: Extra inputs"),
        ("[limit]\nsettle = 1", "limit: Extra inputs are not permitted"),
        (b"\xff\xfe", "cannot be read: "),
    ],
)
def test_a_bad_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | bytes | None, said: str
) -> None:
    path = tmp_path / "missing.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    monkeypatch.setenv("AGENTLIN_BRIDGE_CONFIG", str(path))
    with pytest.raises(ConfigurationError, match=said):
        TaskBridge.from_env()


def test_where_things_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    settings = load_settings()
    assert Path(settings.ledger_path) == tmp_path / "agentlin-bridge" / "ledger.sqlite3"
    assert settings.database_path(None) == tmp_path / "agentlin-bridge" / "embedded.sqlite3"
    named = tmp_path / "agentlin-bridge" / "embedded-openai-gpt-5.5.sqlite3"
    assert settings.database_path("openai:gpt-5.5") == named
    monkeypatch.setenv("AGENTLIN_BRIDGE_LEDGER", "elsewhere.sqlite3")
    monkeypatch.setenv("AGENTLIN_BRIDGE_DATABASE", "~/tasks.sqlite3")
    settings = load_settings()
    assert settings.ledger_path == "elsewhere.sqlite3"
    assert settings.database_path("openai:gpt-5.5") == Path.home() / "tasks.sqlite3"
