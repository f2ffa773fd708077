"""A network of one's own: what it draws alone is what the model draws, and what is no such network is refused in a sentence."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib.config import PhantomConfig
from calib.phantom import Phantom
from engines.adopt import adopt_network
from engines.arrays import ArrayEngine
from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.open import open_engine

SIZE = 64


def write(
    path: Path,
    nodes: list[onnx.NodeProto],
    outputs: list[str],
    *,
    size: int = SIZE,
    channels: int = 1,
    opset: int = 17,
) -> Path:
    """An ONNX network with the input `x` and a 3x3 kernel `k` (a Laplacian) to use."""
    kernel = np.array([[0, -1, 0], [-1, 4, -1], [0, -1, 0]], np.float32)[None, None]
    edges = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, size, size]) for name in ("x", *outputs)
    ]  # fmt: skip
    weights = [numpy_helper.from_array(kernel, "k"), numpy_helper.from_array(np.float32(20), "twenty")]
    graph = helper.make_graph(nodes, "own", edges[:1], edges[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    return path


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


def two_heads(path: Path, opset: int = 17) -> Path:
    """Context first, on purpose: the output that is named attention is the attention."""
    edges = node("Conv", "x k", "edges", pads=[1, 1, 1, 1])
    strong = node("Mul", "edges twenty", "strong")
    nodes = [edges, strong, node("Sigmoid", "strong", "attention"), node("Tanh", "edges", "context")]
    return write(path, nodes, ["context", "attention"], opset=opset)


def sharpened(path: Path) -> Path:
    return write(
        path, [node("Conv", "x k", "edges", pads=[1, 1, 1, 1]), node("Add", "x edges", "image")], ["image"]
    )


def frame() -> np.ndarray:
    return Phantom(PhantomConfig(rows=SIZE, columns=SIZE)).frame(3).live


def laplacian(picture: np.ndarray) -> np.ndarray:
    padded = np.pad(picture, 1)
    neighbours = padded[:-2, 1:-1] + padded[2:, 1:-1] + padded[1:-1, :-2] + padded[1:-1, 2:]
    return np.asarray(4 * picture - neighbours)


@pytest.mark.parametrize("opset", [17, 13], ids=["our opset", "an older opset"])
def test_a_network_with_two_heads_draws_in_the_graph_what_it_draws_alone(tmp_path: Path, opset: int) -> None:
    card = adopt_network(
        two_heads(tmp_path / "own.onnx", opset), tmp_path / "model.onnx", taught=True, licence="mine"
    )
    assert (card.preset, card.network_size, card.licence, card.taught) == ("own", SIZE, "mine", True)
    live = frame()
    made = ArrayEngine(tmp_path / "model.onnx", "onnxruntime")(live)
    edges = laplacian(live.astype(np.float32) / 127.5 - 1.0)
    attention, context = 1 / (1 + np.exp(-20 * edges)), (np.tanh(edges) + 1.0) * 127.5
    np.testing.assert_allclose(made.attention, 255 * attention, atol=1)
    blended = live + made.attention / 255.0 * (context - live)
    np.testing.assert_allclose(made.synthetic, blended, atol=1)


def test_attention_of_an_image_network_is_how_far_it_moved_each_pixel(tmp_path: Path) -> None:
    adopt_network(
        sharpened(tmp_path / "own.onnx"),
        tmp_path / "model.onnx",
        taught=True,
        licence="mine",
        black_white=(0.0, 1.0),
    )
    live = frame()
    made = ArrayEngine(tmp_path / "model.onnx", "onnxruntime")(live)
    picture = live / 255.0
    image = picture + laplacian(picture)
    attention = np.minimum(np.abs(image - picture) / 0.1, 1)
    np.testing.assert_allclose(made.attention, 255 * attention, atol=1)
    assert (made.attention == 0).any()
    assert (made.attention == 255).any()
    np.testing.assert_array_equal(made.synthetic[made.attention == 0], live[made.attention == 0])
    np.testing.assert_allclose(made.synthetic, np.clip(255 * image, 0, 255), atol=1)


def test_an_own_network_is_no_preset_for_torch_and_an_untaught_one_is_refused(tmp_path: Path) -> None:
    adopt_network(sharpened(tmp_path / "own.onnx"), tmp_path / "model.onnx", taught=False, licence="mine")
    spec = EngineSpec(SIZE, SIZE)
    with pytest.raises(EngineError, match="torch: it builds the network from its preset"):
        open_engine(tmp_path / "model.onnx", spec, "torch", untaught=True)
    with pytest.raises(ModelError, match="untaught"):
        open_engine(tmp_path / "model.onnx", spec, "openvino")


def divided_by_nothing(path: Path) -> Path:
    return write(path, [node("Sub", "x x", "nothing"), node("Div", "x nothing", "image")], ["image"])


def in_colour(path: Path) -> Path:
    return write(path, [node("Identity", "x", "image")], ["image"], channels=3)


def tiny(path: Path) -> Path:
    return write(path, [node("Identity", "x", "image")], ["image"], size=32)


def three_outputs(path: Path) -> Path:
    return write(path, [node("Identity", "x", each) for each in "abc"], list("abc"))


def half_size(path: Path) -> Path:
    pool = node("AveragePool", "x", "image", kernel_shape=[2, 2], strides=[2, 2])
    model = onnx.load(write(path, [pool], ["image"]))
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    for side in (1, 1, SIZE // 2, SIZE // 2):
        model.graph.output[0].type.tensor_type.shape.dim.add().dim_value = side
    path.write_bytes(model.SerializeToString())
    return path


def no_network(path: Path) -> Path:
    path.write_bytes(b"no network at all")
    return path


@pytest.mark.parametrize(
    ("make", "said"),
    [
        pytest.param(divided_by_nothing, "must answer with numbers, got NaN or infinity", id="NaN"),
        pytest.param(
            in_colour, r"needs one float32 input \(1, 1, size, size\).*got \(1, 3, 64, 64\)", id="colour"
        ),
        pytest.param(tiny, "with a size of 64 to 1024, got 32; resize inside the network", id="too small"),
        pytest.param(
            three_outputs, "one output, an image, or two, attention and context, got 3", id="outputs"
        ),
        pytest.param(half_size, r"outputs must be \(1, 1, 64, 64\), got \(1, 1, 32, 32\)", id="half"),
        pytest.param(no_network, "own.onnx", id="no ONNX"),
        pytest.param(lambda path: path, "needed an ONNX file, found none", id="nothing there"),
    ],
)
def test_what_is_no_such_network_is_refused_and_nothing_is_written(tmp_path: Path, make, said: str) -> None:  # type: ignore[no-untyped-def]
    own = make(tmp_path / "own.onnx")
    with pytest.raises(ModelError, match=said):
        adopt_network(own, tmp_path / "model.onnx", taught=True, licence="mine")
    assert {each.name for each in tmp_path.iterdir()} <= {"own.onnx"}


@pytest.mark.parametrize(
    ("out", "settings", "said"),
    [
        pytest.param("model.pt", {}, r"must end in \.onnx, got model\.pt", id="no ONNX"),
        pytest.param("none/model.onnx", {}, "needs an existing folder", id="no folder"),
        pytest.param("own.onnx", {}, "exists; choose another name", id="taken"),
        pytest.param("model.onnx", {"black_white": (1.0, 1.0)}, "two rising numbers", id="black and white"),
        pytest.param("model.onnx", {"change": 0.0}, "change must be a share above 0", id="change"),
        pytest.param("model.onnx", {"threshold": 1.0}, "threshold must be 0 to below 1", id="threshold"),
    ],
)
def test_settings_that_cannot_be_used_are_named(tmp_path: Path, out: str, settings: dict, said: str) -> None:
    own = sharpened(tmp_path / "own.onnx")
    with pytest.raises(ValueError, match=said):
        adopt_network(own, tmp_path / out, taught=True, licence="mine", **settings)
