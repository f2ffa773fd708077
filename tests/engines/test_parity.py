"""The shipped model against torch, and the measure itself."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from engines.engine import BackendName, Engine, EngineSpec, Precision
from engines.model import load_model
from engines.open import open_engine
from engines.parity import measure_parity
from engines.reference import Reference, load_reference


@pytest.fixture(scope="module")
def reference() -> Reference:
    return load_reference(load_model("compact"))


@pytest.fixture
def open_compact() -> Iterator[Callable[..., Engine]]:
    opened: list[Engine] = []

    def make(backend: BackendName, precision: Precision, spec: EngineSpec) -> Engine:
        engine = open_engine("compact", spec, backend, untaught=True, threads=2, precision=precision).engine
        opened.append(engine)
        return engine

    yield make
    for engine in opened:
        engine.close()


@pytest.mark.parametrize(
    ("backend", "precision", "largest", "mean"),
    [
        pytest.param("openvino", "f32", 1.0, 0.001, id="openvino-f32"),
        pytest.param("openvino", "bf16", 4.0, 0.05, id="openvino-bf16"),
        pytest.param("onnxruntime", "f32", 1.0, 0.001, id="onnxruntime-f32"),
    ],
)
@pytest.mark.parametrize("bits_stored", [8, 12])
def test_the_shipped_model_draws_what_torch_draws(
    open_compact: Callable[..., Engine],
    reference: Reference,
    backend: BackendName,
    precision: Precision,
    largest: float,
    mean: float,
    bits_stored: int,
) -> None:
    spec = EngineSpec(384, 320, bits_stored)
    rng = np.random.default_rng(0)
    phantom = Phantom(PhantomConfig(seed=2, rows=384, columns=320, bits_stored=bits_stored))
    plain = phantom.frame(3).plain
    noise = rng.integers(0, 1 << bits_stored, plain.shape).astype(plain.dtype)
    frames = [plain, noise, np.zeros_like(plain), np.full_like(plain, (1 << bits_stored) - 1)]
    parity = measure_parity(open_compact(backend, precision, spec), reference, frames)
    assert parity.frames == 4
    assert parity.background_exact
    assert parity.synthetic_max <= largest
    assert parity.synthetic_mean <= mean


def test_another_model_is_found_out(
    tiny_model: Path, open_compact: Callable[..., Engine], random_frame: Callable[..., np.ndarray]
) -> None:
    from casgan.networks import Generator
    from casgan.presets import PresetConfig

    other = Reference(Generator(PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1)).folded(), 0.1)
    engine = open_engine(tiny_model, EngineSpec(64, 64), "openvino", precision="f32").engine
    parity = measure_parity(engine, other, [random_frame(64, 64)])
    engine.close()
    assert parity.attention_max > 20


def test_parity_of_no_frames_is_refused(tiny_model: Path, reference: Reference) -> None:
    engine = open_engine(tiny_model, EngineSpec(64, 64), "openvino").engine
    with pytest.raises(ValueError, match="at least one frame, got none"):
        measure_parity(engine, reference, [])
    engine.close()
