"""Counters and a latency histogram in the Prometheus text format. Labels are route names and statuses, never ids."""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Iterable, Mapping

from llmrec_fast.serving.batching import Queue

# seconds
_BOUNDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class Metrics:
    """What happened since the start. Called from the event loop only."""

    def __init__(self) -> None:
        self._requests: Counter[tuple[str, int]] = Counter()
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def count(self, route: str, status: int, seconds: float) -> None:
        """One request that was answered; those that were shed are counted, not timed."""
        self._requests[route, status] += 1
        if status == 429:
            return
        buckets = self._buckets.setdefault(route, [0] * (len(_BOUNDS) + 1))
        buckets[bisect.bisect_left(_BOUNDS, seconds)] += 1
        self._seconds[route] = self._seconds.get(route, 0.0) + seconds

    def exposition(self, queues: Iterable[Queue], gauges: Mapping[str, int]) -> str:
        """The text that Prometheus scrapes."""
        lines = ["# TYPE llmrec_requests_total counter"]
        lines += [
            f'llmrec_requests_total{{route="{route}",status="{status}"}} {count}'
            for (route, status), count in sorted(self._requests.items())
        ]
        lines.append("# TYPE llmrec_request_seconds histogram")
        for route, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*_BOUNDS, "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'llmrec_request_seconds_bucket{{route="{route}",le="{bound}"}} {total}')
            lines.append(f'llmrec_request_seconds_sum{{route="{route}"}} {self._seconds[route]:.6f}')
            lines.append(f'llmrec_request_seconds_count{{route="{route}"}} {total}')
        figures: dict[str, list[tuple[str, int]]] = {}
        for queue in queues:
            for figure, value in queue.figures().items():
                figures.setdefault(figure, []).append((queue.name, value))
        for figure, values in figures.items():
            lines.append(f"# TYPE llmrec_{figure} {'counter' if figure.endswith('_total') else 'gauge'}")
            lines += [f'llmrec_{figure}{{queue="{queue}"}} {value}' for queue, value in values]
        for name, count in gauges.items():
            lines += [f"# TYPE llmrec_{name} gauge", f"llmrec_{name} {count}"]
        return "\n".join(lines) + "\n"
