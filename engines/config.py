"""The settings of the model commands, one frozen dataclass each; the string below a field is its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

# The marks a dataclass cannot express: an argument without a flag, and what stands for a value in the help.
from tyro.conf import FlagCreatePairsOff, Positional, arg


@dataclass(frozen=True)
class ExportConfig:
    """Make a model file of what was taught, for run, replay, synthesize and evaluate.

    The averaged weights of the run become one ONNX graph, bytes in and bytes out, with its card beside it as
    JSON: preset, training run, data, licence. Before either file appears, frames of the digital phantom go through
    the graph on every CPU engine here and through the network in torch; they may differ by one grey level of 255.
    """

    checkpoint: Annotated[Positional[Path], arg(metavar="CHECKPOINT")]
    """The folder of a training run (--out of `contrastream train`), or the checkpoint file in it."""
    out: Annotated[Path, arg(metavar="FILE.onnx")]
    """The model file to write; its card lies beside it, ending in .json."""
    overwrite: bool = False
    """Replace a model of that name."""


@dataclass(frozen=True)
class BuildConfig:
    """Build a model's plan for NVIDIA GPUs ahead of its first start; list, inspect and clear those that are kept.

    A plan is the network compiled by TensorRT for one frame size. TensorRT builds for the GPU of this machine,
    TensorRT-RTX for RTX cards and without a GPU. Plans are kept in ~/.cache/contrastream/plans, 4 GiB at most (the
    longest unused go first), and found there by run, replay and bench. Another model, library version, GPU or frame
    size needs another plan, which those commands build by themselves: then the first start waits for it.
    """

    model: Annotated[Positional[str | None], arg(metavar="MODEL")] = None
    """A shipped model's name, an ONNX file, or a preset's name with --untaught. With --list, --inspect and --clear also the key of a plan."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on; what contrastream export made on this machine needs none."""
    list: FlagCreatePairsOff[bool] = False
    """Show the plans that are kept; with MODEL only its own."""
    inspect: FlagCreatePairsOff[bool] = False
    """Show what MODEL's plans, or the plan of that key, hold and what they were built for."""
    clear: FlagCreatePairsOff[bool] = False
    """Remove all plans, or only MODEL's or the one of that key."""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows and columns of a frame, 64 to 2048; 512 when nothing is given."""
    rows: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows of a frame that is not square."""
    columns: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Columns of it."""
    bits: Annotated[int, arg(metavar="8..16")] = 8
    """Bits stored in a pixel; 9 to 16 share a plan."""
    backend: Literal["auto", "tensorrt", "tensorrt_rtx"] = "auto"
    """What builds; auto takes tensorrt where it and a GPU are here, else tensorrt_rtx."""
    precision: Literal["f16", "f32"] = "f16"
    """Of the convolutions; norms and the final blend are fp32 in both."""
    untaught: FlagCreatePairsOff[bool] = False
    """Build a model that was not taught, to measure it; a preset that no model is shipped of gets random weights."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write what is shown as JSON too."""
