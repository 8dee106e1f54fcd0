"""Benchmark suites: `python -m benchmarks SUITE`."""
