"""The same random runs through us and through pytrec_eval, ranx and RecTools, where those are installed.

Runs have ties, padding, users without recommendations or judgements, unjudged items and graded relevance. Where the tools
disagree with each other, the case says whom we follow.
"""

import math

import numpy as np
import pytest

from llmrec_fast.evaluation import evaluate, evaluate_per_user, from_dicts, from_frames, from_ranx

pytestmark = pytest.mark.filterwarnings("ignore")  # what peers warn of is not ours
SEEDS = range(12)


def random_case(seed):
    """A run with tied scores and judgements from 0 to 3; some users miss on either side."""
    generator = np.random.default_rng(seed)
    n_items, users = int(generator.integers(5, 40)), int(generator.integers(2, 30))
    items = [f"d{item}" for item in generator.permutation(n_items)]
    run, judged = {}, {}
    for user in range(users):
        if generator.random() < 0.9:
            chosen = generator.choice(items, generator.integers(1, n_items + 1), replace=False)
            run[f"u{user}"] = {str(item): float(generator.integers(0, 6)) for item in chosen}
        if generator.random() < 0.9 or not judged:
            chosen = generator.choice(items, generator.integers(1, 8).clip(max=n_items), replace=False)
            judged[f"u{user}"] = {str(item): int(generator.integers(0, 4)) for item in chosen}
            judged[f"u{user}"][str(chosen[0])] = 1
    return run, judged


@pytest.mark.parametrize("seed", SEEDS)
def test_pytrec_eval(seed):
    pytrec_eval = pytest.importorskip("pytrec_eval")
    run, judged = random_case(seed)
    data = from_dicts(run, judged)
    cuts = (1, 3, 10, 60)
    theirs_of = {"precision": "P", "recall": "recall", "ndcg": "ndcg_cut", "map": "map_cut", "hit_rate": "success"}
    wanted = {f"{name}.{','.join(map(str, cuts))}" for name in theirs_of.values()}
    theirs = pytrec_eval.RelevanceEvaluator(judged, {*wanted, "recip_rank"}).evaluate(run)
    names = [f"{name}@{k}" for name in (*theirs_of, "mrr") for k in cuts]
    ours = evaluate_per_user(data.recommended, data.relevant, names, gains=data.gains)
    for row, user in enumerate(data.users):
        for name in names:
            metric, k = name.split("@")
            if user not in judged:
                assert math.isnan(ours[name][row])
            elif user not in run:  # they leave it out, `trec_eval -c` and we count it with 0
                assert ours[name][row] == 0
            elif metric != "mrr":
                assert ours[name][row] == pytest.approx(theirs[user][f"{theirs_of[metric]}_{k}"], abs=1e-9)
            elif k == "60":  # recip_rank has no cut-off
                assert ours[name][row] == pytest.approx(theirs[user]["recip_rank"], abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_ranx(seed):
    ranx = pytest.importorskip("ranx")
    run, judged = random_case(seed)
    qrels, table = ranx.Qrels(judged), ranx.Run(run)
    theirs_of = {
        "precision": "precision",
        "recall": "recall",
        "f1": "f1",
        "hit_rate": "hit_rate",
        "map": "map",
        "mrr": "mrr",
        "ndcg": "ndcg",
        "ndcg_exponential": "ndcg_burges",
    }
    names = [f"{name}@{k}" for name in theirs_of for k in (1, 3, 10)]
    theirs = ranx.evaluate(
        qrels, table, [f"{theirs_of[n.split('@')[0]]}@{n.split('@')[1]}" for n in names], make_comparable=True
    )
    # it has sorted the run once more, and its sort reorders equal scores: the order that it measured is the one to read
    data = from_ranx(qrels, table)
    ours = evaluate(data.recommended, data.relevant, names, gains=data.gains)
    for name in names:
        metric, k = name.split("@")
        assert ours[name] == pytest.approx(theirs[f"{theirs_of[metric]}@{k}"], abs=1e-9), name


@pytest.mark.parametrize("seed", SEEDS)
def test_rectools(seed):
    metrics = pytest.importorskip("rectools.metrics")
    pd = pytest.importorskip("pandas")
    generator = np.random.default_rng(seed)
    n_items, users = int(generator.integers(5, 30)), int(generator.integers(2, 20))
    reco = pd.DataFrame(
        [
            (user, item, rank)
            for user in range(users)
            for rank, item in enumerate(generator.permutation(n_items)[: generator.integers(1, n_items)], start=1)
        ],
        columns=["user_id", "item_id", "rank"],
    )
    test = pd.DataFrame(
        [(u, i) for u in range(users) for i in generator.choice(n_items, generator.integers(1, 5), replace=False)],
        columns=["user_id", "item_id"],
    )
    previous = pd.DataFrame(
        {"user_id": 1000 + generator.integers(0, 20, 60), "item_id": generator.integers(0, n_items, 60)}
    )
    previous = previous.drop_duplicates()
    counts = np.bincount(previous["item_id"], minlength=n_items)
    data = from_frames(reco, test, rank="rank", catalogue=range(n_items))
    for k in (1, 3, 8):
        theirs = metrics.calc_metrics(
            {
                "precision": metrics.Precision(k=k),
                "recall": metrics.Recall(k=k),
                "f1": metrics.F1Beta(k=k),
                "hit_rate": metrics.HitRate(k=k),
                "r_precision": metrics.Precision(k=k, r_precision=True),
                "ndcg": metrics.NDCG(k=k, divide_by_achievable=True),
                "map": metrics.MAP(k=k),
                "mrr": metrics.MRR(k=k),
                "coverage": metrics.CatalogCoverage(k=k, normalize=True),
                "average_popularity": metrics.AvgRecPopularity(k=k),
                "novelty": metrics.MeanInvUserFreq(k=k),
                "serendipity": metrics.Serendipity(k=k),
            },
            reco=reco,
            interactions=test,
            prev_interactions=previous,
            catalog=range(n_items),
        )
        # their novelty divides by users, ours by interactions
        theirs["novelty"] += np.log2(len(previous) / previous["user_id"].nunique())
        ours = evaluate(data.recommended, data.relevant, [f"{name}@{k}" for name in theirs], item_counts=counts)
        for name, value in theirs.items():
            assert ours[f"{name}@{k}"] == pytest.approx(value, abs=1e-9), name
