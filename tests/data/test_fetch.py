import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.data.client import CONTENT, OTHER, Client, closed_port
from tests.data.pictures import Ear
from tests.data.server import Answer, serving
from tinygrow import __version__


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
