"""Refusals, waiting, no server, a full disk, two processes, and anything at all."""

import http.client
import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.client import CONTENT, OTHER, REMEDY, Client, closed_port
from tests.data.pictures import WRITE_LIMIT, Ear, full_disk
from tests.data.server import PATIENCE, Answer, Server, serving
from tinygrow.errors import TinygrowError


class TestRefused:
    @pytest.mark.parametrize("status", [400, 401, 403, 404, 407, 410, 416])
    def test_what_will_not_pass_is_not_tried_again(self, client: Client, status: int) -> None:
        with serving(CONTENT, Answer(status=status)) as server:
            message = client.fail(server.url)
        assert f"the server answered {status} {http.client.responses[status]}; " in message
        assert len(server.asked) == 1 and client.waits == []

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 599])
    def test_what_may_pass_is_tried_again(self, client: Client, status: int) -> None:
        with serving(CONTENT, Answer(status=status), Answer(status=status)) as server:
            client.get(server.url)
        assert len(server.asked) == 3 and len(client.waits) == 2

    def test_an_answer_without_content_is_none(self, client: Client) -> None:
        with serving(CONTENT, Answer(status=204)) as server:
            assert "the server answered 204 No Content; " in client.fail(server.url)

    @pytest.mark.parametrize(
        ("location", "says"),
        [
            ("file:///etc/passwd", "is not allowed"),
            ("ftp://127.0.0.1/x", "unknown url type: ftp"),
            ("http://127.0.0.1:x/x", "it is, or leads to, no valid address"),
            ("/archive.tar.gz", "infinite loop"),
        ],
    )
    def test_redirects_lead_to_web_servers_alone(
        self, client: Client, location: str, says: str
    ) -> None:
        there = Answer(status=302, headers={"Location": location})
        with serving(CONTENT, *[there] * 20) as server:
            assert says in client.fail(server.url)

    def test_an_invalid_certificate_is_not_tried_again(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def connect(self: http.client.HTTPSConnection) -> None:
            error = ssl.SSLCertVerificationError(1, "certificate verify failed")
            error.verify_message = "self-signed certificate"
            raise error

        monkeypatch.setattr(http.client.HTTPSConnection, "connect", connect)
        message = client.fail("https://127.0.0.1/archive.tar.gz")
        assert "its certificate is not valid (self-signed certificate)" in message
        assert client.waits == []


class TestWaiting:
    def test_waits_grow_and_are_not_the_same_for_all(self, client: Client) -> None:
        client.fail(closed_port(), attempts=12)
        assert len(client.waits) == 11
        for number, wait in enumerate(client.waits):
            longest = min(2.0**number, 60.0)
            assert longest / 2 <= wait <= longest
        assert len({wait / 2**number for number, wait in enumerate(client.waits[:6])}) > 1

    def test_a_server_may_ask_for_more(self, client: Client) -> None:
        script = [Answer(status=status, headers={"Retry-After": "77"}) for status in (429, 503)]
        with serving(CONTENT, *script) as server:
            client.get(server.url)
        assert client.waits == [77.0, 77.0]

    def test_or_name_a_date(self, client: Client) -> None:
        date = format_datetime(datetime.now(UTC) + timedelta(seconds=200), usegmt=True)
        with serving(CONTENT, Answer(status=503, headers={"Retry-After": date})) as server:
            client.get(server.url)
        assert 60 < client.waits[0] <= 200

    @pytest.mark.parametrize("value", ["0", "soon", "-5", "", "1e3", "1 Jan 0001 00:00:00 GMT"])
    def test_or_say_nothing_of_use(self, client: Client, value: str) -> None:
        with serving(CONTENT, Answer(status=503, headers={"Retry-After": value})) as server:
            client.get(server.url)
        assert 0.5 <= client.waits[0] <= 1.0

    @pytest.mark.parametrize("value", ["301", "9" * 400])
    def test_but_not_for_hours(self, client: Client, value: str) -> None:
        with serving(CONTENT, Answer(status=429, headers={"Retry-After": value})) as server:
            message = client.fail(server.url)
        assert "429 Too Many Requests and asks to come back in " in message
        assert client.waits == []


class TestNoServer:
    def test_a_closed_port_is_told_with_the_attempts(self, client: Client) -> None:
        message = client.fail(closed_port())
        assert message.endswith(f": Connection refused (attempt 3 of 3); {REMEDY}")
        assert len(client.waits) == len(client.ear.lines) == 2

    def test_a_name_that_nobody_knows_is_told(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        message = client.fail("http://nowhere.invalid/x")
        assert ": Name or service not known (attempt 3 of 3); " in message

    def test_what_is_no_web_server_is_told(self, client: Client) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def answer() -> None:
                for _ in range(3):
                    connection, _ = listener.accept()
                    with connection:
                        connection.recv(10_000)
                        connection.sendall(b"220 welcome\r\n")

            thread = threading.Thread(target=answer)
            thread.start()
            message = client.fail(f"http://127.0.0.1:{listener.getsockname()[1]}/x")
            thread.join()
        assert "220 welcome (attempt 3 of 3)" in message

    @pytest.mark.parametrize("stall", [-1, 0, 10_000])
    def test_silence_is_a_dead_connection(self, client: Client, stall: int) -> None:
        with serving(CONTENT, *[Answer(stall=stall)] * 2) as server:
            client.get(server.url, attempts=50, timeout=0.3)
        second = f"bytes={stall}-" if stall > 0 else None
        assert server.ranges[:2] == [None, second]
        assert f"{server.url}: silence for 0.3 s (attempt 1 of 50)" in client.ear.lines[0]

    def test_slow_is_not_dead(self, client: Client) -> None:
        server = Server(CONTENT, [Answer(stall=10_000)])

        class Patient(Ear):
            def advance(self, count: int = 1, **facts: float) -> None:
                super().advance(count)
                server.go_on.set()

        client.ear = Patient()
        server.start()
        try:
            client.get(server.url)
        finally:
            server.stop()
        assert len(server.asked) == 1 and client.ear.lines == []


class TestDisk:
    def test_a_full_disk_is_one_error_and_what_came_is_kept(self, client: Client) -> None:
        with serving(CONTENT) as server:
            with full_disk(WRITE_LIMIT), pytest.raises(TinygrowError) as caught:
                client.get(server.url)
            assert str(caught.value) == (
                f"cannot write {client.part}: File too large (0.0 MB are kept for going on from"
                " there); free disk space, mend the permissions, or set TINYGROW_CACHE to another"
                " folder"
            )
            assert client.part.read_bytes() == CONTENT[:WRITE_LIMIT]
            assert client.waits == [], "more attempts would not help"
            assert client.ear.open == 0
            client.get(server.url)
        assert server.ranges == [None, f"bytes={WRITE_LIMIT}-"]

    def test_a_cache_that_is_a_file_is_one_error(self, client: Client) -> None:
        client.target.parent.write_text("a file")
        with pytest.raises(TinygrowError, match=r"cannot write .* set TINYGROW_CACHE to another"):
            client.get(closed_port())

    def test_a_file_that_cannot_take_its_place_is_one_error(self, client: Client) -> None:
        client.target.mkdir(parents=True)
        with (
            serving(CONTENT) as server,
            pytest.raises(TinygrowError, match=r"cannot write .*tar\.gz: Is a directory; "),
        ):
            client.get(server.url)


def test_of_two_processes_one_downloads_and_the_other_waits(client: Client) -> None:
    server = Server(CONTENT, [Answer(stall=10_000)])
    began = threading.Event()
    other = Client(client.target.parent)

    class First(Ear):
        def advance(self, count: int = 1, **facts: float) -> None:
            began.set()

    class Second(Ear):
        def say(self, line: str) -> None:
            super().say(line)
            server.go_on.set()

    client.ear, other.ear = First(), Second()
    first = threading.Thread(target=client.get, args=(server.url,))
    server.start()
    try:
        first.start()
        assert began.wait(PATIENCE)
        other.get(server.url)
        first.join()
    finally:
        server.stop()
    assert len(server.asked) == 1
    assert other.ear.lines == [f"another process is making {client.target}; waiting for it"]


_places = st.integers(0, len(CONTENT))
_forms = st.sampled_from(["length", "chunks", "end"])
_bad = st.one_of(
    st.builds(Answer, cut=_places, ranges=st.booleans(), form=_forms),
    st.builds(Answer, at=_places),
    st.builds(Answer, status=st.sampled_from([404, 416, 429, 503])),
    st.builds(Answer, content=st.sampled_from([OTHER, b"", CONTENT * 2]), cut=_places),
)


@given(st.lists(_bad, max_size=6), st.sampled_from([CONTENT, OTHER]), _places)
def test_whatever_happens_the_file_is_right_or_absent(
    tmp_path_factory: pytest.TempPathFactory, script: Sequence[Answer], of: bytes, begun: int
) -> None:
    client = Client(tmp_path_factory.mktemp("any"))
    client.part.write_bytes(of[:begun])
    with serving(CONTENT, *script) as server:
        try:
            client.get(server.url, attempts=4)
        except TinygrowError as error:
            assert "\n" not in str(error) and not client.target.exists()
            server.script.clear()  # good answers follow, and one more call is enough
            client.get(server.url, attempts=4)
