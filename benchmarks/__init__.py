"""Benchmarks of llmrec_fast against its peers: `python -m benchmarks SUITE`. Not installed with the package."""
