"""
Keeps trial's TestCases before the tests that share pytest-twisted's reactor.
"""

from __future__ import annotations

import unittest
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A TestCase that runs after them finds a reactor that is not clean."""

    def shares_reactor(item: pytest.Item) -> bool:
        cls = getattr(item, "cls", None)
        return cls is None or not issubclass(cls, unittest.TestCase)

    items.sort(key=shares_reactor)
