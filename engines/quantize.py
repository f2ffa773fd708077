"""Source model -> int8 for the CPU, by NNCF's post-training quantisation on a site's own frames.

Only the network's inner convolutions become int8. The two heads, whose logits decide where a vessel begins, and
everything per pixel (grey levels, resampling, blend, statistics) are left as they are, so that the background stays
exact by construction.
"""

import contextlib
import importlib.util
import io
import logging
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engines.errors import EngineError, ModelError
from engines.int8 import Int8Model, frames_sha256, has_wide_sums, int8_key, keep_int8, read_int8
from engines.model import ModelFile
from engines.openvino_engine import load_openvino, read_graph
from engines.planes import Settings

NETWORK = "network/"
HEADS = ("network/attention/", "network/context/")
MIN_FRAMES = 8
"""Fewer do not show what the network meets. Our choice: each is 65,536 pixels of the network's input, and what comes out is
judged on other frames before it is taken."""
MAX_FRAMES = 300
CONVOLUTIONS = ("Convolution", "GroupConvolution")


def probe_nncf() -> tuple[bool, str]:
    """Whether models can be quantised here, and why not."""
    if importlib.util.find_spec("nncf") is None:
        return False, 'nncf is not installed; run: pip install -e ".[int8]"'
    return True, ""


def obtain_int8(model: ModelFile, frames: Sequence[np.ndarray], settings: Settings) -> str:
    """Make and keep the int8 model of a site's frames, unless the same one is kept already.

    Args:
        model: The fp32 source.
        frames: (rows, columns) stored pixel values of one frame format, `MIN_FRAMES` or more; at most `MAX_FRAMES` of
            them are used, evenly chosen.
        settings: The site's grey levels, in that format.

    Returns:
        The hash by which `open_engine(..., precision="int8", int8_frames_sha256=...)` finds it.

    Raises:
        EngineError: NNCF is missing, it cannot quantise the model, too few frames, or the result cannot be kept.
    """
    usable, why = probe_nncf()
    if not usable:
        raise EngineError(f"int8 needs NNCF: {why}")
    if len(frames) < MIN_FRAMES:
        raise EngineError(
            f"int8 needs at least {MIN_FRAMES} frames to be calibrated on, got {len(frames)}; record a longer run"
        )
    chosen = [frames[index] for index in _even(len(frames), MAX_FRAMES)]
    found = frames_sha256(chosen, settings.table)
    key = int8_key(model.card.sha256, load_openvino().__version__, found)
    try:
        if read_int8(key).nncf == _nncf_version():
            return found
    except EngineError:
        pass  # whatever was wrong with it, it is made now
    keep_int8(key, quantize(model, chosen, settings))
    return found


def quantize(model: ModelFile, frames: Sequence[np.ndarray], settings: Settings) -> Int8Model:
    """The model with its inner convolutions in int8. Arguments as for `obtain_int8`; all frames are used.

    Raises:
        EngineError: NNCF fails.
        ModelError: Something was quantised that must not be, or nothing was.
    """
    ov = load_openvino()
    graph = read_graph(ov.Core(), model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what NNCF imports; none is ours
        import nncf
        from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)  # it names every node that it leaves alone

    def inputs(live: np.ndarray) -> dict[str, np.ndarray]:
        planes = live.view(np.uint8).reshape(*live.shape, live.dtype.itemsize)
        return {"live": planes, **settings.tensors}

    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            quantised = nncf.quantize(
                graph,
                nncf.Dataset(list(frames), inputs),
                # Weights symmetric, activations not: what a residual block adds has both signs but no symmetry.
                preset=nncf.QuantizationPreset.MIXED,
                target_device=nncf.TargetDevice.CPU,
                subset_size=len(frames),
                ignored_scope=nncf.IgnoredScope(names=_left_alone(graph), validate=False),
                advanced_parameters=AdvancedQuantizationParameters(
                    overflow_fix=OverflowFix.DISABLE if has_wide_sums() else OverflowFix.ENABLE
                ),
            )
    except Exception as error:  # NNCF raises whatever it trips over
        reason = " ".join(str(error).split())[:200]
        raise EngineError(
            f"NNCF {nncf.__version__} cannot quantise {model.path.name}: {type(error).__name__}: {reason}; "
            "run it in another precision"
        ) from error
    finally:
        logger.setLevel(before)
    in_int8, convolutions = check_scope(quantised, model.path.name)
    with tempfile.TemporaryDirectory(prefix="contrastream-int8-") as folder:
        path = Path(folder) / "model.xml"
        # The source's weights are fp32; halving them on disk would change what is not quantised.
        ov.save_model(quantised, path, compress_to_fp16=False)
        return Int8Model(
            path.read_bytes(),
            path.with_suffix(".bin").read_bytes(),
            nncf.__version__,
            in_int8,
            convolutions,
        )


def _left_alone(graph: Any) -> list[str]:
    """The names of everything that stays in floating point."""
    names = (node.get_friendly_name() for node in graph.get_ordered_ops())
    return [name for name in names if not name.startswith(NETWORK) or name.startswith(HEADS)]


def check_scope(graph: Any, name: str) -> tuple[int, int]:
    """Look at what was quantised.

    Args:
        graph: OpenVINO's model after quantisation.
        name: The source, for the message.

    Returns:
        Convolutions in int8, and of how many.

    Raises:
        ModelError: A head or anything outside the network is fed with quantised values directly, or nothing is.
    """
    in_int8 = set()
    for node in graph.get_ordered_ops():
        if node.get_type_name() != "FakeQuantize":
            continue
        for target in node.output(0).get_target_inputs():
            reader = target.get_node()
            place = str(reader.get_friendly_name())
            if not place.startswith(NETWORK) or place.startswith(HEADS):
                raise ModelError(
                    f"only the network's inner layers of {name} may be quantised, but {place} was; this is a fault of ours"
                )
            if reader.get_type_name() in CONVOLUTIONS:
                in_int8.add(place)
    convolutions = sum(node.get_type_name() in CONVOLUTIONS for node in graph.get_ordered_ops())
    if not in_int8:
        raise ModelError(f"{name} has no convolution that NNCF could quantise; run it in another precision")
    return len(in_int8), convolutions


def _even(count: int, most: int) -> list[int]:
    """At most so many indices, evenly over all."""
    return [round(place) for place in np.linspace(0, count - 1, min(count, most))]


def _nncf_version() -> str:
    from importlib.metadata import version

    return version("nncf")
