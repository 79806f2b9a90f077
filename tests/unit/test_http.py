"""The HTTP server over real sockets: peers that are slow, rude, many or gone."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
import urllib.error
from collections.abc import Iterator

import pytest
from servers import fetch, free_port, wait_until

from mwtrace.errors import ConfigError
from mwtrace.tell import http as tell_http
from mwtrace.tell.http import CONNECTIONS_MAX, Address, Answer, HttpServer, Request, parse_address

ANYWHERE = Address("127.0.0.1", 0)
LARGE = b"x" * (8 << 20)  # more than the kernel's buffers take


def hello(request: Request) -> Answer:
    return Answer(200, f"{request.query.get('name', '?')} {request.accept}".encode())


def fails(request: Request) -> Answer:
    raise ZeroDivisionError


@pytest.fixture
def server() -> Iterator[HttpServer]:
    pages = {"/": hello, "/fails": fails, "/large": lambda request: Answer(200, LARGE)}
    server = HttpServer(ANYWHERE, pages)
    yield server
    server.close()


def port_of(server: HttpServer) -> int:
    return int(server.address.rpartition(":")[2])


def connect(server: HttpServer) -> socket.socket:
    peer = socket.create_connection(("127.0.0.1", port_of(server)), 20)
    return peer


def read_all(peer: socket.socket) -> bytes:
    data = b""
    try:
        while piece := peer.recv(1 << 16):
            data += piece
    except ConnectionError:
        pass
    return data


def test_a_page_gets_the_query_and_the_accept_header(server):
    assert fetch(f"{server.address}/?name=a%20b&x=1", {"Accept": "text/x"}) == "a b text/x"


def test_what_is_not_there_is_not_found_and_a_head_has_no_body(server):
    with pytest.raises(urllib.error.HTTPError, match="404"):
        fetch(f"{server.address}/etc/passwd")
    client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=10)
    client.request("HEAD", "/")
    answer = client.getresponse()
    assert (answer.status, answer.read(), answer.headers["Content-Length"]) == (200, b"", "2")
    client.close()


def test_a_page_that_fails_is_an_answer_and_no_more(server, caplog):
    with pytest.raises(urllib.error.HTTPError, match="500"):
        fetch(f"{server.address}/fails")
    assert "cannot make /fails" in caplog.text
    fetch(server.address)
    assert server.answers() == ({500: 1, 200: 1}, 0)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00",  # the beginning of a TLS handshake
        b"GET\r\n\r\n",
        b"POST / HTTP/1.1\r\nContent-Length: 9999999999\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 1000 + b"\r\n",
        b"GET /?" + b"a=b&" * 1000 + b" HTTP/1.1\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"\x00" * 100,
        b"",
    ],
    ids=range(9),
)
def test_garbage_is_refused_and_the_next_peer_served(server, garbage):
    answer = b""
    with connect(server) as peer, contextlib.suppress(ConnectionError):
        # It may be refused before it is all sent.
        peer.sendall(garbage)
        peer.shutdown(socket.SHUT_WR)
        answer = read_all(peer)
    assert b"200 OK" not in answer
    assert fetch(f"{server.address}/?name=b").startswith("b")


def test_a_peer_that_drips_is_cut_off_in_time(server, monkeypatch):
    monkeypatch.setattr(tell_http, "CONNECTION_S", 0.5)
    with connect(server) as peer:
        began_s = time.monotonic()
        try:
            while time.monotonic() - began_s < 10:
                peer.sendall(b"G")
                peer.settimeout(0.05)
                try:
                    if peer.recv(1) == b"":
                        break
                except socket.timeout:
                    pass
        except ConnectionError:
            pass
        assert time.monotonic() - began_s < 5
    assert server.answers()[1] == 1


def test_a_peer_that_does_not_read_is_cut_off_in_time(server, monkeypatch):
    monkeypatch.setattr(tell_http, "CONNECTION_S", 0.5)
    with connect(server) as peer:
        peer.sendall(b"GET /large HTTP/1.0\r\n\r\n")
        wait_until(lambda: server.answers()[1] == 1)
        assert len(read_all(peer)) < len(LARGE)


def test_more_connections_than_the_bound_are_refused_and_counted(server):
    idle = [connect(server) for _ in range(CONNECTIONS_MAX)]
    try:
        # All of them are accepted before the next one is, in their order.
        with connect(server) as peer:
            assert read_all(peer) == b""
        assert server.answers()[1] == 1
    finally:
        for peer in idle:
            peer.close()
    wait_until(lambda: _is_served(server))


def _is_served(server: HttpServer) -> bool:
    try:
        return bool(fetch(server.address))
    except (OSError, http.client.HTTPException):
        return False


def test_close_lets_a_scrape_end_and_refuses_the_next_one():
    entered, leave = threading.Event(), threading.Event()

    def slow(request: Request) -> Answer:
        entered.set()
        leave.wait(10)
        return Answer(200, b"whole")

    server = HttpServer(ANYWHERE, {"/": slow})
    with connect(server) as peer:
        peer.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert entered.wait(10)
        closing = threading.Thread(target=server.close)
        closing.start()
        wait_until(lambda: not _accepts(server))
        leave.set()
        assert read_all(peer).endswith(b"whole")
        closing.join(10)
        assert not closing.is_alive()


def _accepts(server: HttpServer) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port_of(server)), 1).close()
    except OSError:
        return False
    return True


def test_close_does_not_wait_for_a_peer_that_says_nothing():
    server = HttpServer(ANYWHERE, {})
    with connect(server):
        began_s = time.monotonic()
        server.close()
        assert time.monotonic() - began_s < 5


def test_a_port_in_use_is_one_line_and_a_remedy(server):
    with pytest.raises(
        ConfigError, match=r"cannot listen on 127.0.0.1:\d+: Address already in use"
    ):
        HttpServer(Address("127.0.0.1", port_of(server)), {})


def test_an_address_that_is_not_ours_is_refused():
    with pytest.raises(ConfigError, match=r"cannot listen on 192\.0\.2\.1:9469"):
        HttpServer(Address("192.0.2.1", 9469), {})


def test_without_an_address_it_listens_on_all():
    port = free_port()
    server = HttpServer(Address("", port), {"/": hello})
    try:
        assert fetch(f"http://127.0.0.1:{port}/").startswith("?")
    finally:
        server.close()


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9469", ("127.0.0.1", 9469)),
        (":80", ("", 80)),
        ("[::1]:0", ("::1", 0)),
        ("localhost:1", ("localhost", 1)),
    ],
)
def test_addresses_are_read(text, address):
    assert parse_address(text) == address


@pytest.mark.parametrize("text", ["", "9469", "a:b", "::1:80", "host:", "host:65536", "host:٣"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(ConfigError, match="cannot listen on"):
        parse_address(text)
