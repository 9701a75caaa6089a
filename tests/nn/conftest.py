"""Settings of the tests of layers."""

import pytest

from compopt.nn import _layers


@pytest.fixture(autouse=True)
def _closed_forms_at_any_size(monkeypatch):
    """Small activations use torch's own code on a CPU, which would leave nothing to test."""
    monkeypatch.setattr(_layers, "ACTIVATIONS_GAIN_FROM", {})
