"""The settings of the model commands, one frozen dataclass each; the string below a field is its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

# The marks a dataclass cannot express: an argument without a flag, and what stands for a value in the help.
from tyro.conf import Positional, arg


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
