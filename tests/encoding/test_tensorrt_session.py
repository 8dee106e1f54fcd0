"""TensorRT, all but its own code: every name is one of its bindings', and a double of them builds, keeps and runs engines."""

from __future__ import annotations

import ast
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from llmrec_fast import cli
from llmrec_fast.encoding import (
    cached_engine,
    devices,
    engine_cache,
    engine_profiles,
    tensorrt_session,
)
from llmrec_fast.encoding.encoder import Encoder
from llmrec_fast.encoding.engine_profiles import choose_profile, plan_profiles, round_up
from llmrec_fast.errors import CudaError, DeviceUnavailable, InvalidInput
from llmrec_fast.kernels.cuda.memory import Place
from llmrec_fast.kernels.cuda.runtime import using
from tests.encoding.tensorrt_double import NAMES, Surface, TensorRT
from tests.encoding.tiny_models import KINDS, WORDS, write_model
from tests.simt import build
from tests.simt.memory import EmulatedMemory, Emulation

TEXTS = [" ".join(WORDS[first : first + length]) for first in range(4) for length in (0, 1, 3, 7, 11)]
# Python's, a layout's, and a profile's
OWN = {"import_module", "Lock", "get", "items", "join", "dimensions", "least", "likeliest", "largest"}


@pytest.fixture(scope="module")
def emulation() -> Emulation:
    if (reason := build.missing_for_module()) is not None:
        pytest.skip(f"the CUDA kernels cannot be emulated here: {reason}")
    return Emulation()


def _warm(folder: Path, **settings: Any) -> Encoder:
    encoder = Encoder(folder, device="tensorrt", **settings)
    encoder.warmup()
    return encoder


def _builds(double: TensorRT) -> int:
    return len(double._made("build_serialized_network"))


def test_every_name_that_the_session_uses_is_one_of_the_bindings() -> None:
    tree = ast.parse(Path(tensorrt_session.__file__).read_text(encoding="utf-8"))
    own = OWN | {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    own |= {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and not (isinstance(node.value, ast.Name) and node.value.id == "self")
    }
    assert {"execute_async_v3", "STRONGLY_TYPED", "set_tensor_address"} <= used
    assert used - own <= NAMES
    assert "set_binding_shape" not in NAMES  # an older version's, gone from both


def test_the_double_has_no_name_of_its_own() -> None:
    with pytest.raises(AttributeError, match="no name of TensorRT"):
        TensorRT().execute_v4  # noqa: B018
    with pytest.raises(AttributeError, match="not doubled"):
        TensorRT().Refitter  # noqa: B018
    with pytest.raises(AssertionError, match="invented"):
        type("Wrong", (Surface,), {"invented": 1})


@pytest.mark.parametrize("kind", KINDS)
def test_vectors_are_those_of_the_cpu(library: TensorRT, emulation: Emulation, tmp_path: Path, kind: str) -> None:
    folder = write_model(tmp_path, kind, normalize=True, pooling={"pooling_mode_mean_tokens": True})
    expected = Encoder(folder, device="cpu").encode(TEXTS)
    with using(emulation.runtime):
        half, full = _warm(folder), _warm(folder, precision="float32")
        assert (half.describe()["precision"], full.describe()["precision"]) == ("float16", "float32")
        np.testing.assert_allclose(full.encode(TEXTS), expected, atol=1e-5)
        np.testing.assert_allclose(half.encode(TEXTS), expected, atol=2e-2)
        assert full.encode([]).shape == (0, full.dimension)


def test_poolings_with_weights_are_those_of_the_cpu(library: TensorRT, emulation: Emulation, tmp_path: Path) -> None:
    """Engines round batches up, so that weights cover texts that are not there."""
    pooling = {"pooling_mode": ["weightedmean", "mean_sqrt_len_tokens", "max"], "include_prompt": False}
    folder = write_model(tmp_path, normalize=True, pooling=pooling)
    expected = Encoder(folder, device="cpu").encode(TEXTS[:3], prompt="the movie ")
    with using(emulation.runtime):
        found = _warm(folder, precision="float32").encode(TEXTS[:3], prompt="the movie ")
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_threads_on_one_stream_do_not_mix_their_texts(double: TensorRT, bert: Path) -> None:
    encoder = _warm(bert)
    expected = encoder.encode(TEXTS)
    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(lambda place: encoder.encode(TEXTS[place:]), range(12)))
    for place, vectors in enumerate(found):
        np.testing.assert_allclose(vectors, expected[place:], atol=1e-3)
    with ThreadPoolExecutor(4) as workers:
        found = list(workers.map(lambda place: encoder.encode([TEXTS[place % 20]])[0], range(60)))
    np.testing.assert_allclose(found, expected[np.arange(60) % 20], atol=1e-3)
    shapes = {run[0] for run in double._made("execute_async_v3")}
    assert len(double._made("create_execution_context")) == 1 + sum(batch <= 8 for batch, _ in shapes)


def test_an_engine_runs_on_its_own_gpu_only(double: TensorRT, bert: Path, memory: EmulatedMemory) -> None:
    encoder = _warm(bert)
    memory.place = Place(1, 0)
    with pytest.raises(InvalidInput, match="on device 0, the caller on device 1"):
        encoder.encode(TEXTS)


def test_auto_tells_of_a_stale_engine_and_takes_another_device(
    double: TensorRT, bert: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _warm(bert)
    double.__version__ = "11.4.0.106"
    monkeypatch.setattr(devices, "THIS_MACHINE", replace(devices.THIS_MACHINE, provider=lambda: "the wheel"))
    with pytest.warns(RuntimeWarning, match="is stale") as caught:
        encoder = Encoder(bert)
    assert caught[0].filename == __file__
    assert encoder.describe()["device"] == "cpu"
    assert "no TensorRT engine of this model is cached" in encoder.describe()["device_reason"]


def test_a_request_builds_nothing_and_names_the_command(double: TensorRT, bert: Path) -> None:
    encoder = Encoder(bert, device="tensorrt")
    with pytest.raises(DeviceUnavailable, match=r"llmrec-fast build-engine .* --precision float16"):
        encoder.encode(TEXTS)
    assert _builds(double) == 0
    encoder.warmup()
    encoder.warmup()
    assert encoder.encode(TEXTS).shape == (len(TEXTS), encoder.dimension)
    assert _builds(double) == 1


def test_another_process_finds_the_engine_and_auto_takes_it(double: TensorRT, bert: Path) -> None:
    assert Encoder(bert, device="cpu").describe()["device"] == "cpu"
    expected = _warm(bert).encode(TEXTS)
    again = Encoder(bert)
    assert again.describe()["device"] == "tensorrt"
    assert "cached" in again.describe()["device_reason"]
    np.testing.assert_array_equal(again.encode(TEXTS), expected)
    assert _builds(double) == 1


@pytest.mark.parametrize("change", ["tensorrt", "graph", "profiles"])
def test_a_stale_engine_is_told_and_replaced(
    double: TensorRT, bert: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    _warm(bert)
    if change == "tensorrt":
        double.__version__ = "11.4.0.106"
    elif change == "graph":
        monkeypatch.setattr(engine_cache.plain_builder, "VERSION", 1000)
    else:
        monkeypatch.setattr(engine_profiles, "FEW_TEXTS", 4)
    with pytest.warns(RuntimeWarning, match=f"is stale \\({change} was .*build-engine"):
        encoder = Encoder(bert, device="tensorrt")
    with pytest.raises(DeviceUnavailable):
        encoder.encode(TEXTS)
    encoder.warmup()
    assert _builds(double) == 2
    Encoder(bert, device="tensorrt").encode(TEXTS)
    assert _builds(double) == 2
    assert len(list(encoder._model.session.key.path.parent.glob("*.engine"))) == 1


@pytest.mark.parametrize("damage", ["cut", "flipped", "foreign", "empty"])
def test_a_damaged_engine_is_told_and_replaced(double: TensorRT, bert: Path, damage: str) -> None:
    path = _warm(bert)._model.session.key.path
    content = path.read_bytes()
    flipped = bytearray(content)
    flipped[-7] ^= 1
    path.write_bytes({"cut": content[:-1], "flipped": bytes(flipped), "foreign": b"other\n{}\n", "empty": b""}[damage])
    with pytest.warns(RuntimeWarning, match=r"\.engine is damaged; warmup\(\) or .* replaces it"):
        encoder = Encoder(bert, device="tensorrt")
    encoder.warmup()
    assert encoder.encode(TEXTS[:1]).shape[0] == 1
    assert path.read_bytes() == content


def test_an_engine_that_tensorrt_refuses_is_told(double: TensorRT, bert: Path) -> None:
    _warm(bert)
    double._fails = {"deserialize_cuda_engine"}
    with pytest.warns(RuntimeWarning, match="is refused"):
        Encoder(bert, device="tensorrt")


def test_other_weights_and_gpus_have_engines_of_their_own(
    double: TensorRT, bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = _warm(bert)._model.session.key
    other = _warm(write_model(tmp_path / "other", seed=1))._model.session.key
    monkeypatch.setattr(devices, "describe_gpu", lambda _: "another GPU 10.0")
    third = _warm(bert)._model.session.key
    assert len({first.path, other.path, third.path}) == 3
    assert first.timing_path == other.timing_path != third.timing_path
    # the second build starts from what the first one learned
    assert double._made("create_timing_cache") == [[b""], [b"learned"], [b""]]
    assert replace(first, precision="float32").path != first.path


def test_each_shape_runs_in_its_profile_and_each_stream_has_its_context(
    double: TensorRT, bert: Path, memory: EmulatedMemory
) -> None:
    _warm(bert)
    encoder = Encoder(bert, device="tensorrt")  # which has run nothing yet
    double._calls.clear()
    short, long = "a man", " ".join(WORDS)
    try:
        for stream in (0, 7, 0):
            memory.place = Place(0, stream)
            encoder.encode([short])
        encoder.encode([f"{short} {word}" for word in WORDS])
        encoder.encode([long])
    finally:
        memory.place = Place(0, 0)
    runs = double._made("execute_async_v3")
    assert [run[0] for run in runs] == [(1, 16), (1, 16), (32, 16), (1, 24)]
    assert [run[2] for run in runs] == [0, 7, 0, 0]
    assert double._made("replay") == [[0]]  # the short text's third run is its second on that stream
    profiles = plan_profiles(24, cached_engine.TOKENS_PER_BATCH)
    assert [run[1] for run in runs] == [choose_profile(profiles, run[0]) for run in runs]
    assert double._made("set_optimization_profile_async") == [[0, 0], [0, 7], [1, 0], [2, 0]]
    assert len(double._made("create_execution_context")) == 4  # one a stream and small shape, one for large ones


def test_a_few_texts_are_replayed_as_a_graph_of_their_shape(
    double: TensorRT, bert: Path, memory: EmulatedMemory
) -> None:
    encoder = _warm(bert)
    texts = [" ".join(WORDS[first : first + 3]) for first in range(5)]
    expected = encoder.encode(texts * 4)[:5]  # too many for a graph
    assert double._made("recorded") == []
    double._calls.clear()
    try:
        for stream in (5, 9):
            memory.place = Place(0, stream)
            for _ in range(3):
                found = np.concatenate([encoder.encode([text]) for text in texts[:2]] + [encoder.encode(texts[2:])])
                np.testing.assert_allclose(found, expected, atol=1e-3)
    finally:
        memory.place = Place(0, 0)
    # on each stream: enqueued once, recorded at the second sight, replayed from then on
    assert [run[0] for run in double._made("execute_async_v3")] == [(1, 16), (4, 16)] * 2
    assert double._made("recorded") == [[(1, 16)], [(4, 16)]] * 2
    assert double._made("replay") == [[5]] * 7 + [[9]] * 7
    # shapes on one stream share the memory of activations, streams do not
    memories = [address for (address,) in double._made("set_device_memory")]
    assert memories[0] == memories[1] != memories[2] == memories[3]


def test_an_engine_that_cannot_be_recorded_is_enqueued_and_told_once(double: TensorRT, bert: Path) -> None:
    expected = _warm(bert).encode(TEXTS[:1])
    double._calls.clear()
    double._fails = {"recorded"}
    encoder = Encoder(bert, device="tensorrt")
    encoder.encode(TEXTS[:1])
    with pytest.warns(RuntimeWarning, match="cannot be recorded as a CUDA graph .*could not enqueue the engine"):
        np.testing.assert_array_equal(encoder.encode(TEXTS[:1]), expected)
    np.testing.assert_array_equal(encoder.encode(TEXTS[:1]), expected)
    encoder.encode(TEXTS[:3])
    encoder.encode(TEXTS[:3])
    assert double._made("replay") == []


@pytest.mark.parametrize("longest", [1, 16, 24, 128, 130, 512])
def test_profiles_hold_every_shape_that_a_batch_may_have(longest: int) -> None:
    profiles = plan_profiles(longest, 4096)
    for time in range(1, longest + 1):
        most = max(4096 // (-(-time // 16) * 16), 1)
        for batch in {1, 2, 8, 9, 17, most - 1, most} - {0}:
            if batch <= most:
                shape = round_up(batch, time, longest)
                held = profiles[choose_profile(profiles, shape)]
                assert held.largest[1] < 2 * shape[1] + 16
    with pytest.raises(InvalidInput, match="no batch of 8192 texts"):
        choose_profile(profiles, (8192, 16))


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        ("parse", InvalidInput, "cannot read the model's graph: an unknown operator"),
        ("build_serialized_network", CudaError, "could not build the engine"),
        ("set_timing_cache", CudaError, "delete the .timing file"),
        ("create_execution_context", CudaError, "create an execution context"),
        ("execute_async_v3", CudaError, "enqueue"),
    ],
)
def test_what_tensorrt_refuses_raises(
    double: TensorRT, bert: Path, call: str, kind: type[Exception], message: str
) -> None:
    double._fails = {call}
    with pytest.raises(kind, match=message):
        _warm(bert)


def test_an_engine_that_cannot_be_kept_is_used(double: TensorRT, bert: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(engine_cache.os, "fsync", full)
    encoder = Encoder(bert, device="tensorrt")
    with pytest.warns(RuntimeWarning, match="could not be kept .*No space left"):
        encoder.warmup()
    assert encoder.encode(TEXTS[:2]).shape[0] == 2
    folder = encoder._model.session.key.path.parent
    assert list(folder.iterdir()) == []
    with pytest.raises(InvalidInput, match=r"No space left.*LLMREC_CACHE"):
        cached_engine.build_cached_engine(bert)


def test_the_command_builds_once_and_says_where(
    double: TensorRT, bert: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):
        assert cli.main(["build-engine", str(bert)]) == 0
        assert "float16 engine" in capsys.readouterr().out
    assert _builds(double) == 1
    assert cli.main(["build-engine", str(bert), "--precision", "int8", "--json"]) == 0
    assert '"precision": "int8"' in capsys.readouterr().out
    found = Encoder(bert, device="tensorrt", precision="int8").encode(TEXTS)
    expected = Encoder(bert, device="cpu").encode(TEXTS)
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosines.min() > 0.999


def test_precisions_that_a_device_lacks_are_refused(double: TensorRT, bert: Path) -> None:
    for device in ("cpu", "auto"):
        with pytest.raises(DeviceUnavailable, match="precision='float16' needs device='tensorrt'"):
            Encoder(bert, device=device, precision="float16")
    with pytest.raises(DeviceUnavailable, match="precision='float16' is for device='tensorrt'"):
        Encoder(bert, device="cuda", precision="float16")
    with pytest.raises(InvalidInput, match="float32, float16, int8"):
        Encoder(bert, precision="float8")


def test_without_tensorrt_the_command_names_what_is_missing(bert: Path, capsys: pytest.CaptureFixture[str]) -> None:
    if devices.missing_driver() is None:
        pytest.skip("there is a GPU")
    assert cli.main(["build-engine", str(bert)]) == 2
    assert "NVIDIA driver" in capsys.readouterr().err
