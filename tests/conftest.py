"""Fixtures that every test may use."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)
# A shell starts what it puts into the background deaf to Ctrl-C, and so would be all that the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A pytest that a test starts is no worker of this one, and may time.
for name in [name for name in os.environ if name.startswith("PYTEST_XDIST_WORKER")]:
    del os.environ[name]


@pytest.fixture
def rng() -> torch.Generator:
    """The one source of randomness of a test."""
    return torch.Generator().manual_seed(20260217)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The data folder, or a skip with the reason."""
    named = os.environ.get("HARNESS_DATA_DIR")
    if not named:
        pytest.skip("needs the data folder: set HARNESS_DATA_DIR")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"HARNESS_DATA_DIR={named!r} is no folder")
    return folder
