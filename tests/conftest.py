"""What holds for all tests: nothing may be left behind."""

from leftovers import pytest_configure, pytest_sessionfinish

__all__ = ["pytest_configure", "pytest_sessionfinish"]
