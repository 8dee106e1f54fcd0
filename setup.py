"""Build hook. All metadata is in pyproject.toml; native sources belong in csrc/ and are added here as extension modules."""

from setuptools import setup

setup()
