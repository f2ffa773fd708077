"""What this machine can do at most: multiply-adds per second and bytes per second, and what a network asks of both.

Measured in the same process and the same run as the engine, since these machines change their speed by the minute.
"""

import time
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 1024
"""Of the matrices: 2 GFLOP a product, and 4 MiB each, so that the multiplier and not the memory is the limit."""
COPY_BYTES = 128 << 20
"""Larger than any cache of the CPUs of today."""
TRIES = 7


def machine_limits() -> dict[str, float]:
    """The best of some large matrix products and copies.

    Returns:
        gflops: float32 operations per second / 1e9 of numpy's matrix product, two for each multiply-add, on as many
            threads as its BLAS takes. gbytes_per_s: bytes read and written per second / 1e9 by one thread's copy.
    """
    random = np.random.default_rng(0)
    left, right = (random.random((SIDE, SIDE), np.float32) for _ in range(2))
    product = np.empty_like(left)
    source, target = np.ones(COPY_BYTES, np.uint8), np.zeros(COPY_BYTES, np.uint8)
    product_s = _best_s(lambda: np.matmul(left, right, out=product))
    copy_s = _best_s(lambda: np.copyto(target, source))
    return {"gflops": 2.0 * SIDE**3 / product_s / 1e9, "gbytes_per_s": 2.0 * COPY_BYTES / copy_s / 1e9}


def _best_s(work: Any) -> float:
    times = []
    for _ in range(TRIES):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


def network_work(model: Path, rows: int, columns: int, sample_bytes: int) -> dict[str, float] | None:
    """What one inference asks of the machine, read from the model's graph.

    Args:
        model: The fp32 ONNX file.
        rows: Rows of a frame.
        columns: Columns of a frame.
        sample_bytes: Bytes per sample, 1 or 2.

    Returns:
        gmac: multiply-adds of all convolutions / 1e9. mbytes: bytes / 1e6 that must move at least, each weight (fp32)
        and each plane once. None where OpenVINO, which reads the graph here, is not installed.
    """
    try:
        from engines.openvino_engine import load_openvino

        openvino = load_openvino()
    except ModuleNotFoundError:
        return None
    graph = openvino.Core().read_model(str(model))
    graph.reshape({"live": [rows, columns, sample_bytes], "field": [rows, columns]})
    multiply_adds = weights = 0
    for node in graph.get_ordered_ops():
        if node.get_type_name() in ("Convolution", "GroupConvolution"):
            kernel = int(np.prod(list(node.input(1).get_shape())))
            shape = node.output(0).get_partial_shape()
            weights += kernel
            multiply_adds += kernel * shape[2].get_length() * shape[3].get_length()
    planes = rows * columns * (2 * sample_bytes + 2)  # live and field in, synthetic and attention out
    return {"gmac": multiply_adds / 1e9, "mbytes": (4 * weights + planes) / 1e6}


def least_ms(work: dict[str, float] | None, limits: dict[str, float]) -> dict[str, float] | None:
    """The time below which no engine of this precision can be here: by multiply-adds, by bytes, and the larger."""
    if work is None:
        return None
    by_flop = 2.0 * work["gmac"] / limits["gflops"] * 1e3
    by_bytes = work["mbytes"] / 1e3 / limits["gbytes_per_s"] * 1e3
    return {"by_flop": by_flop, "by_bytes": by_bytes, "larger": max(by_flop, by_bytes)}
