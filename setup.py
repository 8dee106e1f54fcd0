"""Build hook: metadata is in pyproject.toml. Native sources belong in csrc/, and their extension modules are added here."""

from setuptools import setup

setup()
