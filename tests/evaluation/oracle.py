"""Every metric again, straight from its definition, one user and one Python loop at a time. Nothing of the package."""

import math


def hits(recommended, relevant, k):
    """1 or 0 for each of the first k ranks; a repeated id hits once; what is missing at the end misses."""
    wanted, found, result = set(relevant), set(), []
    for item in [*recommended, *[-1] * k][:k]:
        result.append(int(item in wanted and item not in found))
        found.add(item)
    return result


def shown(recommended, k):
    return [item for item in recommended[:k] if item != -1]


def precision(recommended, relevant, k):
    return sum(hits(recommended, relevant, k)) / k


def recall(recommended, relevant, k):
    return sum(hits(recommended, relevant, k)) / len(set(relevant))


def f1(recommended, relevant, k):
    p, r = precision(recommended, relevant, k), recall(recommended, relevant, k)
    return 2 * p * r / (p + r) if p + r else 0.0


def hit_rate(recommended, relevant, k):
    return float(any(hits(recommended, relevant, k)))


def r_precision(recommended, relevant, k):
    return sum(hits(recommended, relevant, k)) / min(k, len(set(relevant)))


def ndcg(recommended, relevant, k):
    gain = sum(hit / math.log2(rank + 1) for rank, hit in enumerate(hits(recommended, relevant, k), start=1))
    best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(set(relevant))) + 1))
    return gain / best


def graded_ndcg(recommended, gains, k, grow=lambda gain: gain):
    """`gains`: id -> the largest gain given for it."""
    positive = {item: gain for item, gain in gains.items() if gain > 0}
    flags = hits(recommended, positive, k)
    reached = sum(grow(positive[recommended[j]]) / math.log2(j + 2) for j in range(k) if flags[j])
    ideal = sorted((grow(gain) for gain in positive.values()), reverse=True)[:k]
    return reached / sum(gain / math.log2(j + 2) for j, gain in enumerate(ideal))


def ndcg_exponential(recommended, gains, k):
    return graded_ndcg(recommended, gains, k, grow=lambda gain: 2**gain - 1)


def mean_average_precision(recommended, relevant, k):
    flags = hits(recommended, relevant, k)
    return sum(sum(flags[: j + 1]) / (j + 1) for j in range(k) if flags[j]) / len(set(relevant))


def mrr(recommended, relevant, k):
    flags = hits(recommended, relevant, k)
    return 1 / (flags.index(1) + 1) if any(flags) else 0.0


ACCURACY = {
    "precision": precision,
    "recall": recall,
    "f1": f1,
    "hit_rate": hit_rate,
    "r_precision": r_precision,
    "ndcg": ndcg,
    "ndcg_exponential": ndcg,
    "map": mean_average_precision,
    "mrr": mrr,
}


def auc(recommended, relevant, k, n_items):
    """Over all pairs of a relevant and another item: 1 if the relevant one comes first, 1/2 if neither is shown."""
    flags, first = hits(recommended, relevant, k), shown(recommended, k)
    wanted = set(relevant)
    place = {}
    for rank, item in enumerate(first):
        place.setdefault(item, rank)
    assert len(place) == len(first), "only for lists without repetition"
    assert sum(flags) == len(wanted & set(first))
    wins = []
    for item in wanted:
        for other in set(range(n_items)) - wanted:
            mine, theirs = place.get(item, math.inf), place.get(other, math.inf)
            wins.append(0.5 if mine == theirs else float(mine < theirs))
    return sum(wins) / len(wins) if wins else math.nan


def novelty(recommended, k, counts):
    items = shown(recommended, k)
    total = max(1, sum(counts))
    return sum(-math.log2(max(1, counts[item]) / total) for item in items) / len(items) if items else math.nan


def average_popularity(recommended, k, counts):
    items = shown(recommended, k)
    return sum(counts[item] for item in items) / len(items) if items else math.nan


def serendipity(recommended, relevant, k, counts):
    n, items = len(counts), shown(recommended, k)
    ranks = {count: place for place, count in enumerate(sorted({c for c in counts if c}, reverse=True), start=1)}
    total = 0.0
    for rank, (item, hit) in enumerate(zip(items, hits(recommended, relevant, k), strict=False), start=1):
        usual = (n + 1 - ranks[counts[item]]) / n if counts[item] else 0.0
        total += hit * max(0.0, (n + 1 - rank) / n - usual)
    return total / len(items) if items else 0.0


def diversity(recommended, k, vectors):
    items = shown(recommended, k)
    if len(items) < 2:
        return 0.0 if items else math.nan
    distances = []
    for i, first in enumerate(items):
        for second in items[i + 1 :]:
            x, y = vectors[first], vectors[second]
            norms = math.sqrt(sum(a * a for a in x)) * math.sqrt(sum(b * b for b in y))
            distances.append(1 - sum(a * b for a, b in zip(x, y, strict=True)) / norms if norms else 1.0)
    return sum(distances) / len(distances)


def coverage(lists, k, n_items):
    return len({item for row in lists for item in shown(row, k)}) / n_items


def gini(lists, k, n_items):
    """Half the mean absolute difference between all pairs of items, relative to the mean."""
    flat = [item for row in lists for item in shown(row, k)]
    if not flat:
        return math.nan
    counts = [flat.count(item) for item in set(flat)]
    counts += [0] * (n_items - len(counts))
    return sum(abs(a - b) for a in counts for b in counts) / (2 * n_items * sum(counts))


def entropy(lists, k, n_items):
    flat = [item for row in lists for item in shown(row, k)]
    if not flat:
        return math.nan
    shares = [flat.count(item) / len(flat) for item in set(flat)]
    return -sum(share * math.log2(share) for share in shares)


def user_coverage(lists, k, n_items):
    return sum(len(shown(row, k)) == k for row in lists) / len(lists)


def popularity_lift(lists, histories, k, counts):
    pairs = [
        (average_popularity(row, k, counts), sum(counts[i] for i in set(known)) / len(set(known)))
        for row, known in zip(lists, histories, strict=True)
        if shown(row, k) and known
    ]
    before = sum(known for _, known in pairs)
    return sum(now for now, _ in pairs) / before - 1 if before else math.nan


def category_shares(items, categories):
    """The mean of the items' own shares, over items that have a category; None if none has."""
    own = [[weight / sum(categories[item]) for weight in categories[item]] for item in items if sum(categories[item])]
    return [sum(column) / len(own) for column in zip(*own, strict=True)] if own else None


def calibration_error(recommended, history, k, categories):
    known = category_shares(set(history), categories)
    seen = category_shares(shown(recommended, k), categories)
    if known is None or seen is None:
        return math.nan
    return sum(p * math.log(p / (0.99 * q + 0.01 * p)) for p, q in zip(known, seen, strict=True) if p)


OVERALL = {"coverage": coverage, "gini": gini, "entropy": entropy, "user_coverage": user_coverage}


def mean(values):
    defined = [value for value in values if not math.isnan(value)]
    return sum(defined) / len(defined) if defined else math.nan
