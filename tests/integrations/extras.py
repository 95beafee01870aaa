"""Tests that need the libraries of an extra."""

from __future__ import annotations

import importlib
import os

import pytest

__all__ = ["needs"]


def needs(*modules: str) -> None:
    """Skip the tests of a module where a library is missing; where `.ci/run` tests, that is a failure."""
    for module in modules:
        if "POSTHOUSE_NEEDS_EXTRAS" in os.environ:
            importlib.import_module(module)
        else:
            pytest.importorskip(module, reason="a library of an extra is not installed: pip install -e '.[test]'")
