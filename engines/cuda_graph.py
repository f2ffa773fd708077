"""Work of one stream held as a CUDA graph: launched as one, which spares the host a call for each kernel."""

import logging
from collections.abc import Callable
from typing import Any

from engines.cuda_calls import CudaCalls
from engines.errors import EngineError

log = logging.getLogger(__name__)


def capture(calls: CudaCalls, stream: Any, enqueue: Callable[[], object]) -> Any:
    """Record work once, and launch it once to see that it runs.

    Args:
        calls: CUDA.
        stream: Idle; it is so again afterwards, whatever happens.
        enqueue: Gives the work to `stream`; it has run before, so that it neither loads nor allocates any more.

    Returns:
        The executable graph; the caller destroys it.

    Raises:
        EngineError: The work cannot be captured, or CUDA refused; nothing of it is left.
    """
    calls.begin_capture(stream)
    try:
        enqueue()
    except EngineError:
        _abandon(calls, stream)
        raise
    graph = calls.end_capture(stream)
    try:
        executable = calls.instantiate(graph)
    finally:
        _destroy(calls.destroy_graph, graph)
    try:
        calls.launch(executable, stream)
        calls.synchronize_stream(stream)
    except EngineError:
        _destroy(calls.destroy_executable, executable)
        raise
    return executable


def _abandon(calls: CudaCalls, stream: Any) -> None:
    """A stream that is being captured runs nothing until the capture is ended."""
    try:
        graph = calls.end_capture(stream)
    except EngineError as error:
        log.debug("ending a capture that failed: %s", error)  # it is ended all the same
    else:
        _destroy(calls.destroy_graph, graph)


def _destroy(call: Callable[[Any], None], thing: Any) -> None:
    """Must not hide why it is destroyed."""
    try:
        call(thing)
    except EngineError as error:
        log.debug("after a capture: %s", error)
