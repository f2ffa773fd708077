"""What all tests share: a state folder of their own, so that none touches this user's audit log, keys or trusted models, and
logging as it was."""

import fcntl
import gc
import logging
import os
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Of several workers the first collects alone: what it imports is compiled once then, not by each of them at the same time.

    What is imported stays, so garbage is not sought in it, neither now nor in the tests: that was a third of a collection's time.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    with Path(__file__).open() as lock:
        if worker is not None:
            fcntl.flock(lock, fcntl.LOCK_EX if worker == "gw0" else fcntl.LOCK_SH)
        gc.disable()
        try:
            return (yield)
        finally:
            gc.freeze()
            gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _state_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = os.environ.get("XDG_STATE_HOME")
    os.environ["XDG_STATE_HOME"] = str(tmp_path_factory.mktemp("state"))
    yield
    if before is None:
        del os.environ["XDG_STATE_HOME"]
    else:
        os.environ["XDG_STATE_HOME"] = before


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """A command that ran in this process leaves the next test its own logging."""
    logger = logging.getLogger("contrastream")
    kept = list(logger.handlers), logger.level, logger.propagate
    yield
    logger.handlers, logger.level, logger.propagate = kept
