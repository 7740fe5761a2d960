"""What tests of whole deployments share."""

import gc
import warnings

import pytest


@pytest.fixture
def quiet(caplog):
    """Troubles are not told, and what they left behind goes before the next test begins."""
    caplog.set_level("CRITICAL")
    yield
    with warnings.catch_warnings():  # generated programs note their end, wherever they are buried
        warnings.simplefilter("ignore")
        gc.collect()
