# mypy: allow-subclassing-any
"""Typed ONNX -> plan, by `tensorrt` 10.16 and later, 11 or `tensorrt_rtx`: one way for all.

The types stand in the graph (`typed.py`), and the network is always strongly typed: the builder chooses
kernels, never precisions. TF32 is off: what the graph calls fp32 is computed in fp32.

TensorRT builds for the GPU that it finds; TensorRT-RTX builds with no GPU at all, for every one that it lists.
"""

import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import onnx

from engines.errors import EngineError
from engines.tensorrt_log import LogLine, failure_of, gather_lines, reason_of, sentence_of, tensorrt_logger

DTYPES = {"f16": "HALF", "f32": "FLOAT"}
"""TensorRT's names of the types of our precisions."""


@dataclass(frozen=True)
class LayerCount:
    """How many layers of a kind the builder was given."""

    kind: str
    """TensorRT's own name, for example CONVOLUTION."""
    dtype: str
    """Of its output: HALF, FLOAT, INT64 ..."""
    count: int


@dataclass(frozen=True)
class BuiltPlan:
    """A plan, and what its making says of it. Plans of two builds differ in their bytes."""

    plan: bytes
    library: str
    """The module that built it and alone can run it: tensorrt or tensorrt_rtx."""
    version: str
    """That module's version; a plan is tied to it."""
    properties: dict[str, str]
    """The typed graph's metadata: source_sha256, precision, rows, columns, sample_bytes, preset ..."""
    layers: tuple[LayerCount, ...]
    """The network as parsed, before fusion; shape arithmetic of the parser included."""
    activation_bytes: int | None
    """Device memory of one execution context; None where the log does not say."""
    weights_bytes: int | None
    """Device memory of the weights, shared by all contexts."""
    compute_capabilities: tuple[int, ...]
    """What it was built for, where that was chosen (TensorRT-RTX); empty for the library's own choice."""
    timing_cache: bytes | None
    """To be given to the next build; None on TensorRT-RTX, which has none."""
    warnings: tuple[str, ...]
    """The library's."""
    seconds: float
    """Parsing and building."""

    def count(self, kind: str, dtype: str | None = None) -> int:
        """Layers of a kind, of one dtype or of all."""
        return sum(
            each.count for each in self.layers if each.kind == kind and (dtype is None or each.dtype == dtype)
        )


def build_plan(
    trt: ModuleType,
    typed: onnx.ModelProto,
    *,
    timing_cache: bytes | None = None,
    compute_capabilities: Sequence[int] = (),
    stopped: Callable[[], bool] | None = None,
) -> BuiltPlan:
    """Build a plan.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        typed: What `typed_model` made: fixed shapes, types in the graph.
        timing_cache: Kernel timings of earlier builds on this GPU, which make this one faster. One of another
            GPU or version is set aside with a line in the log. TensorRT-RTX does not time kernels.
        compute_capabilities: The GPUs to build for, as 75, 86, 89 or 120; none for all that the library lists.
            TensorRT-RTX only.
        stopped: Asked at each step of the build, from any thread; the build ends soon after it says True.

    Raises:
        EngineError: The library cannot parse or build it, or was stopped; the sentence holds its reason. Or the graph
            is not one of `typed_model`'s.
        ValueError: Compute capabilities were given to TensorRT.
    """
    start = time.monotonic()
    precision = _properties(typed).get("precision", "none")
    if precision not in DTYPES:
        raise EngineError(f"needed a typed graph of f16 or f32, got {precision}; make it by typed_model")
    is_rtx = hasattr(trt, "ComputeCapability")
    if not is_rtx and compute_capabilities:
        raise ValueError(
            f"compute capabilities are chosen for tensorrt_rtx, got them for {trt.__name__}, "
            "which builds for the GPU of this machine; leave them out"
        )
    with gather_lines() as lines:
        builder = _make_builder(trt, lines)
        # Version 10 needs the flag, later ones are always strongly typed.
        network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        _parse(trt, network, typed, lines)
        layers = _census(network)
        _check_types(layers, precision)
        config = _configure(trt, builder, compute_capabilities)
        monitor = None if stopped is None else _monitor(trt, stopped)  # must live as long as the build
        if monitor is not None:
            config.progress_monitor = monitor
        cache = None if is_rtx else _attach_timing_cache(config, timing_cache, lines)
        serialized = builder.build_serialized_network(network, config)
        if serialized is None:
            raise failure_of(
                lines,
                f"{_name(trt)} cannot build a plan of {_subject(typed)}",
                call="build_serialized_network",
                advice="use another backend",
            )
        plan = bytes(memoryview(serialized))
        timings = None if cache is None else bytes(memoryview(cache.serialize()))
    return BuiltPlan(
        plan=plan,
        library=trt.__name__,
        version=str(trt.__version__),
        properties=_properties(typed),
        layers=layers,
        activation_bytes=_bytes_of(lines, "Total Activation Memory"),
        weights_bytes=_bytes_of(lines, "Total Weights Memory"),
        compute_capabilities=tuple(compute_capabilities),
        timing_cache=timings,
        warnings=tuple(line.text for line in lines if line.severity == "WARNING"),
        seconds=time.monotonic() - start,
    )


def _make_builder(trt: ModuleType, lines: list[LogLine]) -> Any:
    try:
        return trt.Builder(tensorrt_logger(trt))
    except (TypeError, RuntimeError) as error:  # the factory returned null, for example with no driver
        raise failure_of(
            lines,
            f"{_name(trt)} cannot make a builder here",
            call="Builder",
            advice="it needs an NVIDIA GPU and its driver, see contrastream doctor",
        ) from error


def _parse(trt: ModuleType, network: Any, typed: onnx.ModelProto, lines: list[LogLine]) -> None:
    parser = trt.OnnxParser(network, tensorrt_logger(trt))
    # Asked first, because the parser's own word for it is "false".
    kinds = {node.op_type for node in typed.graph.node}
    if missing := sorted(kind for kind in kinds if not parser.supports_operator(kind)):
        reason = f"it has no operation {' and no '.join(missing)}"
    elif parser.parse(typed.SerializeToString()) and parser.num_errors == 0:
        return
    elif parser.num_errors == 0:
        reason = reason_of(lines)
    else:
        error = parser.get_error(0)
        node = f"{error.node_operator()} {error.node_name()}".strip()
        reason = f"{sentence_of(error.desc())} (at {node or 'the file itself'})"
    raise EngineError(
        f"{_name(trt)} cannot parse {_subject(typed)}: {reason}; export the model again, or use another backend"
    )


def _census(network: Any) -> tuple[LayerCount, ...]:
    counts: Counter[tuple[str, str]] = Counter()
    for index in range(network.num_layers):
        layer = network.get_layer(index)
        counts[layer.type.name, layer.get_output(0).dtype.name] += 1
    return tuple(LayerCount(kind, dtype, count) for (kind, dtype), count in sorted(counts.items()))


def _check_types(layers: tuple[LayerCount, ...], precision: str) -> None:
    """The library read the types that the graph has."""
    needed = DTYPES[precision]
    wrong = [layer for layer in layers if layer.kind == "CONVOLUTION" and layer.dtype != needed]
    if wrong:
        raise EngineError(
            f"every convolution of a graph of {precision} must be {needed}, got {wrong[0].count} of "
            f"{wrong[0].dtype}; this is a fault of ours: please report it"
        )


def _monitor(trt: ModuleType, stopped: Callable[[], bool]) -> Any:
    """The library's `IProgressMonitor` that has the build end once `stopped` says so."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[name-defined]
        def __init__(self) -> None:
            # The base class must be initialised by its name, or the library holds a null monitor.
            trt.IProgressMonitor.__init__(self)

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None: ...

        def phase_finish(self, phase_name: str) -> None: ...

        def step_complete(self, phase_name: str, step: int) -> bool:
            return not stopped()

    return Monitor()


def _configure(trt: ModuleType, builder: Any, compute_capabilities: Sequence[int]) -> Any:
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    # Keeps the layers' names and types in the plan, for `contrastream build --inspect`.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if hasattr(trt.BuilderFlag, "STRICT_NANS"):
        # The finite flag tells of NaNs; the builder must not reason them away.
        config.set_flag(trt.BuilderFlag.STRICT_NANS)
    if compute_capabilities:
        listed = trt.ComputeCapability.__members__
        unknown = [each for each in compute_capabilities if f"SM{each}" not in listed]
        if unknown:
            names = ", ".join(name.removeprefix("SM") for name in listed if name.startswith("SM"))
            raise EngineError(
                f"{_name(trt)} builds for the compute capabilities {names}, got {unknown[0]}; "
                "use the backend tensorrt or torch on that GPU"
            )
        config.num_compute_capabilities = len(compute_capabilities)
        for index, each in enumerate(compute_capabilities):
            if not config.set_compute_capability(listed[f"SM{each}"], index):
                raise EngineError(f"{_name(trt)} refused the compute capability {each}; leave it out")
    return config


def _attach_timing_cache(config: Any, earlier: bytes | None, lines: list[LogLine]) -> Any:
    """The cache that this build reads and adds to."""
    cache = config.create_timing_cache(earlier or b"")
    if cache is not None and config.set_timing_cache(cache, ignore_mismatch=False):
        return cache
    lines.append(LogLine("WARNING", "the timing cache is of another GPU or version, so it starts anew"))
    cache = config.create_timing_cache(b"")
    config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _bytes_of(lines: list[LogLine], title: str) -> int | None:
    for line in lines:
        if found := re.search(rf"{title}: (\d+) bytes", line.text):
            return int(found.group(1))
    return None


def _properties(typed: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in typed.metadata_props}


def _name(trt: ModuleType) -> str:
    return f"{trt.__name__} {trt.__version__}"


def _subject(typed: onnx.ModelProto) -> str:
    """The graph, as an error names it."""
    facts = _properties(typed)
    words = [facts.get("preset", "the model")]
    if "rows" in facts:
        words.append(f"for {facts['rows']}x{facts['columns']} frames")
    if "precision" in facts:
        words.append(f"in {facts['precision']}")
    return " ".join(words)
