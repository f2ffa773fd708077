"""Errors of the engines."""


class EngineError(Exception):
    """A model or a runtime that cannot be used. Says what was needed, what came and what to do."""


class ModelError(EngineError):
    """A model file that is missing, hostile, of another kind, or has other inputs than the graph's."""


class CudaError(EngineError):
    """A call of CUDA that failed. The next frame may do better, unless it is a `CudaLost`.

    Args:
        sentence: What was needed, what came, what to do.
        call: Which call.
        code: CUDA's own name of the failure.
    """

    def __init__(self, sentence: str, *, call: str, code: str) -> None:
        super().__init__(sentence)
        self.call = call
        self.code = code


class CudaOutOfMemory(CudaError):
    """The GPU, or page-locked memory, is full. What is running goes on; asking again later may help.

    The one class for it, whoever met it: CUDA's calls, TensorRT building, reading or running a plan, torch.
    """


class CudaLost(CudaError):
    """The GPU does not answer this process any more; only a new process can use it."""
