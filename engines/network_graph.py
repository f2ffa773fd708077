# mypy: allow-subclassing-any
"""The generator as ONNX: traced by torch, put into the graph, and written with its sidecar."""

import io
import warnings
from pathlib import Path

import onnx
import torch

from casgan.networks import LivePath
from engines.graph import OPSET, Heads, build_graph, inline_graph
from engines.graph_writer import GraphWriter
from engines.model import ModelCard, save_card


def build_model(network: LivePath, threshold: float, properties: dict[str, str]) -> onnx.ModelProto:
    """The whole graph as an ONNX model.

    Args:
        network: The generator; its norms are folded here.
        threshold: t of the attention's clamp, 0 to below 1.
        properties: Metadata written into the file.
    """

    def heads(writer: GraphWriter, picture: str) -> Heads:
        attention, context, latent = inline_graph(writer, _export_network(network), picture)
        return Heads(
            attention=writer.add("Sigmoid", attention),
            context=writer.add("Tanh", context),
            raw=(attention, context),
            latent=(latent, network.preset),
        )

    return build_graph(heads, network.preset.network_size, threshold, properties)


class _Logits(torch.nn.Module):
    def __init__(self, network: LivePath) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return self.network.logits_and_latent(picture)


def _export_network(network: LivePath) -> onnx.GraphProto:
    size = network.preset.network_size
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The tracing exporter: half a second and a plain graph, where the newer one takes half a minute.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Logits(network.folded()),
            (torch.zeros(1, 1, size, size),),
            buffer,
            dynamo=False,
            # In evaluation mode the exporter merges equal weights, and the reference could not read them back.
            training=torch.onnx.TrainingMode.PRESERVE,
            opset_version=OPSET,
            input_names=["picture"],
            output_names=["attention_logit", "context_logit", "latent"],
        )
    return onnx.load_from_string(buffer.getvalue()).graph


def export_model(network: LivePath, card: ModelCard, path: Path) -> ModelCard:
    """Write the ONNX file and its sidecar.

    Args:
        network: The generator.
        card: What the file says of itself; its hash is replaced by the new file's.
        path: Where to, ending in .onnx; the sidecar lies beside it, ending in .json.

    Returns:
        The card as written.

    Raises:
        ValueError: A weight is not finite. The graph's finite flag cannot be relied on for that: a runtime's
            ReLU may turn a NaN into 0, as OpenVINO's does.
    """
    for name, weight in network.state_dict().items():
        if not weight.isfinite().all():
            raise ValueError(f"every weight must be finite to be exported, but {name} is not; train again")
    model = build_model(network, card.threshold, card.properties())
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(model.SerializeToString())
    return save_card(card, path)
