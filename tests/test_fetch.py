"""The cache: an asset is complete and checked, or absent. Sources are stand-ins here; `test_sources.py` has the real ones."""

import hashlib
import json
import os
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from llmrec_fast import fetch as fetching
from llmrec_fast.errors import CorruptFile, FetchFailed, InvalidInput
from llmrec_fast.fetch import Asset, AssetFile, cache_folder, cached, fetch, offline
from llmrec_fast.sources import SourceFailed

CONTENT = {"config.json": b'{"a": 1}', "weights/model.bin": bytes(range(256)) * 20}


def pinned(path, content):
    return AssetFile(path, hashlib.sha256(content).hexdigest(), len(content))


FILES = tuple(pinned(path, content) for path, content in CONTENT.items())


@dataclass
class Shelf:
    """A source that serves from memory, or fails as told."""

    content: dict = field(default_factory=lambda: dict(CONTENT))
    step: int = 2
    network: bool = True
    failure: BaseException | None = None
    fail_after: int = 0
    seconds: float = 0.0
    name: str = "the shelf"
    asked: list = field(default_factory=list)

    def describe(self):
        return self.name

    def advice(self):
        return f"take it from {self.name}"

    def provide(self, files, folder, bar):
        self.asked.append([file.path for file in files])
        time.sleep(self.seconds)
        for number, file in enumerate(files):
            if self.failure is not None and number >= self.fail_after:
                raise self.failure
            (folder / file.path).write_bytes(self.content[file.path])


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("LLMREC_OFFLINE", raising=False)
    return tmp_path / "cache"


def read(folder):
    return {path: (folder / path).read_bytes() for path in CONTENT}


def test_an_asset_is_fetched_once_and_then_found_in_the_cache(cache):
    shelf = Shelf()
    asset = Asset("thing", FILES, (shelf,))
    assert cached(asset) is None
    assert fetch(asset) == cache / "thing" == cached(asset) == fetch(asset)
    assert read(cache / "thing") == CONTENT
    assert len(shelf.asked) == 1


def test_unchanged_files_are_not_read_again_unless_asked(monkeypatch):
    asset = Asset("thing", FILES, (Shelf(),))
    fetch(asset)
    read_again = []
    monkeypatch.setattr(fetching, "sha256_of", lambda path: read_again.append(path.name))
    fetch(asset)
    assert read_again == []
    monkeypatch.undo()


def test_verify_finds_damage_that_size_and_time_hide(cache):
    shelf = Shelf()
    asset = Asset("thing", FILES, (shelf,))
    model = fetch(asset) / "weights/model.bin"
    status = model.stat()
    model.write_bytes(b"x" * status.st_size)
    os.utime(model, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert cached(asset) is not None
    assert cached(asset, verify=True) is None
    with pytest.warns(UserWarning, match="weights/model.bin is damaged"):
        fetch(asset, verify=True)
    assert read(cache / "thing") == CONTENT
    assert len(shelf.asked) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"short", bytes(5120), None], ids=["empty", "truncated", "tampered", "deleted"]
)
def test_a_damaged_cached_file_is_reported_and_fetched_again(cache, damage):
    asset = Asset("thing", FILES, (Shelf(),))
    model = fetch(asset) / "weights/model.bin"
    if damage is None:
        model.unlink()
    else:
        model.write_bytes(damage)
    with pytest.warns(UserWarning, match=r"weights/model\.bin is (damaged|missing).*fetching thing again"):
        fetch(asset)
    assert read(cache / "thing") == CONTENT


def test_a_touched_but_intact_file_is_checked_and_kept(cache):
    shelf = Shelf()
    asset = Asset("thing", FILES, (shelf,))
    os.utime(fetch(asset) / "config.json", (1, 1))
    assert fetch(asset) == cache / "thing"
    assert len(shelf.asked) == 1


@pytest.mark.parametrize("marker", ["", "{", "[1]", '{"config.json": 3}'])
def test_a_broken_note_of_the_last_check_only_costs_a_new_check(cache, marker):
    shelf = Shelf()
    asset = Asset("thing", FILES, (shelf,))
    fetch(asset)
    (cache / "thing" / ".verified.json").write_text(marker)
    assert fetch(asset) == cache / "thing"
    assert set(json.loads((cache / "thing" / ".verified.json").read_text())) == set(CONTENT)
    assert len(shelf.asked) == 1


def test_new_pins_make_the_old_files_incomplete(cache):
    fetch(Asset("thing", FILES, (Shelf(),)))
    changed = {**CONTENT, "config.json": b'{"a": 2}'}
    newer = Asset("thing", tuple(pinned(path, content) for path, content in changed.items()), (Shelf(changed),))
    with pytest.warns(UserWarning, match="config.json is damaged"):
        folder = fetch(newer)
    assert (folder / "config.json").read_bytes() == b'{"a": 2}'


def test_a_tampered_download_is_named_and_nothing_is_installed(cache):
    asset = Asset("thing", FILES, (Shelf({**CONTENT, "weights/model.bin": b"evil" * 1280}), Shelf(step=3)))
    with pytest.raises(
        CorruptFile, match=r"weights/model\.bin of thing, from the shelf, is damaged or was tampered with"
    ):
        fetch(asset)
    assert cached(asset) is None
    assert not (cache / "thing").exists()


def test_a_source_without_the_files_gives_way_to_the_next(cache):
    first, second = Shelf(failure=SourceFailed("not today")), Shelf(step=3)
    assert fetch(Asset("thing", FILES, (second, first))) == cache / "thing"
    assert len(first.asked) == len(second.asked) == 1


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), MemoryError()])
def test_an_interrupted_fetch_leaves_nothing_that_counts_and_goes_on_next_time(cache, interruption):
    asset = Asset("thing", FILES, (Shelf(failure=interruption, fail_after=1),))
    with pytest.raises(type(interruption)):
        fetch(asset)
    assert cached(asset) is None
    again = Shelf()
    assert read(fetch(Asset("thing", FILES, (again,)))) == CONTENT
    assert again.asked == [["weights/model.bin"]]


def test_what_no_source_has_is_an_error_that_says_what_was_tried_and_what_to_run():
    sources = (
        Shelf(failure=SourceFailed("it is on loan"), name="library"),
        Shelf(failure=SourceFailed("closed"), step=3),
    )
    with pytest.raises(FetchFailed) as caught:
        fetch(Asset("thing", FILES, sources))
    message = str(caught.value)
    assert "library: it is on loan" in message
    assert "the shelf: closed" in message
    assert message.index("not there") < message.index("it is on loan") < message.index("closed")
    assert "take it from library" in message
    assert "LLMREC_CACHE" in message


def test_offline_only_what_needs_no_network_is_tried(monkeypatch, cache):
    monkeypatch.setenv("LLMREC_OFFLINE", "1")
    online, local = Shelf(name="the web"), Shelf(step=1, network=False)
    with pytest.raises(FetchFailed, match=r"(?s)the web: skipped, because LLMREC_OFFLINE is set.*Unset LLMREC_OFFLINE"):
        fetch(Asset("thing", FILES, (online,)))
    assert online.asked == []
    assert fetch(Asset("thing", FILES, (online, local))) == cache / "thing"
    assert fetch(Asset("thing", FILES, (online,))) == cache / "thing"


@pytest.mark.parametrize(
    ("value", "expected"), [("1", True), ("yes", True), ("0", False), ("False", False), ("", False)]
)
def test_the_offline_switch(monkeypatch, value, expected):
    monkeypatch.setenv("LLMREC_OFFLINE", value)
    assert offline() is expected


def test_alternative_forms_share_the_order_of_steps(cache):
    wheel = Shelf(step=3)
    web = Shelf(step=2)
    here = Asset("here", FILES, (wheel,))
    there = Asset("there", FILES, (web,))
    assert fetch(here, there) == cache / "there"
    assert wheel.asked == []
    assert fetch(here, there) == cache / "there"
    assert fetch(here) == cache / "here"
    assert fetch(here, there) == cache / "here"


def test_two_at_once_fetch_once(cache):
    shelf = Shelf(seconds=0.2)
    asset = Asset("thing", FILES, (shelf,))
    found = []
    threads = [threading.Thread(target=lambda: found.append(fetch(asset, progress=False))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [cache / "thing"] * 4
    assert len(shelf.asked) == 1


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "file"))
    with pytest.raises(FetchFailed, match="Set LLMREC_CACHE to a folder"):
        fetch(Asset("thing", FILES, (Shelf(),)))


def test_terms_are_shown_when_something_is_fetched_and_only_then(capsys):
    asset = Asset("thing", FILES, (Shelf(),), "For study only.")
    fetch(asset)
    assert "thing: For study only." in capsys.readouterr().err
    fetch(asset)
    assert capsys.readouterr().err == ""


def test_nothing_is_shown_without_progress(capsys):
    fetch(Asset("thing", FILES, (Shelf(),), "For study only."), progress=False)
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_the_default_cache_is_the_users(monkeypatch, tmp_path):
    monkeypatch.delenv("LLMREC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder().name == "llmrec_fast"
    monkeypatch.setenv("LLMREC_CACHE", "~/models")
    assert cache_folder() == Path.home() / "models"


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../thing", "a/../../b"])
def test_a_pinned_file_lies_below_its_folder(path):
    with pytest.raises(InvalidInput, match="below its folder"):
        AssetFile(path, "0" * 64, 1)


def test_a_pin_is_a_whole_digest():
    with pytest.raises(InvalidInput, match="64 lower-case hexadecimal digits"):
        AssetFile("a", "53aa5117", 1)
