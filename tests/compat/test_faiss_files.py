"""The FAISS shim's files, copies and factory: FAISS's own bytes are written out here, so that nothing of it is needed."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import llmrec_fast.compat.faiss as faiss
from llmrec_fast.errors import CorruptFile, InvalidInput
from tests.compat.test_faiss import QUERY, ROWS, filled

# what FAISS 1.15.1 wrote for ROWS in an IndexFlatIP, and for [[0, 1], [1, 0], [1, 0]] with ids in an IndexIDMap of L2
HEADER_END = bytes.fromhex("0000100000000000" * 2 + "01")
IP_FILE = (
    b"IxFI" + bytes.fromhex("02000000" "0500000000000000") + HEADER_END + bytes.fromhex("00000000" "0a00000000000000")
) + ROWS.tobytes()  # fmt: skip
L2_PART = (
    b"IxF2" + bytes.fromhex("02000000" "0300000000000000") + HEADER_END + bytes.fromhex("01000000" "0600000000000000")
) + ROWS[2:].tobytes()  # fmt: skip
MAP_FILE = (
    b"IxMp" + bytes.fromhex("02000000" "0300000000000000") + HEADER_END + bytes.fromhex("01000000") + L2_PART
    + bytes.fromhex("0300000000000000") + np.array([7, 8, 9]).tobytes()
)  # fmt: skip


class TestFiles:
    def test_faiss_files_of_flat_indexes_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "ip").write_bytes(IP_FILE)
        index = faiss.read_index(tmp_path / "ip")
        assert type(index) is faiss.IndexFlatIP
        assert index.search(QUERY, 3)[1].tolist() == [[3, 1, 0]]

    def test_faiss_files_of_id_maps_are_read(self, tmp_path: Path) -> None:
        (tmp_path / "map").write_bytes(MAP_FILE)
        index = faiss.read_index(str(tmp_path / "map"))
        assert type(index) is faiss.IndexIDMap
        assert index.search(QUERY, 3)[1].tolist() == [[8, 9, 7]]

    @pytest.mark.parametrize("file", [IP_FILE, MAP_FILE])
    def test_a_file_cut_anywhere_is_corrupt(self, file: bytes, tmp_path: Path) -> None:
        for size in range(0, len(file), 7):
            (tmp_path / "cut").write_bytes(file[:size])
            with pytest.raises(CorruptFile, match="cut"):
                faiss.read_index(tmp_path / "cut")

    def test_a_file_that_announces_more_than_it_has_is_corrupt(self, tmp_path: Path) -> None:
        (tmp_path / "huge").write_bytes(IP_FILE[:37] + b"\xff" * 8 + IP_FILE[45:])
        with pytest.raises(CorruptFile, match="announced"):
            faiss.read_index(tmp_path / "huge")

    def test_other_kinds_are_refused_by_name(self, tmp_path: Path) -> None:
        (tmp_path / "ivf").write_bytes(b"IwFl" + IP_FILE[4:])
        with pytest.raises(InvalidInput, match="IwFl"):
            faiss.read_index(tmp_path / "ivf")
        with pytest.raises(InvalidInput, match="does not exist"):
            faiss.read_index(tmp_path / "nowhere")

    def test_an_index_comes_back_as_it_was_written(self, tmp_path: Path) -> None:
        index = filled(faiss.IndexFlatIP)
        index.remove_ids(np.array([1]))
        faiss.write_index(index, tmp_path / "index")
        back = faiss.read_index(tmp_path / "index")
        assert type(back) is faiss.IndexFlatIP
        assert back.search(QUERY, 4)[1].tolist() == index.search(QUERY, 4)[1].tolist() == [[3, 2, 0, 1]]

    def test_an_id_map_comes_back_and_replaces_what_was_there(self, tmp_path: Path) -> None:
        faiss.write_index(filled(faiss.IndexFlatIP), str(tmp_path / "index"))
        index = faiss.IndexIDMap2(faiss.IndexFlat(2))
        index.add_with_ids(ROWS, np.array([5, 5, 7, 8, 9]))
        faiss.write_index(index, str(tmp_path / "index"))
        back = faiss.read_index(str(tmp_path / "index"))
        assert type(back) is faiss.IndexIDMap2
        assert back.search(QUERY, 5)[1].tolist() == [[5, 5, 8, 9, 7]]
        assert len(list((tmp_path / "index").glob("rows-*"))) == 1

    def test_a_damaged_folder_is_corrupt(self, tmp_path: Path) -> None:
        faiss.write_index(filled(faiss.IndexFlatIP), tmp_path / "index")
        manifest = next(path for path in (tmp_path / "index").iterdir() if path.is_file())
        manifest.write_bytes(manifest.read_bytes().replace(b"IndexFlatIP", b"IndexFlatL2"))
        with pytest.raises(CorruptFile):
            faiss.read_index(tmp_path / "index")

    def test_over_a_file_goes_a_file_that_faiss_reads(self, tmp_path: Path) -> None:
        for name, content in (("empty", b""), ("old", MAP_FILE)):
            (tmp_path / name).write_bytes(content)
            faiss.write_index(filled(faiss.IndexFlatIP), tmp_path / name)
            assert (tmp_path / name).read_bytes() == IP_FILE
        assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "old"]

    def test_a_file_of_something_else_is_not_overwritten(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"precious")
        with pytest.raises(InvalidInput, match="holds something else"):
            faiss.write_index(filled(faiss.IndexFlatIP), tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == b"precious"

    def test_flags_that_ask_for_nothing_else_are_accepted(self, tmp_path: Path) -> None:
        faiss.write_index(filled(faiss.IndexFlatL2), tmp_path / "index")
        assert faiss.read_index(tmp_path / "index", faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY).ntotal == 5
        with pytest.raises(InvalidInput, match="io_flags"):
            faiss.read_index(tmp_path / "index", 4)

    def test_what_is_damaged_is_a_runtime_error_as_in_faiss(self) -> None:
        with pytest.raises(RuntimeError, match="ended early"):
            faiss.deserialize_index(np.frombuffer(IP_FILE[:-3], np.uint8))


class TestCopies:
    def test_serialized_bytes_are_those_of_faiss(self) -> None:
        assert faiss.serialize_index(filled(faiss.IndexFlatIP)).tobytes() == IP_FILE
        back = faiss.deserialize_index(np.frombuffer(MAP_FILE, np.uint8))
        assert faiss.serialize_index(back).tobytes() == MAP_FILE
        with pytest.raises(InvalidInput, match="uint8"):
            faiss.deserialize_index(IP_FILE)

    @pytest.mark.parametrize(
        "duplicate", [faiss.clone_index, copy.copy, lambda index: pickle.loads(pickle.dumps(index))]
    )
    def test_a_copy_answers_alike_and_shares_nothing(self, duplicate: Callable[[object], faiss.IndexIDMap2]) -> None:
        index = faiss.IndexIDMap2(faiss.IndexFlatIP(2))
        index.add_with_ids(ROWS, np.array([5, 5, 7, 8, 9]))
        copied = duplicate(index)
        assert type(copied) is faiss.IndexIDMap2
        assert type(copied.index) is faiss.IndexFlatIP
        index.remove_ids([5])
        assert (index.ntotal, copied.ntotal) == (3, 5)
        assert copied.search(QUERY, 5)[1].tolist() == [[9, 8, 5, 5, 7]]

    def test_merging_moves_the_rows(self) -> None:
        left, right = filled(faiss.IndexFlatL2), filled(faiss.IndexFlatL2)
        left.merge_from(right)
        assert (left.ntotal, right.ntotal) == (10, 0)
        with pytest.raises(InvalidInput, match="another index of the same kind"):
            left.merge_from(filled(faiss.IndexFlatIP))
        with pytest.raises(InvalidInput, match="another index"):
            left.merge_from(left)

    def test_merging_maps_moves_ids_too(self) -> None:
        maps = [faiss.IndexIDMap(faiss.IndexFlatIP(2)) for _ in range(2)]
        for first, index in enumerate(maps):
            index.add_with_ids(ROWS[:2], np.array([first, 7]))
        maps[0].merge_from(maps[1], 100)
        assert faiss.vector_to_array(maps[0].id_map).tolist() == [0, 7, 101, 107]
        assert len(maps[1].id_map) == maps[1].ntotal == 0

    def test_rows_and_ids_can_be_read_as_faiss_code_reads_them(self) -> None:
        index = filled(faiss.IndexFlatIP)
        assert np.array_equal(faiss.rev_swig_ptr(index.get_xb(), 10).reshape(5, 2), ROWS)
        assert np.array_equal(faiss.vector_to_array(index.codes).view(np.float32), ROWS.ravel())
        mapped = faiss.IndexIDMap(faiss.IndexFlatIP(2))
        mapped.add_with_ids(ROWS, np.arange(5) * 2)
        assert [mapped.id_map.at(place) for place in range(mapped.id_map.size())] == [0, 2, 4, 6, 8]
        with pytest.raises(InvalidInput, match="must hold 11 values"):
            faiss.rev_swig_ptr(index.get_xb(), 11)


class TestFactory:
    @pytest.mark.parametrize(
        ("description", "kind"),
        [("Flat", faiss.IndexFlat), ("IDMap,Flat", faiss.IndexIDMap), ("IDMap2, Flat", faiss.IndexIDMap2)],
    )
    def test_flat_indexes_are_made(self, description: str, kind: type) -> None:
        index = faiss.index_factory(3, description, faiss.METRIC_INNER_PRODUCT)
        assert type(index) is kind
        assert (index.d, index.metric_type) == (3, faiss.METRIC_INNER_PRODUCT)

    @pytest.mark.parametrize("description", ["IVF16,Flat", "Flat,PQ8", "IDMap", "IDMap,IDMap,Flat", ""])
    def test_others_are_refused(self, description: str) -> None:
        with pytest.raises(RuntimeError, match="could not parse"):
            faiss.index_factory(8, description)
