"""The service as its users meet it: over HTTP, in a process of its own."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")

from llmrec_fast import Recommender
from llmrec_fast.errors import InvalidInput
from llmrec_fast.serving import ServeSettings
from tests.serving.conftest import TOKEN, Running, encode, fitted


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    place = tmp_path_factory.mktemp("service")
    fitted().save(place / "saved")
    service = Running(place / "saved", place / "log", "--body-limit", "65536", "--body-timeout", "0.6")
    yield service
    service.stop()


class TestAnswers:
    def test_equal_those_of_the_recommender(self, running: Running) -> None:
        ours = fitted()
        for users, k, diversity in (([1], 5, 0.0), ([2, 3], 3, 0.4)):
            body = {"users": users, "k": k, "diversity": diversity}
            answers = running.client.post("/recommend", json=body).json()["answers"]
            wanted = ours.recommend(users, k, diversity=diversity)
            for row, want in zip(answers, wanted, strict=True):
                assert [entry["item"] for entry in row] == [item for item, _ in want]
                assert [entry["score"] for entry in row] == pytest.approx([score for _, score in want])
        found = running.client.post("/similar", json={"items": ["i3"], "k": 4}).json()["answers"][0]
        assert [entry["item"] for entry in found] == ours.similar_items(["i3"], 4).items[0].tolist()
        found = running.client.post("/search", json={"texts": ["item 7"], "k": 1}).json()["answers"][0]
        assert found[0]["item"] == "i7"
        found = running.client.post("/encode", json={"texts": ["a", "bc"]}).json()["vectors"]
        np.testing.assert_allclose(found, encode(["a", "bc"]), rtol=1e-6)
        why = running.client.post("/explain", json={"user": 1, "item": "i3"}).json()
        assert sum(why["features"].values()) == pytest.approx(why["score"])

    def test_user_in_an_address_may_be_an_integer(self, running: Running) -> None:
        by_post = running.client.post("/recommend", json={"users": [4], "k": 3}).json()
        assert running.client.get("/recommend", params={"user": "4", "k": 3}).json() == by_post

    def test_many_at_once_get_each_their_own(self, running: Running) -> None:
        ours = fitted()
        wanted = {user: ours.recommend([user], 5).items[0].tolist() for user in range(10)}

        def ask(place: int) -> bool:
            user = place % 11  # user 10 is unknown
            response = running.client.post("/recommend", json={"users": [user], "k": 5})
            if user == 10:
                return response.status_code == 404
            return [entry["item"] for entry in response.json()["answers"][0]] == wanted[user]

        with ThreadPoolExecutor(8) as pool:
            assert all(pool.map(ask, range(200)))
        assert "llmrec_batches_total" in running.client.get("/metrics").text

    def test_filters(self, running: Running) -> None:
        body = {"users": [1], "k": 5, "exclude": ["i20"], "allow": ["i20", "i21", "i22"], "filter_seen": False}
        found = running.client.post("/recommend", json=body).json()["answers"][0]
        assert {entry["item"] for entry in found} == {"i21", "i22"}


class TestHostileInput:
    @pytest.mark.parametrize(
        ("path", "body", "status"),
        [
            ("/recommend", b"{", 422),
            ("/recommend", b"", 422),
            ("/recommend", b"[" * 30_000, 422),
            ("/recommend", b'{"users":[' + b"[" * 20_000 + b"]" * 20_000 + b"]}", 422),
            ("/recommend", b'{"users":[1],"k":NaN}', 422),
            ("/recommend", b'{"users":[1],"diversity":Infinity}', 422),
            ("/recommend", b'{"users":[1],"unknown":1}', 422),
            ("/recommend", b'{"users":[1],"items":["i1"]}', 422),
            ("/recommend", b'{"users":[true]}', 422),
            ("/recommend", b'{"users":[1.5]}', 422),
            ("/recommend", b'{"users":["\\ud800"]}', 422),
            ("/recommend", b'{"users":[' + b"9" * 5000 + b"]}", 422),
            ("/recommend", b'{"users":[1],"k":1000}', 422),
            ("/recommend", b'{"users":["../../etc/passwd"]}', 404),
            ("/recommend", b'{"users":[1],"exclude":["\\u0000"]}', 404),
            ("/recommend", b"\xff\xfe", 422),
            ("/similar", b'{"items":["nobody"]}', 404),
            ("/search", b'{"texts":[""]}', 422),
            ("/events", b'{"events":[{"user":1,"item":"i1","value":NaN}]}', 422),
            ("/events", b'{"events":[{"user":1,"item":"nothing"}]}', 404),
            ("/items", b'{"items":[{"id":"x","text":"x"}],"vectors":{"text":[[NaN]]}}', 422),
            ("/items", b'{"items":[{"id":"x","text":"x"}],"vectors":{"text":[[1,2]]}}', 422),
            ("/items", b'{"items":[{"id":"x","text":"x"}],"vectors":{"text":[[1],[1,2]]}}', 422),
            ("/no-such-path", b"{}", 404),
            ("/admin/reload", b"", 403),
        ],
    )
    def test_is_refused(self, running: Running, path: str, body: bytes, status: int) -> None:
        response = running.client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert response.status_code == status
        assert "detail" in response.json()

    def test_bodies_are_limited_whatever_they_say_of_their_length(self, running: Running) -> None:
        headers = {"Content-Type": "application/json"}
        assert running.client.post("/recommend", content=b" " * 70_000, headers=headers).status_code == 413
        with socket.create_connection(("127.0.0.1", running.port)) as client:
            client.sendall(
                b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Transfer-Encoding: chunked\r\n\r\n"
            )
            client.sendall((b"8000\r\n" + b" " * 0x8000 + b"\r\n") * 3)
            assert client.recv(1000).startswith(b"HTTP/1.1 413")

    @pytest.mark.parametrize("sent", [b"", b"POST /recommend HT", b"GET / HTTP/1.1\r\nHost: x\r\nA: "])
    def test_clients_that_never_finish_their_headers_are_cut_off(self, running: Running, sent: bytes) -> None:
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
            client.sendall(sent)
            with contextlib.suppress(ConnectionResetError):
                assert client.recv(100) == b""

    def test_clients_that_never_finish_their_body_are_told(self, running: Running) -> None:
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
            client.sendall(
                b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 100\r\n\r\n{"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 408")

    @pytest.mark.parametrize("length", [b"-1", b"1e3", b"9" * 5000, b"abc"])
    def test_a_length_that_is_no_number(self, running: Running, length: bytes) -> None:
        with socket.create_connection(("127.0.0.1", running.port), timeout=5) as client:
            client.sendall(
                b"POST /recommend HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: " + length + b"\r\n\r\n"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 4")

    def test_other_pages_cannot_use_the_service(self, running: Running) -> None:
        plain = {"Content-Type": "text/plain"}
        body = b'{"events":[{"user":1,"item":"i1"}]}'
        assert running.client.post("/events", content=body, headers=plain).status_code == 415
        assert running.client.get("/healthz", headers={"Host": "evil.example"}).status_code == 421

    def test_ids_and_texts_are_not_logged(self, running: Running) -> None:
        secret = "quite-secret-7431"
        running.client.post("/recommend", json={"users": [secret]})
        running.client.post("/search", json={"texts": [secret]})
        running.client.get("/recommend", params={"user": secret})
        running.client.get(f"/{secret}")
        assert secret not in running.log.read_text()
        assert secret not in running.client.get("/metrics").text


class TestTokens:
    def test_only_the_right_one_is_let_in(self, serve: Callable[..., Running]) -> None:
        service = serve(token=TOKEN)
        assert service.client.get("/metrics").status_code == 200
        for wrong in ("", "Bearer", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN):
            response = service.client.get("/recommend?user=1", headers={"Authorization": wrong})
            assert response.status_code == 401, wrong
            assert response.headers["www-authenticate"] == "Bearer"
        assert service.client.get("/healthz", headers={"Authorization": ""}).status_code == 200
        assert service.client.post("/admin/reload").json() == {"items": 40}

    def test_other_hosts_need_one(self) -> None:
        with pytest.raises(InvalidInput, match="loopback only"):
            ServeSettings(host="0.0.0.0")
        assert ServeSettings(host="0.0.0.0", insecure=True).token is None
        with pytest.raises(InvalidInput, match="at least 16"):
            ServeSettings(token="short")


def test_no_request_waits_for_a_compiler(serve: Callable[..., Running]) -> None:
    service = serve()
    started = len(service.log.read_text())
    for users in ([1], list(range(10))):
        assert service.client.post("/recommend", json={"users": users, "diversity": 0.5}).status_code == 200
    assert service.client.post("/recommend", json={"items": ["i1"], "exclude": ["i2"]}).status_code == 200
    assert service.client.post("/similar", json={"items": ["i1"], "allow": ["i2", "i3"]}).status_code == 200
    assert service.client.post("/search", json={"texts": ["item"]}).status_code == 200
    assert service.client.post("/events", json={"events": [{"user": 1, "item": "i30"}]}).status_code == 200
    assert service.client.get("/recommend?user=1").status_code == 200
    text = service.log.read_text()
    assert "compiling" in text[:started]
    assert "compiling" not in text[started:]


class TestWriting:
    def test_what_was_acknowledged_survives_a_kill(self, serve: Callable[..., Running], folder: Path) -> None:
        service = serve()
        evil = "../../../etc/cron.d/x\x00"
        assert service.client.post("/items", json={"items": [{"id": evil, "text": "new"}]}).json() == {"written": 1}
        events = {"events": [{"user": "fresh", "item": evil}, {"user": "fresh", "item": "i1", "timestamp": 99}]}
        assert service.client.post("/events", json=events).json() == {"written": 2}
        assert service.client.request("DELETE", "/items", json={"items": ["i9"]}).json() == {"written": 1}
        found = service.client.post("/recommend", json={"users": ["fresh"], "k": 20}).json()["answers"][0]
        assert not {"i1", "i9", evil} & {entry["item"] for entry in found}
        service.stop(signal.SIGKILL)
        with Recommender.open(folder, encoder=encode) as again:
            assert sorted(again.history("fresh")) == sorted([evil, "i1"])
            assert "i9" not in again.item_ids
        assert [path.name for path in folder.parent.iterdir() if path.is_dir()] == ["saved"]

    def test_one_wrong_event_does_not_touch_its_neighbours(self, serve: Callable[..., Running]) -> None:
        service = serve()

        def send(place: int) -> int:
            item = "nothing" if place % 5 == 0 else "i1"
            return service.client.post("/events", json={"events": [{"user": f"u{place}", "item": item}]}).status_code

        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(send, range(60))) == [404 if place % 5 == 0 else 200 for place in range(60)]

    def test_a_stop_finishes_what_was_accepted(self, serve: Callable[..., Running], folder: Path) -> None:
        service = serve()
        kept: list[str] = []

        def send(name: str) -> None:
            try:
                for place in range(1000):
                    user = f"{name}-{place}"
                    if service.client.post("/events", json={"events": [{"user": user, "item": "i1"}]}).is_success:
                        kept.append(user)
            except Exception:  # the service is gone
                return

        threads = [threading.Thread(target=send, args=(f"t{place}",)) for place in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        service.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join()
        service.process.wait(30)
        assert kept
        with Recommender.open(folder, encoder=encode) as again:
            assert all(again.knows_user(user) for user in kept)

    def test_a_hangup_reloads(self, serve: Callable[..., Running], folder: Path) -> None:
        service = serve()
        service.client.post("/events", json={"events": [{"user": "fresh", "item": "i1"}]})
        service.process.send_signal(signal.SIGHUP)
        service.wait_for_log("reloaded: 40 items")
        assert service.client.get("/recommend?user=fresh").status_code == 200
        assert service.client.post("/events", json={"events": [{"user": "other", "item": "i1"}]}).status_code == 200
