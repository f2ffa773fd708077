"""Ctrl-C while TensorRT-RTX builds for real: it ends the build, and nothing is left. Run by test_interrupts.py."""

import ctypes
import logging
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import plan as planning
from engines.engine import EngineSpec
from engines.interrupts import held_interrupts
from engines.model import load_model
from engines.obtain import obtain_plan

trt = pytest.importorskip("tensorrt_rtx", reason="plans are built by TensorRT-RTX; extra trtrtx")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plans' folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contrastream" / "plans"


class Interrupting(logging.Handler):
    """Ctrl-C at the first line that the library logs."""

    def emit(self, record: logging.LogRecord) -> None:
        logging.getLogger("engines.tensorrt_log").removeHandler(self)
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as Python takes it, also where a shell started the tests with it ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_inside_a_callback_of_the_library_is_not_lost_and_leaves_nothing(
    tiny_model: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "engines.tensorrt_log")
    logging.getLogger("engines.tensorrt_log").addHandler(Interrupting())
    with pytest.raises(KeyboardInterrupt):
        obtain_plan(trt, load_model(tiny_model), EngineSpec(64, 64), "f16")
    assert "stopping the build; Ctrl-C once more ends this process at once" in caplog.messages
    assert list(folder.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_in_the_middle_of_a_build_ends_it_within_a_step_and_leaves_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build_plan = planning.build_plan
    steps = 0

    def build(*arguments: Any, stopped: Callable[[], bool], **more: Any) -> Any:
        def asked() -> bool:
            nonlocal steps
            steps += 1
            if steps == 20:
                signal.raise_signal(signal.SIGINT)
            return stopped()

        return build_plan(*arguments, stopped=asked, **more)

    monkeypatch.setattr(planning, "build_plan", build)
    with pytest.raises(KeyboardInterrupt) as ended:
        obtain_plan(trt, load_model("compact"), EngineSpec(128, 128), "f16")
    assert 20 <= steps < 40, "a build of this network has hundreds"
    assert "Build canceled by user" in str(ended.value.__context__)
    assert list(folder.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.set_wakeup_fd(-1) == -1


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_is_known_in_any_thread_while_the_main_one_is_inside_the_library() -> None:
    known: list[bool] = []

    def build() -> None:
        with held_interrupts("the build") as asked:

            def work() -> None:
                known.append(asked())
                signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # the main thread goes on sleeping
                known.append(asked())

            thread = threading.Thread(target=work)
            thread.start()
            ctypes.CDLL(None).usleep(300_000)  # no Python runs here, so no handler of Python's
            thread.join()

    with pytest.raises(KeyboardInterrupt):
        build()
    assert known == [False, True]


def test_where_ctrl_c_is_ignored_it_stays_so() -> None:
    former = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_interrupts("the build") as asked:
            signal.raise_signal(signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, former)
