import json
import subprocess
import sys

import numpy as np
import pytest

from llmrec_fast import Encoder, cli

from .encoding.tiny_models import write_model
from .recommender.conftest import interaction_table, item_table


def write_csv(path, table):
    rows = zip(*table.values(), strict=True)
    path.write_text("\n".join([",".join(table), *(",".join(map(str, row)) for row in rows)]) + "\n")
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(write_model(tmp_path_factory.mktemp("model"), "bert"))


@pytest.fixture(scope="module")
def data(tmp_path_factory, model):
    folder = tmp_path_factory.mktemp("data")
    items, interactions = (
        write_csv(folder / "items.csv", item_table()),
        write_csv(folder / "acts.csv", interaction_table()),
    )
    return ["--items", items, "--interactions", interactions, "--liked-from", "4", "--model", model]


def run(capsys, *words):
    status = cli.main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_info_tells_versions_devices_and_cache(capsys):
    status, out, _ = run(capsys, "info", "--json")
    facts = json.loads(out)
    assert status == 0
    assert facts["packages"]["numpy"] == np.__version__
    assert facts["devices"]["cpu"] == "ready"
    assert "cuda" in facts["devices"]
    assert facts["devices"]["tensorrt"].startswith(("not available; missing: ", "ready: TensorRT 1"))
    assert facts["threads"] >= 1
    status, out, _ = run(capsys, "info")
    assert "packages: numba" in out
    assert "cache: folder" in out


def test_encode_writes_one_row_a_line(capsys, tmp_path, model):
    (tmp_path / "in.txt").write_text("first text\nsecond text\n")
    status, out, _ = run(
        capsys, "encode", f"{tmp_path}/in.txt", "--output", f"{tmp_path}/out.npy", "--model", model, "--json"
    )
    vectors = np.load(tmp_path / "out.npy")
    assert status == 0
    assert json.loads(out)["texts"] == 2
    np.testing.assert_allclose(vectors, Encoder(model).encode(["first text", "second text"]), atol=1e-6)


def test_encode_reads_tables_through_a_template(capsys, tmp_path, model):
    table = write_csv(tmp_path / "in.csv", {"a": ["x", "y"], "b": ["1", "2"]})
    status, _, _ = run(
        capsys, "encode", table, "--text", "{a} {b}", "--output", f"{tmp_path}/out.npy", "--model", model
    )
    assert status == 0
    np.testing.assert_allclose(np.load(tmp_path / "out.npy"), Encoder(model).encode(["x 1", "y 2"]), atol=1e-6)


def test_recommend_fits_saves_loads_and_explains(capsys, tmp_path, data):
    saved = str(tmp_path / "saved")
    status, out, err = run(capsys, "recommend", *data, "--user", "0", "-k", "2", "--save", saved, "--json")
    answers = json.loads(out)["answers"]
    assert status == 0
    assert "120 of 120 rows kept" in err
    assert len(answers[0]["items"]) == 2
    status, out, _ = run(capsys, "recommend", "--load", saved, "--user", "0", "-k", "2", "--explain", "--json")
    again = json.loads(out)["answers"][0]
    assert again["items"] == answers[0]["items"]
    assert sum(again["explanation"]["features"].values()) == pytest.approx(again["items"][0]["score"])
    status, out, _ = run(
        capsys, "recommend", "--load", saved, "--like", "Red Wine", "--query", "saw", "--user", "1", "-k", "3"
    )
    assert status == 0
    assert all(word in out for word in ("like i0", "query saw", "user 1", "score"))


def test_evaluate_prints_a_row_a_method(capsys, data):
    status, out, _ = run(capsys, "evaluate", *data, "--metrics", "recall@3,ndcg@3", "--json")
    rows = json.loads(out)["rows"]
    assert status == 0
    assert set(rows) - {"reranked"} == {"popularity", "text", "collaborative", "fused"}
    assert rows["collaborative"]["recall@3"] > rows["popularity"]["recall@3"] > 0
    status, out, _ = run(capsys, "evaluate", *data)
    assert "ndcg@10" in out


def test_evaluate_writes_a_report(capsys, data, tmp_path):
    status, _, err = run(
        capsys, "evaluate", *data, "--metrics", "recall@3,ndcg@3", "--report", str(tmp_path / "report")
    )
    assert status == 0
    assert "report.html" in err
    report = json.loads((tmp_path / "report/report.json").read_text())
    assert "fused" in json.dumps(report)
    assert (tmp_path / "report/report.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["recommend"], "--load FOLDER, or --items FILE"),
        (["recommend", "--load", "/nowhere"], "/nowhere"),
        (["evaluate", "--items", "/nowhere.csv", "--interactions", "/nowhere.csv"], "no such file: /nowhere.csv"),
        (["encode", "/nowhere.txt", "--output", "out.npy"], "cannot read /nowhere.txt"),
        (["encode", "/nowhere.txt", "--output", "out.txt"], "--output must end in .npy"),
        (["encode", "/nowhere.csv", "--output", "out.npy"], "say which text to encode"),
        (["demo", "--users", "-1"], "--users must be at least 0"),
    ],
)
def test_what_cannot_be_done_is_said_and_exits_with_2(capsys, words, message):
    status, out, err = run(capsys, *words)
    assert status == 2
    assert message in err
    assert not out


def test_a_broken_line_is_named(capsys, tmp_path, data):
    (tmp_path / "bad.csv").write_text('user,item\n1,i0\n2,"i1\n')
    status, _, err = run(capsys, "evaluate", data[0], data[1], "--interactions", str(tmp_path / "bad.csv"))
    assert status == 2
    assert "bad.csv, line 3" in err


@pytest.mark.parametrize("command", ["demo", "encode", "recommend", "evaluate", "info"])
def test_help_has_examples(capsys, command):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    assert f"examples:\n  llmrec-fast {command}" in capsys.readouterr().out


def test_the_program_is_installed():
    done = subprocess.run(
        [sys.executable, "-m", "llmrec_fast", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("llmrec-fast ")
