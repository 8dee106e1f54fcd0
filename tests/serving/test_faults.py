"""What the service does when something goes wrong: broken snapshots, too much work, slow clients, a stop amid writes."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from llmrec_fast import Recommender
from tests.serving.conftest import TOKEN, Running, encode, fitted

EVENT = {"events": [{"user": "fresh", "item": "i1"}]}


def break_snapshot(folder: Path) -> None:
    """Damage an array of a saved recommender."""
    file = max(folder.glob("*.npy"), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)


class TestReloadingABrokenSnapshot:
    @pytest.mark.parametrize("how", ["link", "rename"])
    def test_in_the_place_of_the_old_one(self, serve: Callable[..., Running], folder: Path, how: str) -> None:
        first, second = folder.with_name("first"), folder.with_name("second")
        fitted().save(second)
        break_snapshot(second)
        if how == "link":
            folder.rename(first)
            folder.symlink_to(first)
        service = serve(token=TOKEN)
        assert service.client.get("/readyz").json() == {"status": "ready"}
        before = service.client.get("/recommend?user=1").json()
        if how == "link":
            folder.unlink()
            folder.symlink_to(second)
        else:
            folder.rename(first)
            second.rename(folder)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_log(
            "reloading failed: CorruptFile; the folder could not be opened; reading goes on from the old"
        )
        ready = service.client.get("/readyz")
        assert ready.status_code == 200
        assert ready.json()["reload"].endswith("reading goes on from the old snapshot, so does writing")
        assert service.client.get("/recommend?user=1").json() == before
        assert service.client.post("/events", json=EVENT).status_code == 200
        failed = service.client.post("/admin/reload")
        assert failed.status_code == 503
        assert "so does writing" in failed.json()["detail"]
        assert "llmrec_reload_failed 1" in service.client.get("/metrics").text
        service.stop()
        with Recommender.open(first, encoder=encode) as again:
            assert again.knows_user("fresh")

    def test_in_the_very_folder(self, serve: Callable[..., Running], folder: Path) -> None:
        service = serve()
        assert service.client.post("/events", json=EVENT).status_code == 200
        break_snapshot(folder)
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_log("reloading failed: CorruptFile")
        ready = service.client.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["detail"].endswith("reading goes on from the old snapshot, writing is refused")
        assert service.client.get("/recommend?user=fresh").status_code == 200
        refused = service.client.post("/events", json=EVENT)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert "llmrec_writable 0" in service.client.get("/metrics").text
        break_snapshot(folder)  # the same bit again: whole
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_log("reloaded: 40 items")
        assert service.client.get("/readyz").json() == {"status": "ready"}
        assert service.client.post("/events", json=EVENT).status_code == 200
        assert service.client.get("/recommend?user=fresh").status_code == 200


@pytest.fixture(scope="module")
def strained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service with hardly any patience."""
    place = tmp_path_factory.mktemp("strained")
    fitted().save(place / "saved")
    limits = "--queue 2 --batch 1 --timeout 0.8 --body-timeout 0.5"
    service = Running(place / "saved", place / "log", *limits.split())
    yield service
    service.stop()


class TestTooMuchWork:
    def test_a_full_queue_refuses_and_says_when_to_come_again(self, strained: Running) -> None:
        def search(place: int) -> httpx.Response:
            return strained.client.post("/search", json={"texts": [f"slow 0.2 {place}"], "k": 1})

        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(search, range(8)))
        statuses = [answer.status_code for answer in answers]
        assert {200, 429} <= set(statuses) <= {200, 429, 504}
        for answer in answers:
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                assert "Retry-After" in answer.json()["detail"]
        assert search(9).status_code == 200
        assert 'route="/search",status="429"' in strained.client.get("/metrics").text

    def test_without_the_token_nobody_learns_that_a_queue_is_full(self, serve: Callable[..., Running]) -> None:
        service = serve(*["--queue", "1", "--timeout", "20"], token=TOKEN)

        def search(headers: dict[str, str]) -> int:
            url = f"http://127.0.0.1:{service.port}/search"
            return httpx.post(url, json={"texts": ["slow 2 begun"], "k": 1}, headers=headers, timeout=30).status_code

        right, wrong = {"Authorization": f"Bearer {TOKEN}"}, {"Authorization": f"Bearer {TOKEN[:-1]}"}
        with ThreadPoolExecutor(9) as pool:
            first = pool.submit(search, right)
            service.wait_for_log("encoding 1 begun")
            statuses = list(pool.map(search, [right, {}, wrong] * 2))
        assert statuses == [429, 401, 401] * 2
        assert first.result() == 200

    def test_an_answer_that_takes_too_long_is_given_up(self, strained: Running) -> None:
        start = time.monotonic()
        late = strained.client.post("/search", json={"texts": ["slow 1.5"], "k": 1})
        assert late.status_code == 504
        assert "time limit" in late.json()["detail"]
        assert time.monotonic() - start < 1.4
        time.sleep(1)
        assert strained.client.post("/search", json={"texts": ["quick"], "k": 1}).status_code == 200


HEAD = b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n"


class TestSlowClients:
    def test_many_of_them_do_not_hinder_the_others(self, strained: Running) -> None:
        with contextlib.ExitStack() as opened:
            for place in range(300):
                client = opened.enter_context(socket.create_connection(("127.0.0.1", strained.port), timeout=5))
                client.sendall(HEAD[: 20 if place % 2 else None])
            for _ in range(20):
                assert strained.client.get("/recommend?user=1").status_code == 200

    @pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nHost: ", HEAD], ids=["header", "body"])
    def test_one_byte_at_a_time_gains_no_time(self, strained: Running, start: bytes) -> None:
        begun = time.monotonic()
        with socket.create_connection(("127.0.0.1", strained.port), timeout=0.1) as client:
            client.sendall(start)
            answer = None
            with contextlib.suppress(ConnectionError):
                while answer is None and time.monotonic() - begun < 10:
                    client.sendall(b"G")
                    with contextlib.suppress(TimeoutError):
                        answer = client.recv(1000)
        assert answer is None or answer == b"" or answer.startswith(b"HTTP/1.1 408")
        assert 0.3 < time.monotonic() - begun < 4

    def test_who_does_not_read_the_answer_is_cut_off(self, strained: Running) -> None:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.settimeout(0.2)
            client.connect(("127.0.0.1", strained.port))
            asked = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n" * 400
            begun = time.monotonic()

            def ask_for_ever() -> None:
                while time.monotonic() - begun < 15:
                    with contextlib.suppress(TimeoutError):
                        client.sendall(asked)

            # the server stops reading, and then ends the connection
            with pytest.raises(ConnectionError):
                ask_for_ever()
        assert time.monotonic() - begun < 10
        assert strained.client.get("/healthz").status_code == 200


class TestStopping:
    def test_events_in_flight_are_answered_and_kept(self, serve: Callable[..., Running], folder: Path) -> None:
        service = serve("--batch", "4", fsync=0.15)

        clients = [HTTPConnection("127.0.0.1", service.port, timeout=20) for _ in range(12)]
        for client in clients:
            client.request("GET", "/healthz")
            assert client.getresponse().read() == b'{"status":"ok"}'
        for place, client in enumerate(clients):
            body = b'{"events":[{"user":"user %d","item":"i1"}]}' % place
            client.request("POST", "/events", body, {"Content-Type": "application/json"})
        while 'queue_depth{queue="write"} 0' in service.client.get("/metrics").text:
            time.sleep(0.005)
        service.process.send_signal(signal.SIGTERM)
        kept = []
        for place, client in enumerate(clients):
            # an answer, or a connection that was closed without one
            with contextlib.suppress(ConnectionError):
                if client.getresponse().status == 200:
                    kept.append(place)
            client.close()
        service.process.wait(20)
        # more than the batch that was being written
        assert len(kept) > 4
        with Recommender.open(folder, encoder=encode) as again:
            assert all(again.knows_user(f"user {place}") for place in kept)
            assert again.recovery_ is not None
            assert again.recovery_.cut_file is None

    def test_a_client_that_never_finishes_does_not_hold_it_up(self, serve: Callable[..., Running]) -> None:
        service = serve("--body-timeout", "60", "--shutdown-timeout", "1")
        with socket.create_connection(("127.0.0.1", service.port), timeout=5) as client:
            client.sendall(HEAD)
            time.sleep(0.1)
            service.process.send_signal(signal.SIGTERM)
            service.process.wait(10)
            assert client.recv(1000).startswith(b"HTTP/1.1 503")
        assert "Traceback" not in service.log.read_text()
