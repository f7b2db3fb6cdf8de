import hashlib
import http.client
import os
import socket
import ssl
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.pictures import WRITE_LIMIT, Ear, full_disk
from tests.data.server import PATIENCE, Answer, Server, serving
from tinygrow import __version__
from tinygrow.data.fetch import Patience, Remote, fetch
from tinygrow.errors import TinygrowError

CONTENT = bytes(range(256)) * 300
OTHER = CONTENT[::-1]
REMEDY = "do this"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Client:
    """Fetches `CONTENT` into a folder and remembers how long it was told to wait."""

    def __init__(self, folder: Path, content: bytes = CONTENT) -> None:
        self.target = folder / "archive.tar.gz"
        self.part = folder / "archive.tar.gz.part"
        self.content = content
        self.ear = Ear()
        self.waits: list[float] = []

    def get(self, url: str, *, attempts: int = 3, timeout: float = PATIENCE) -> None:
        md5 = hashlib.md5(self.content).hexdigest()
        remote = Remote(url=url, md5=md5, max_bytes=len(self.content) + 1000, remedy=REMEDY)
        patience = Patience(attempts=attempts, timeout=timeout, sleep=self.waits.append)
        fetch(remote, self.target, patience=patience, observer=self.ear)
        assert self.target.read_bytes() == self.content
        assert self.left == ["archive.tar.gz", "archive.tar.gz.lock"]
        assert self.ear.open == 0

    def fail(self, url: str, **options: float) -> str:
        """Return the one line of the failure."""
        with pytest.raises(TinygrowError) as caught:
            self.get(url, **options)  # type: ignore[arg-type]
        message = str(caught.value)
        assert "\n" not in message
        assert message.endswith(f"; {REMEDY}") and message.startswith(f"cannot download {url}: ")
        assert not self.target.exists()
        assert self.ear.open == 0
        return message

    @property
    def left(self) -> list[str]:
        return sorted(path.name for path in self.target.parent.iterdir())


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "cache")


class TestGood:
    def test_the_file_comes_by_one_request(self, client: Client) -> None:
        with serving(CONTENT) as server:
            client.get(server.url)
        ((path, headers),) = server.asked
        assert path == "/archive.tar.gz"
        assert headers["User-Agent"] == f"tinygrow/{__version__}"
        assert headers["Range"] is None
        assert client.ear.done == len(CONTENT) and client.ear.lines == []

    def test_a_verified_file_is_not_asked_for_again(self, client: Client) -> None:
        with serving(CONTENT) as server:
            client.get(server.url)
            client.get(server.url)
        assert len(server.asked) == 1

    def test_a_damaged_file_is_fetched_anew(self, client: Client) -> None:
        with serving(CONTENT) as server:
            client.get(server.url)
            client.target.write_bytes(OTHER)
            client.get(server.url)
        assert server.ranges == [None, None]
        assert client.ear.lines == [f"warning: {client.target} is damaged; it is fetched anew"]

    def test_a_whole_part_needs_no_server(self, client: Client) -> None:
        client.part.parent.mkdir()
        client.part.write_bytes(CONTENT)
        client.get(closed_port())

    @pytest.mark.parametrize("form", ["chunks", "end"])
    def test_a_length_need_not_be_told(self, client: Client, form: str) -> None:
        with serving(CONTENT, Answer(form=form)) as server:
            client.get(server.url)
        assert len(server.asked) == 1

    def test_a_redirect_is_followed_with_the_range(self, client: Client) -> None:
        client.part.parent.mkdir()
        client.part.write_bytes(CONTENT[:1000])
        there = Answer(status=302, headers={"Location": "/elsewhere"})
        with serving(CONTENT, there) as server:
            client.get(server.url)
        assert [path for path, _ in server.asked] == ["/archive.tar.gz", "/elsewhere"]
        assert server.ranges == ["bytes=1000-", "bytes=1000-"]

    def test_the_proxy_of_the_environment_is_used(
        self, client: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with serving(CONTENT) as proxy:
            monkeypatch.setenv("http_proxy", proxy.address)
            client.get("http://nowhere.invalid/archive.tar.gz")
        assert [path for path, _ in proxy.asked] == ["http://nowhere.invalid/archive.tar.gz"]


class TestCut:
    @given(st.lists(st.integers(0, len(CONTENT) - 1), max_size=6), st.booleans())
    def test_wherever_the_cuts_are_the_bytes_are_right(
        self, tmp_path_factory: pytest.TempPathFactory, cuts: list[int], chunks: bool
    ) -> None:
        client = Client(tmp_path_factory.mktemp("cut"))
        starts, at = [0], 0
        script = []
        for place in sorted(cuts):  # of the whole file
            script.append(Answer(cut=place - at, form="chunks" if chunks else "length"))
            at = place
            starts.append(at)
        with serving(CONTENT, *script) as server:
            client.get(server.url, attempts=len(cuts) + 1)
        assert server.ranges == [f"bytes={at}-" if at else None for at in starts]
        assert client.ear.done == len(CONTENT), "no byte comes twice"

    def test_a_cut_is_told_with_its_place(self, client: Client) -> None:
        with serving(CONTENT, Answer(cut=30_000)) as server:
            client.get(server.url)
        (line,) = client.ear.lines
        assert line.startswith(
            f"{server.url}: the connection was cut after 30,000 of 76,800 bytes (attempt 1 of 3);"
            " trying again in "
        )

    def test_the_next_call_goes_on_where_this_one_gave_up(self, client: Client) -> None:
        with serving(CONTENT, Answer(cut=50_000)) as server:
            message = client.fail(server.url, attempts=1)
            assert "cut after 50,000 of 76,800 bytes (attempt 1 of 1) (0.1 MB are kept" in message
            assert client.waits == []
            assert client.part.read_bytes() == CONTENT[:50_000]
            client.get(server.url)
        assert server.ranges == [None, "bytes=50000-"]

    def test_another_mirror_goes_on_with_the_part(self, client: Client) -> None:
        with serving(CONTENT, Answer(cut=50_000)) as one, serving(CONTENT) as two:
            client.fail(one.url, attempts=1)
            client.get(two.url)
        assert two.ranges == ["bytes=50000-"]

    def test_an_interruption_keeps_what_came_and_gives_the_lock_back(self, client: Client) -> None:
        class Interrupted(Ear):
            def advance(self, count: int = 1, **facts: float) -> None:
                raise KeyboardInterrupt

        with serving(CONTENT, Answer(cut=1000)) as server:
            silent, client.ear = client.ear, Interrupted()
            with pytest.raises(KeyboardInterrupt):
                client.get(server.url)
            assert client.part.read_bytes() == CONTENT[:1000]
            client.ear = silent
            client.get(server.url)
        assert server.ranges == [None, "bytes=1000-"]
        assert silent.lines == []

    def test_a_server_that_knows_no_ranges_sends_all_of_it_again(self, client: Client) -> None:
        with serving(CONTENT, Answer(cut=50_000), Answer(ranges=False)) as server:
            client.get(server.url)
        assert server.ranges == [None, "bytes=50000-"]

    @pytest.mark.parametrize("at", [0, 49_999, 50_001])
    def test_another_range_than_asked_for_is_not_taken(self, client: Client, at: int) -> None:
        with serving(CONTENT, Answer(cut=50_000), Answer(at=at)) as server:
            client.get(server.url)
        assert server.ranges == [None, "bytes=50000-", None]
        assert "another part than asked for; starting anew" in client.ear.lines[-1]

    def test_a_part_longer_than_the_file_is_dropped(self, client: Client) -> None:
        client.part.parent.mkdir()
        client.part.write_bytes(CONTENT + b"more")
        with serving(CONTENT) as server:
            client.get(server.url)
        assert server.ranges == [f"bytes={len(CONTENT) + 4}-", None]
        assert "answered 416" in client.ear.lines[0]

    def test_a_cut_that_nobody_can_see_is_made_good(self, client: Client) -> None:
        with serving(CONTENT, Answer(cut=50_000, form="end")) as server:
            client.get(server.url, attempts=1)
        assert server.ranges == [None, None]

    def test_attempts_that_bring_something_new_are_not_counted(self, tmp_path: Path) -> None:
        content = os.urandom(5 * 2**20 + 5)
        client = Client(tmp_path, content)
        with serving(content, *[Answer(cut=2**20)] * 5) as server:
            client.get(server.url, attempts=2)
        assert len(server.asked) == 6

    def test_the_same_beginning_again_and_again_is_nothing_new(self, tmp_path: Path) -> None:
        content = os.urandom(2 * 2**20)
        client = Client(tmp_path, content)
        with serving(content, *[Answer(cut=2**20 + 1, ranges=False)] * 9) as server:
            client.fail(server.url, attempts=3)
        assert len(server.asked) == 3


class TestWrong:
    def test_a_wrong_checksum_is_one_error_and_leaves_nothing(self, client: Client) -> None:
        with serving(OTHER) as server:
            message = client.fail(server.url)
        right, wrong = (hashlib.md5(content).hexdigest() for content in (CONTENT, OTHER))
        assert f": it sent 76,800 bytes of type text/plain with md5 {wrong}, not {right}, and" in (
            message
        )
        assert len(server.asked) == 1 and client.waits == []
        assert client.left == ["archive.tar.gz.lock"]

    def test_a_login_page_in_place_of_the_file_is_told_by_its_type(self, client: Client) -> None:
        page = Answer(content=b"<html>", headers={"Content-Type": "text/html; charset=utf-8"})
        with serving(CONTENT, page) as server:
            assert "6 bytes of type text/html with" in client.fail(server.url)

    def test_parts_that_do_not_belong_together_are_fetched_anew_once(self, client: Client) -> None:
        with serving(CONTENT, Answer(content=OTHER, cut=50_000)) as server:
            client.get(server.url)
        assert server.ranges == [None, "bytes=50000-", None]
        assert "not the right one; starting anew" in client.ear.lines[-1]

    def test_and_no_more_than_once(self, client: Client) -> None:
        with serving(OTHER, Answer(content=CONTENT, cut=50_000)) as server:
            assert "with md5" in client.fail(server.url)
        assert server.ranges == [None, "bytes=50000-", None]
        assert client.left == ["archive.tar.gz.lock"]

    def test_nor_where_no_length_tells_an_accident_from_a_lie(self, client: Client) -> None:
        with serving(OTHER, *[Answer(form="end")] * 9) as server:
            assert "with md5" in client.fail(server.url)
        assert len(server.asked) == 2

    def test_progress_counts_from_the_new_beginning(self, tmp_path: Path) -> None:
        content = os.urandom(3 * 2**20 + 3)
        client = Client(tmp_path, content)
        client.part.write_bytes(bytes(len(content) - 1))
        with serving(content, Answer(), *[Answer(cut=2**20)] * 3) as server:
            client.get(server.url, attempts=2)
        assert server.ranges[:2] == [f"bytes={len(content) - 1}-", None]
        assert len(server.asked) == 5

    def test_a_part_of_long_ago_that_is_wrong_costs_no_more_than_time(self, client: Client) -> None:
        client.part.parent.mkdir()
        client.part.write_bytes(OTHER[:999])
        with serving(CONTENT) as server:
            client.get(server.url)
        assert server.ranges == ["bytes=999-", None]

    def test_a_file_said_to_be_too_large_is_not_begun(self, client: Client) -> None:
        client.part.parent.mkdir()
        client.part.write_bytes(CONTENT[:1000])
        with serving(CONTENT + bytes(1001)) as server:
            assert "it has more than 77,800 bytes, the limit" in client.fail(server.url)
        assert client.part.read_bytes() == CONTENT[:1000]

    @pytest.mark.parametrize("form", ["chunks", "end"])
    def test_a_file_that_does_not_end_is_left(self, client: Client, form: str) -> None:
        with serving(CONTENT + bytes(10**6), Answer(form=form)) as server:
            assert "it has more than 77,800 bytes, the limit" in client.fail(server.url)
        assert client.left == ["archive.tar.gz.lock"]


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


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return f"http://127.0.0.1:{listener.getsockname()[1]}/archive.tar.gz"
