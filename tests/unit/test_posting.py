"""One POST against peers of every manner, over real sockets: told, or refused and why, in time."""

from __future__ import annotations

import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Callable

import pytest
from peers import (
    Behaviour,
    Peer,
    answering,
    dripping,
    flooding,
    half_closing,
    saying,
    silent,
)

from mwtrace.errors import ConfigError
from mwtrace.tell.posting import Credentials, parse_address, read_credentials
from mwtrace.tell.posting import Peer as Client
from mwtrace.tell.sinks import Undelivered

Start = Callable[..., Peer]


@pytest.fixture
def start() -> Iterator[Start]:
    started: list[Peer] = []

    def begin(behave: Behaviour, tls: ssl.SSLContext | None = None) -> Peer:
        started.append(Peer(behave, tls))
        return started[-1]

    yield begin
    for peer in started:
        peer.stop()


def client(peer: Peer, path: str = "/hook", **credentials: str) -> Client:
    return Client(parse_address(peer.url + path, "--webhook"), Credentials(**credentials))


def refusal(peer: Peer, timeout_s: float = 0.2) -> Undelivered:
    with pytest.raises(Undelivered) as raised:
        client(peer).post(b"{}", timeout_s)
    return raised.value


def test_what_is_posted_arrives_whole(start: Start) -> None:
    peer = start(answering(200))
    client(peer, "/hook?team=a%20b", authorization="Bearer secret").post(b"x" * 300_000)
    (request,) = peer.requests
    assert request.line == "POST /hook?team=a%20b HTTP/1.1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer secret"
    assert request.body == b"x" * 300_000


@pytest.mark.parametrize(
    ("behave", "words"),
    [
        (silent, "no answer in time"),
        (half_closing, "it closed the connection without an answer"),
        (dripping, "no answer in time"),
        (saying(b"\x00\xff\x16\x03\x01 SSH-2.0\r\n\r\n"), "what it answered is no HTTP"),
        (saying(b""), "it closed the connection without an answer"),
        (saying(b"HTTP/1.1 999999 x\r\n\r\n"), "what it answered is no HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"A" * 200_000), "what it answered is no HTTP"),
        (saying(b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 9_000), "what it answered is no HTTP"),
    ],
)
def test_a_peer_that_does_not_speak_http_in_time_is_tried_again(
    start: Start, behave: Behaviour, words: str
) -> None:
    peer = start(behave)
    began_s = time.monotonic()
    undelivered = refusal(peer)
    assert time.monotonic() - began_s < 5.0  # the deadline is 0.4 s; none of them ends by itself
    assert undelivered.again
    assert str(undelivered) == f"{peer.url}: {words}"


def test_a_peer_that_is_not_there_is_tried_again(start: Start) -> None:
    peer = start(silent)
    peer.stop()
    undelivered = refusal(peer)
    assert undelivered.again
    assert str(undelivered) == f"{peer.url}: Connection refused"


@pytest.mark.parametrize(
    ("status", "again"),
    [(400, False), (401, False), (404, False), (301, False), (204, None), (202, None)]
    + [(408, True), (429, True), (500, True), (503, True)],
)
def test_whether_to_try_again_depends_on_the_answer(
    start: Start, status: int, again: bool | None
) -> None:
    peer = start(answering(status, b"" if status == 204 else b"\x1b[2Jwhy\n not"))
    if again is None:
        client(peer).post(b"{}")
        return
    undelivered = refusal(peer, 2.0)
    assert undelivered.again is again
    assert str(undelivered) == f"{peer.url} answered {status}: \\x1b[2Jwhy not"


def test_a_peer_may_say_when_to_come_again(start: Start) -> None:
    assert refusal(start(answering(429, b"", "Retry-After: 17"))).after_s == 17.0
    assert refusal(start(answering(503, b"", "Retry-After: Fri, 01 Jan"))).after_s is None


def test_a_redirect_is_not_followed(start: Start) -> None:
    other = start(answering(200))
    peer = start(answering(307, b"", f"Location: {other.url}/"))
    assert not refusal(peer).again
    assert other.requests == []


def test_of_a_refusal_that_never_ends_the_beginning_is_read(start: Start) -> None:
    undelivered = refusal(start(flooding), 2.0)
    assert undelivered.again
    assert len(str(undelivered)) < 300


def test_the_path_of_a_webhook_is_never_said(start: Start) -> None:
    peer = start(answering(404))
    with pytest.raises(Undelivered) as raised:
        client(peer, "/services/T0/SECRET").post(b"{}")
    assert "SECRET" not in str(raised.value)


# -- addresses and credentials -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path", "words"),
    [
        ("http://am:9093", "/api/v2/alerts", "http://am:9093"),
        ("http://am:9093/", "/api/v2/alerts", "http://am:9093"),
        ("https://am/alertmanager/", "/alertmanager/api/v2/alerts", "https://am"),
        ("http://[::1]:9093", "/api/v2/alerts", "http://[::1]:9093"),
    ],
)
def test_an_alertmanager_may_live_below_a_prefix(url: str, path: str, words: str) -> None:
    address = parse_address(url, "--alertmanager", "/api/v2/alerts")
    assert (address.path, address.words) == (path, words)


@pytest.mark.parametrize(
    "url",
    ["", "am:9093", "ftp://am", "http://", "http://a b/", "http://am:x/", "http://am:99999/"]
    + ["http://me:secret@am/", "http://am/ü", "http://[::1/", "http://am\n.x/a b"],
)
def test_what_is_no_url_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_address(url, "--alertmanager")
    assert "secret" not in str(raised.value)


def secrets(tmp_path: Path, text: str, mode: int = 0o600) -> str:
    file = tmp_path / "auth.ini"
    file.write_text(text)
    file.chmod(mode)
    return str(file)


def test_credentials_come_from_a_file(tmp_path: Path) -> None:
    basic = read_credentials(secrets(tmp_path, "[basic]\nusername = me\npassword = a%b c\n"))
    assert basic.authorization == "Basic bWU6YSViIGM="
    bearer = read_credentials(secrets(tmp_path, "[bearer]\ntoken = t\n[tls]\nca_file = /ca.pem\n"))
    assert (bearer.authorization, bearer.ca_file) == ("Bearer t", "/ca.pem")


@pytest.mark.parametrize(
    "text",
    ["no ini", "[bearer]\n", "[bearer]\ntoken = a\tb", "[basic]\nuser = x", "[other]\n"]
    + ["[basic]\nusername=a\n[bearer]\ntoken=b", "[bearer]\ntoken = ü"],
)
def test_what_is_no_file_of_credentials_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError):
        read_credentials(secrets(tmp_path, text))


def test_secrets_that_all_may_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="all users may read it"):
        read_credentials(secrets(tmp_path, "[bearer]\ntoken = t\n", 0o644))


# -- https ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    command += ["-nodes", "-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=127.0.0.1"]
    command += ["-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return cert, key


@pytest.fixture
def tls(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


def test_a_peer_with_a_certificate_that_we_were_told_of_is_believed(
    start: Start, tls: ssl.SSLContext, certificate: tuple[Path, Path]
) -> None:
    peer = start(answering(200), tls)
    client(peer, ca_file=str(certificate[0])).post(b"{}")
    assert peer.requests[0].body == b"{}"


def test_a_peer_with_another_certificate_is_told_nothing(start: Start, tls: ssl.SSLContext) -> None:
    peer = start(answering(200), tls)
    undelivered = refusal(peer, 5.0)
    assert undelivered.again
    assert "certificate" in str(undelivered)
    assert peer.requests == []


def test_certificates_that_are_not_there_are_refused_at_the_start() -> None:
    address = parse_address("https://am", "--alertmanager")
    with pytest.raises(ConfigError, match="No such file"):
        Client(address, Credentials(ca_file="/nonexistent.pem"))
