"""`obtain_plan`: the plan of a model for one frame size, from the cache or built now. Commands and engine ask here."""

from types import ModuleType

from engines.cuda_calls import Device
from engines.engine import EngineSpec
from engines.errors import EngineError
from engines.interrupts import held_interrupts
from engines.model import ModelFile
from engines.plan_cache import Built, CachedPlan, built_plan, cached_plan, read_blob, write_blob
from engines.plan_facts import PlanKey, PlanPrecision, recipe

DEFAULT_GPUS = "its default GPUs"
"""The device of a plan of TensorRT-RTX that was built without naming compute capabilities. By the header of a plan of
1.7.1 these are 8.0 and later of those that it lists, so not 7.5."""
Target = str | tuple[int, ...]
"""What a plan is for: the one GPU's name and compute capability for `tensorrt`; for `tensorrt_rtx` compute capabilities
as 86 or 89, none for the library's default."""


DEFAULT_FROM = (8, 0)
"""The compute capability from which on a GPU is among them."""


def target_of(trt: ModuleType, device: Device | None) -> Target:
    """What a plan that is to run on a GPU is for.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        device: The GPU; None for `tensorrt_rtx`'s default.
    """
    if trt.__name__ == "tensorrt":
        return "" if device is None else device.label
    return () if device is None or device.compute_capability >= DEFAULT_FROM else (device.sm,)


def plan_key(
    trt: ModuleType, model: ModelFile, spec: EngineSpec, precision: PlanPrecision, target: Target = ()
) -> PlanKey:
    """Everything that `obtain_plan`, called with the same arguments, builds a plan for.

    Raises:
        ValueError: The target is not of the library's kind.
    """
    if trt.__name__ == "tensorrt" and not (isinstance(target, str) and target):
        raise ValueError(
            f"a plan of tensorrt is of one GPU: its name and compute capability are needed, got {target or 'none'}"
        )
    if trt.__name__ != "tensorrt" and isinstance(target, str):
        raise ValueError(f"a plan of {trt.__name__} is of compute capabilities, got the device {target}")
    device = target if isinstance(target, str) else " ".join(f"SM{each}" for each in sorted(target))
    return PlanKey(
        model_sha256=model.card.sha256,
        backend=trt.__name__,  # type: ignore[arg-type]  # checked there
        version=str(trt.__version__),
        device=device or DEFAULT_GPUS,
        rows=spec.rows,
        columns=spec.columns,
        sample_bytes=spec.sample_bytes,
        precision=precision,
        recipe=recipe(),
        preset=model.card.preset,
    )


def obtain_plan(
    trt: ModuleType, model: ModelFile, spec: EngineSpec, precision: PlanPrecision, target: Target = ()
) -> CachedPlan:
    """A model's plan for one frame size: the kept one if it fits, else one that is built and kept.

    Ctrl-C stops a build where the library asks (`IProgressMonitor`), and leaves nothing.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        model: The source and its card.
        spec: Frame size and bits; 9 to 16 bits stored share a plan.
        precision: What the convolutions are computed in.
        target: The GPU or GPUs that it is for.

    Raises:
        ModelError: The model is not our graph, or a weight does not fit the precision.
        EngineError: The library cannot build it.
        ValueError: The target is not of the library's kind.
    """
    key = plan_key(trt, model, spec, precision, target)

    def build() -> Built:
        # Late: a start that finds its plan in the cache needs no ONNX.
        try:
            from engines.plan import build_plan
            from engines.typed import typed_model
        except ModuleNotFoundError as error:
            raise EngineError(
                f"a plan is built from the model's ONNX graph, which needs the package {error.name}, and it is not "
                f"installed; run: pip install {error.name}"
            ) from error

        typed = typed_model(model, spec, precision)
        capabilities = () if isinstance(target, str) else target
        timings = read_blob(key, "timing")
        with held_interrupts("the build") as stopped:
            built = build_plan(
                trt, typed, timing_cache=timings, compute_capabilities=capabilities, stopped=stopped
            )
        if built.timing_cache is not None:
            write_blob(key, "timing", built.timing_cache)
        return built

    return cached_plan(key, build) if model.kept else built_plan(key, build, "a patient's model is not kept")
