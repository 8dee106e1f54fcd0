"""The LangChain store against LangChain's own in-memory one: the same documents, scores and choices."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("langchain_core", reason="the continuous integration runs these in a pass of their own")

from langchain_core.documents import Document
from langchain_core.embeddings import DeterministicFakeEmbedding, Embeddings
from langchain_core.vectorstores import InMemoryVectorStore

from llmrec_fast.compat.langchain import EncoderEmbeddings, ExactVectorStore
from llmrec_fast.encoding import Encoder
from llmrec_fast.errors import CorruptFile, InvalidInput
from llmrec_fast.retrieval import Index

COLUMNS = 12


class Letters(Embeddings):
    """How often each of the first letters occurs: vectors that a person can check. Counts its calls."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("embed_documents")
        return [self._count(text) for text in texts]

    def embed_query(self, text: str) -> list[float]:
        self.calls.append("embed_query")
        return self._count(text)

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        self.calls.append("aembed_documents")
        return [self._count(text) for text in texts]

    async def aembed_query(self, text: str) -> list[float]:
        self.calls.append("aembed_query")
        return self._count(text)

    @staticmethod
    def _count(text: str) -> list[float]:
        return [float(text.count(letter)) for letter in "abcd"]


def documents(count: int) -> list[Document]:
    return [
        Document(
            id=str(number), page_content=f"text {number}", metadata={"even": number % 2 == 0, "tens": number // 10}
        )
        for number in range(count)
    ]


@pytest.fixture(scope="module")
def pair() -> tuple[ExactVectorStore, InMemoryVectorStore]:
    """Our store and LangChain's with the same 300 documents."""
    embedding = DeterministicFakeEmbedding(size=COLUMNS)
    stores = ExactVectorStore(embedding), InMemoryVectorStore(embedding)
    for store in stores:
        store.add_documents(documents(300))
    return stores


def is_even(document: Document) -> bool:
    return bool(document.metadata["even"])


@pytest.mark.parametrize("k", [1, 4, 300, 1000])
@pytest.mark.parametrize("keep", [None, is_even, lambda document: document.metadata["tens"] == 7, lambda _: False])
def test_same_documents_and_scores_as_the_in_memory_store(
    pair: tuple[ExactVectorStore, InMemoryVectorStore], k: int, keep: Callable[[Document], bool] | None
) -> None:
    ours, theirs = pair
    for query in ("space", "snow", "text 17"):
        got = ours.similarity_search_with_score(query, k, filter=keep)
        wanted = theirs.similarity_search_with_score(query, k, filter=keep)
        assert [document for document, _ in got] == [document for document, _ in wanted]
        np.testing.assert_allclose([score for _, score in got], [score for _, score in wanted], atol=1e-6)
        assert ours.similarity_search(query, k, filter=keep) == [document for document, _ in wanted]
        vector = ours.embeddings.embed_query(query)
        assert ours.similarity_search_by_vector(vector, k, filter=keep) == [document for document, _ in wanted]


@pytest.mark.parametrize("lambda_mult", [0.0, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("keep", [None, is_even])
def test_same_diverse_choices_as_the_in_memory_store(
    pair: tuple[ExactVectorStore, InMemoryVectorStore], lambda_mult: float, keep: Callable[[Document], bool] | None
) -> None:
    ours, theirs = pair
    for query in ("space", "snow"):
        for k, fetch_k in ((4, 20), (10, 10), (9, 5)):
            arguments = {"k": k, "fetch_k": fetch_k, "lambda_mult": lambda_mult, "filter": keep}
            wanted = theirs.max_marginal_relevance_search(query, **arguments)
            assert ours.max_marginal_relevance_search(query, **arguments) == wanted
            assert asyncio.run(ours.amax_marginal_relevance_search(query, **arguments)) == wanted


def test_where_the_query_is_a_document_the_nearer_of_equal_gains_is_chosen(
    pair: tuple[ExactVectorStore, InMemoryVectorStore],
) -> None:
    """Relevance and likeness to the first choice are then one number, and at the default weight every gain is 0."""
    ours, _ = pair
    nearest = ours.similarity_search("text 17", 20)
    assert nearest[0].id == "17"
    assert ours.max_marginal_relevance_search("text 17", 2) == nearest[:2]


def test_retrievers_of_all_kinds(pair: tuple[ExactVectorStore, InMemoryVectorStore]) -> None:
    ours, theirs = pair
    for kind, search in (("similarity", {"k": 5}), ("mmr", {"k": 3, "fetch_k": 9, "lambda_mult": 0.2})):
        wanted = theirs.as_retriever(search_type=kind, search_kwargs=search).invoke("snow")
        assert ours.as_retriever(search_type=kind, search_kwargs=search).invoke("snow") == wanted
        assert asyncio.run(ours.as_retriever(search_type=kind, search_kwargs=search).ainvoke("snow")) == wanted
    above = ours.as_retriever(
        search_type="similarity_score_threshold", search_kwargs={"score_threshold": 0.5, "k": 300}
    ).invoke("snow")
    scores = theirs.similarity_search_with_score("snow", 300)
    assert above == [document for document, score in scores if score >= 0.5]
    assert 0 < len(above) < 300


def test_a_dict_filters_by_equal_values(pair: tuple[ExactVectorStore, InMemoryVectorStore]) -> None:
    ours, theirs = pair
    wanted = theirs.similarity_search("snow", 9, filter=lambda d: d.metadata == {"even": True, "tens": 3})
    assert ours.similarity_search("snow", 9, filter={"even": True, "tens": 3}) == wanted
    assert len(wanted) == 5
    assert ours.similarity_search("snow", 9, filter={"other": None}) == []
    with pytest.raises(InvalidInput, match="filter must be a function of a document or a dict; got str"):
        ours.similarity_search("snow", filter="even")
    with pytest.raises(TypeError, match="where"):
        ours.similarity_search("snow", where={"even": True})


def test_an_error_of_the_filter_is_the_callers(pair: tuple[ExactVectorStore, InMemoryVectorStore]) -> None:
    with pytest.raises(KeyError, match="missing"):
        pair[0].similarity_search("snow", filter=lambda document: document.metadata["missing"])


def test_texts_metadata_and_ids() -> None:
    store = ExactVectorStore.from_texts(
        ["a", "b", "ab"], Letters(), [{"n": 1}, {"n": 2}, {"n": 3}], ids=["x", None, "z"]
    )
    assert len(store) == 3
    assert [document.metadata["n"] for document in store.similarity_search("aab", 3)] == [3, 1, 2]
    assert [document.id for document in store.get_by_ids(["z", "unknown", "x"])] == ["z", "x"]
    added = store.add_texts(iter(["c", "d", "c"]))
    assert len(set(added)) == 3
    assert [len(identifier) for identifier in added] == [36] * 3
    from_documents = ExactVectorStore.from_documents(
        [Document(page_content="a", id="1"), Document(page_content="b")], Letters()
    )
    assert from_documents.get_by_ids(["1"]) == [Document(page_content="a", id="1")]


def test_the_last_of_several_texts_with_one_id_counts() -> None:
    store = ExactVectorStore(Letters())
    assert store.add_texts(["a", "b", "c"], ids=["x", "y", "x"]) == ["x", "y", "x"]
    assert len(store) == 2
    assert store.get_by_ids(["x"])[0].page_content == "c"
    assert store.similarity_search("a", 5) == [
        Document(page_content="c", id="x"),
        Document(page_content="b", id="y"),
    ]
    store.add_texts(["d"], ids=["y"])
    assert [document.page_content for document in store.similarity_search("b", 5)] == ["c", "d"]


def test_equal_scores_come_in_the_order_of_adding() -> None:
    store = ExactVectorStore.from_texts(["a", "aa", "b", "aaa"], Letters(), ids=list("wxyz"))
    assert [document.id for document in store.similarity_search("a", 4)] == ["w", "x", "z", "y"]
    store.add_texts(["a"], ids=["w"])
    assert [document.id for document in store.similarity_search("a", 4)] == ["x", "z", "w", "y"]


@pytest.mark.parametrize(
    ("metric", "scores", "relevance"),
    [
        ("cosine", {"aa": 1.0, "ab": 0.5**0.5, "b": 0.0}, {"aa": 1.0, "ab": 0.5**0.5, "b": 0.0}),
        ("dot", {"aa": 4.0, "ab": 2.0, "b": 0.0}, None),
        ("euclidean", {"aa": 0.0, "ab": -(2**0.5), "b": -(5**0.5)}, {"aa": 1.0, "ab": 0.0, "b": 0.0}),
    ],
)
def test_scores_and_relevance_of_each_metric(metric: Any, scores: Any, relevance: Any) -> None:
    store = ExactVectorStore.from_texts(["b", "ab", "aa"], Letters(), metric=metric)
    found = store.similarity_search_with_score("aa", 3)
    assert {document.page_content: score for document, score in found} == pytest.approx(scores, abs=1e-7)
    if relevance is None:
        with pytest.raises(InvalidInput, match="no scale from 0 to 1"):
            store.similarity_search_with_relevance_scores("aa", 3)
    else:
        relevant = store.similarity_search_with_relevance_scores("aa", 3)
        assert {document.page_content: score for document, score in relevant} == pytest.approx(relevance, abs=1e-7)


def test_what_callers_do_to_documents_does_not_reach_the_store() -> None:
    metadata = {"n": 1}
    store = ExactVectorStore.from_texts(["a"], Letters(), [metadata], ids=["x"])
    metadata["n"] = 2
    store.similarity_search("a")[0].metadata["n"] = 3
    store.get_by_ids(["x"])[0].metadata["n"] = 4
    store.max_marginal_relevance_search("a")[0].metadata["n"] = 5
    assert store.similarity_search("a")[0].metadata == {"n": 1}


def test_delete() -> None:
    store = ExactVectorStore.from_texts(["a", "b", "c"], Letters(), ids=["x", "y", "z"])
    assert store.delete(["y", "unknown", "y"]) is True
    assert [document.id for document in store.similarity_search("b", 3)] == ["x", "z"]
    assert store.get_by_ids(["y"]) == []
    with pytest.raises(InvalidInput, match="not a single string"):
        store.delete("x")
    assert asyncio.run(store.adelete()) is True
    assert len(store) == 0
    assert store.similarity_search("a", 3) == []
    assert store.max_marginal_relevance_search("a") == []
    store.add_texts(["d"], ids=["x"])
    assert [document.id for document in store.similarity_search("a", 3)] == ["x"]


def test_an_empty_store_is_true_and_answers_nothing() -> None:
    store = ExactVectorStore(Letters())
    assert store
    assert store.similarity_search("a") == store.get_by_ids(["x"]) == store.add_texts([]) == []
    assert store.delete() is True


def test_asynchronous_methods_use_the_asynchronous_embedding() -> None:
    embedding = Letters()

    async def use() -> list[Any]:
        store = await ExactVectorStore.afrom_texts(["a", "ab"], embedding, [{"n": 1}, {"n": 2}], ids=["x", "y"])
        await store.aadd_documents([Document(page_content="b", id="z")])
        return [
            [document.id for document in await store.asimilarity_search("b", 2)],
            [score for _, score in await store.asimilarity_search_with_score("b", 1)],
            [document.id for document in await store.asimilarity_search_by_vector([1, 0, 0, 0], 1)],
            [document.id for document in await store.amax_marginal_relevance_search("b", 2, 2)],
            [document.id for document, _ in await store.asimilarity_search_with_relevance_scores("a", 1)],
            [document.id for document in await store.aget_by_ids(["y"])],
            [document.id for document in await store.asimilarity_search("b", 2, filter={"n": 2})],
        ]

    assert asyncio.run(use()) == [["z", "y"], [1.0], ["x"], ["z", "y"], ["x"], ["y"], ["y"]]
    assert {call for call in embedding.calls if not call.startswith("a")} == set()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda store: store.add_texts("text"), "not a single string"),
        (lambda store: store.add_texts(["a", 5]), r"texts\[1\] must be a string"),
        (lambda store: store.add_texts(["a"], [{}, {}]), "metadatas must have one entry a text; got 2 for 1"),
        (lambda store: store.add_texts(["a"], ids=[]), "ids must have one entry a text; got 0 for 1"),
        (lambda store: store.add_texts(["a"], [None]), "metadatas must hold dicts; got NoneType"),
        (lambda store: store.add_texts(["a"], ids=[5]), "ids must be strings or None; got 5"),
        (lambda store: store.similarity_search("a", 0), "k must be at least 1"),
        (lambda store: store.similarity_search_by_vector([1, 2, 3]), "must have 4 columns"),
        (lambda store: store.similarity_search_by_vector([float("nan")] * 4), "NaN"),
        (lambda store: store.max_marginal_relevance_search("a", 0), "k must be at least 1"),
        (lambda store: store.max_marginal_relevance_search("a", fetch_k=0), "fetch_k must be at least 1"),
        (lambda store: store.max_marginal_relevance_search("a", lambda_mult=2), "lambda_mult must lie between 0 and 1"),
        (lambda store: ExactVectorStore(lambda text: [1.0]), "embedding must be a LangChain Embeddings object"),
        (lambda store: ExactVectorStore(Letters(), metric="hamming"), "metric must be"),
    ],
)
def test_refusals_say_why_and_change_nothing(call: Callable[[ExactVectorStore], Any], message: str) -> None:
    store = ExactVectorStore.from_texts(["a"], Letters(), ids=["x"])
    with pytest.raises(InvalidInput, match=message):
        call(store)
    assert store.similarity_search("a", 9) == [Document(page_content="a", id="x")]


def test_saved_and_loaded_it_answers_bit_for_bit_the_same(tmp_path: Path) -> None:
    embedding = DeterministicFakeEmbedding(size=COLUMNS)
    for metric in ("cosine", "dot", "euclidean"):
        store = ExactVectorStore(embedding, metric=metric)
        store.add_documents(documents(50))
        store.delete([str(number) for number in range(0, 50, 7)])
        store.add_texts(["again, café 雪"], [{"nested": {"list": [1, 2.5, None, True]}}], ids=["3"])
        store.save_local(tmp_path / "store")
        loaded = ExactVectorStore.load_local(tmp_path / "store", embedding)
        for query in ("snow", "again, café 雪"):
            found = loaded.similarity_search_with_score(query, 100)
            assert found == store.similarity_search_with_score(query, 100)
            assert len(found) == len(loaded) == 42
        loaded.add_texts(["new"], ids=["3"])
        assert len(loaded) == 42
    ExactVectorStore(embedding).save_local(tmp_path / "store")
    empty = ExactVectorStore.load_local(tmp_path / "store", embedding)
    assert empty.similarity_search("snow") == []
    assert empty.add_texts(["text"], ids=["1"]) == ["1"]


@pytest.mark.parametrize("value", [(1, 2), {1: "one"}, np.int64(3), {"deep": [b"bytes"]}])
def test_metadata_that_would_come_back_otherwise_is_not_saved(tmp_path: Path, value: Any) -> None:
    store = ExactVectorStore.from_texts(["a"], Letters(), [{"value": value}], ids=["x"])
    with pytest.raises(InvalidInput, match="metadata of document 'x'"):
        store.save_local(tmp_path / "store")
    assert not (tmp_path / "store").exists()


def test_damaged_and_foreign_folders_are_refused(tmp_path: Path) -> None:
    store = ExactVectorStore.from_texts(["a"], Letters(), ids=["x"])
    store.save_local(tmp_path / "store")
    file = next((tmp_path / "store").glob("documents-*.npy"))
    file.write_bytes(file.read_bytes().replace(b'"x"', b'"y"'))
    with pytest.raises(CorruptFile, match=file.name):
        ExactVectorStore.load_local(tmp_path / "store", Letters())
    Index.build(np.eye(2)).save(tmp_path / "index")
    with pytest.raises(CorruptFile, match="holds no saved vector store"):
        ExactVectorStore.load_local(tmp_path / "index", Letters())


def test_readers_see_whole_states_while_a_writer_replaces_and_deletes() -> None:
    """Every document names its generation; a search must see one document an id, and text and metadata of one version."""
    store = ExactVectorStore(Letters())
    ids = [str(number) for number in range(20)]

    def write(generation: int) -> None:
        store.add_texts(["ab"] * 20, [{"generation": generation}] * 20, ids=ids)

    write(0)
    stop, problems = threading.Event(), []

    def read() -> None:
        while not stop.is_set():
            found = store.similarity_search("ab", 40)
            if sorted(document.id for document in found) not in (sorted(ids), sorted(ids[:10])):
                problems.append([document.id for document in found])
            if len({document.metadata["generation"] for document in found}) != 1:
                problems.append([document.metadata for document in found])
            if len(store.get_by_ids(ids[:10])) != 10:
                problems.append("get_by_ids")

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    for generation in range(1, 120):
        write(generation)
        store.delete(ids[10:])
    stop.set()
    for reader in readers:
        reader.join()
    assert problems == []


def test_deleted_rows_are_reclaimed(monkeypatch: pytest.MonkeyPatch) -> None:
    from llmrec_fast.compat.langchain import documents as module

    monkeypatch.setattr(module, "_LEAST_RECLAIMED", 8)
    rebuilt = []
    optimize = Index.optimize
    monkeypatch.setattr(Index, "optimize", lambda index: (rebuilt.append(len(index)), optimize(index)))
    store = ExactVectorStore(Letters())
    for _ in range(10):
        store.add_texts(["a", "ab", "b"], ids=["x", "y", "z"])
    assert rebuilt == [3, 3, 3]
    assert [document.id for document in store.similarity_search("a", 3)] == ["x", "y", "z"]


def test_embeddings_take_the_models_prompts(folder: Path) -> None:
    embeddings = EncoderEmbeddings(folder)
    encoder = Encoder(folder)
    texts = ["snow", "a movie about space"]
    assert embeddings.embed_documents(texts) == encoder.encode(texts, prompt=encoder.prompts["document"]).tolist()
    assert embeddings.embed_documents([]) == []
    query = encoder.encode(["snow"], prompt="a man ")[0]
    assert embeddings.embed_query("snow") == query.tolist()

    async def together() -> list[list[float]]:
        return list(await asyncio.gather(*(embeddings.aembed_query("snow") for _ in range(5))))

    np.testing.assert_allclose(asyncio.run(together()), [query] * 5, atol=1e-6)
    assert asyncio.run(embeddings.aembed_documents(texts)) == embeddings.embed_documents(texts)
    assert EncoderEmbeddings(encoder).encoder is encoder
    with pytest.raises(InvalidInput, match="threads: set when the encoder is made"):
        EncoderEmbeddings(encoder, threads=1)


def test_a_store_over_the_encoder(folder: Path, tmp_path: Path) -> None:
    embeddings = EncoderEmbeddings(folder)
    store = ExactVectorStore.from_texts(["snow", "space and time", "bread"], embeddings, ids=["1", "2", "3"])
    vectors = np.array(embeddings.embed_documents(["snow", "space and time", "bread"]))
    query = np.array(embeddings.embed_query("snow"))
    cosines = vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    found = store.similarity_search_with_score("snow", 3)
    assert [document.id for document, _ in found] == [str(place + 1) for place in np.argsort(-cosines)]
    np.testing.assert_allclose([score for _, score in found], np.sort(cosines)[::-1], atol=1e-6)
    store.save_local(tmp_path / "store")
    written = json.loads((tmp_path / "store" / "manifest.json").read_text())
    assert written["content"]["header"] == {"kind": "langchain documents", "metric": "cosine"}
