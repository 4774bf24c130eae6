"""Behind TLS: a redirect to http, which the published server sends, neither leaks nor drops the key."""

from __future__ import annotations

import datetime
import ipaddress
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr

from agentlin_bridge.errors import RemoteUnavailable
from agentlin_bridge.remote.agentlin.backend import AgentlinBackend
from agentlin_bridge.remote.agentlin.dialect import Dialect
from agentlin_bridge.remote.agentlin.endpoint import Address, FixedEndpoint
from agentlin_bridge.remote.backend import StartRequest
from agentlin_bridge.task import TaskStatus, TextContentItem
from tests.support.replay import Answer, playing, recorded

pytestmark = pytest.mark.anyio


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 with its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM) + private)
    return path


async def test_a_redirect_to_http(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    redirect = Answer(307, "", {"location": ""})
    async with playing(redirect, recorded("create_nonstream_text"), certificate=certificate) as player:
        redirect.headers["location"] = f"http://{player.base_url.removeprefix('https://')}/tasks/"  # type: ignore[index]
        endpoint = FixedEndpoint(Address(player.base_url, SecretStr("key")))
        async with AgentlinBackend(endpoint, dialect=Dialect.DOCUMENTED) as backend:
            task = await backend.start(StartRequest("task_1", "s", "u", [TextContentItem(text="x")]))
    assert player.base_url.startswith("https://")
    assert task.status is TaskStatus.COMPLETED
    assert [seen.url for seen in player.seen] == ["/v1/tasks", "/v1/tasks/"]
    assert [seen.headers["authorization"] for seen in player.seen] == ["Bearer key"] * 2


async def test_an_unknown_certificate_gets_no_key(certificate: Path) -> None:
    async with playing(recorded("create_nonstream_text"), certificate=certificate) as player:
        endpoint = FixedEndpoint(Address(player.base_url, SecretStr("key")))
        async with AgentlinBackend(endpoint, dialect=Dialect.DOCUMENTED) as backend:
            with pytest.raises(RemoteUnavailable, match="certificate verify failed"):
                await backend.start(StartRequest("task_1", "s", "u", [TextContentItem(text="x")]))
    assert player.seen == []
