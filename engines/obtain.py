"""`obtain_plan`: the plan of a model for one frame size, from the cache or built now. Commands and engine ask here."""

from collections.abc import Sequence
from types import ModuleType

from engines.engine import EngineSpec
from engines.errors import EngineError
from engines.interrupts import held_interrupts
from engines.model import ModelFile
from engines.plan_cache import Built, CachedPlan, cached_plan, read_blob, write_blob
from engines.plan_facts import PlanKey, PlanPrecision, recipe

DEFAULT_GPUS = "its default GPUs"
"""The device of a plan of TensorRT-RTX that was built without naming compute capabilities. By the header of a plan of
1.7.1 these are 8.0 and later of those that it lists, so not 7.5."""


def plan_key(
    trt: ModuleType,
    model: ModelFile,
    spec: EngineSpec,
    precision: PlanPrecision,
    *,
    device: str = "",
    compute_capabilities: Sequence[int] = (),
    user_allocation: bool = False,
) -> PlanKey:
    """Everything that `obtain_plan`, called with the same arguments, builds a plan for.

    Raises:
        ValueError: `device` is missing for `tensorrt`, whose plans are tied to a GPU, or given for `tensorrt_rtx`.
    """
    if trt.__name__ == "tensorrt":
        if not device:
            raise ValueError(
                "a plan of tensorrt is of one GPU: its name and compute capability are needed, got none"
            )
    elif device:
        raise ValueError(f"a plan of {trt.__name__} is of compute capabilities, got the device {device}")
    else:
        device = " ".join(f"SM{each}" for each in sorted(compute_capabilities)) or DEFAULT_GPUS
    return PlanKey(
        model_sha256=model.card.sha256,
        backend=trt.__name__,  # type: ignore[arg-type]  # checked there
        version=str(trt.__version__),
        device=device,
        rows=spec.rows,
        columns=spec.columns,
        sample_bytes=spec.sample_bytes,
        precision=precision,
        recipe=recipe(),
        options="user_allocation" if user_allocation else "",
        preset=model.card.preset,
    )


def obtain_plan(
    trt: ModuleType,
    model: ModelFile,
    spec: EngineSpec,
    precision: PlanPrecision,
    *,
    device: str = "",
    compute_capabilities: Sequence[int] = (),
    user_allocation: bool = False,
) -> CachedPlan:
    """A model's plan for one frame size: the kept one if it fits, else one that is built and kept.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        model: The source and its card.
        spec: Frame size and bits; 9 to 16 bits stored share a plan.
        precision: What the convolutions are computed in.
        device: The GPU's name and compute capability; for `tensorrt` only, whose plans run on that GPU alone.
        compute_capabilities: As `engines.plan.build_plan` takes them; for `tensorrt_rtx` only.
        user_allocation: As `engines.plan.build_plan` takes it; for `tensorrt_rtx` only.

    Raises:
        ModelError: The model is not our graph, or a weight does not fit the precision.
        EngineError: The library cannot build it.
        ValueError: `device` is missing, or of no use.
    """
    key = plan_key(
        trt,
        model,
        spec,
        precision,
        device=device,
        compute_capabilities=compute_capabilities,
        user_allocation=user_allocation,
    )

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
        with held_interrupts("the build"):
            built = build_plan(
                trt,
                typed,
                timing_cache=read_blob(key, "timing"),
                compute_capabilities=compute_capabilities,
                user_allocation=user_allocation,
            )
        if built.timing_cache is not None:
            write_blob(key, "timing", built.timing_cache)
        return built

    return cached_plan(key, build)
