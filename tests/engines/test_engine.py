"""The contract, on every backend that runs here: bytes, slots, settings, exactness."""

import functools
import math
import resource
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from calib.domain import Domain, measure_axes
from casgan.networks import Generator
from casgan.presets import PresetConfig
from engines.engine import BackendName, Engine, EngineSpec, FrameStatistics, Precision
from engines.model import load_model
from engines.open import open_engine
from engines.openvino_engine import load_openvino
from engines.planes import Settings
from engines.reference import Reference, ReferenceFrame, load_reference, run_reference

BACKENDS = [
    pytest.param(("openvino", "f32"), id="openvino-f32"),
    pytest.param(("openvino", "bf16"), id="openvino-bf16"),
    pytest.param(("onnxruntime", "f32"), id="onnxruntime-f32"),
]
SIZES = [(64, 64), (464, 512), (465, 511), (512, 512)]
DEPTHS = [8, 10, 12, 16]

Opener = Callable[..., Engine]


@pytest.fixture(scope="module", params=BACKENDS)
def backend(request: pytest.FixtureRequest) -> tuple[BackendName, Precision]:
    """The backend under test, and its precision."""
    name, precision = request.param
    capabilities = load_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    if precision == "bf16" and "BF16" not in capabilities:
        pytest.skip("this CPU has no bf16 in OpenVINO")
    return name, precision


def opener(backend: tuple[BackendName, Precision], tiny: Path, opened: list[Engine]) -> Opener:
    """Opens a model on a backend, and adds it to those that are to be closed."""

    def make(
        rows: int = 96, columns: int = 128, bits_stored: int = 8, slots: int = 2, model: Path = tiny
    ) -> Engine:
        spec = EngineSpec(rows, columns, bits_stored, slots)
        engine = open_engine(model, spec, backend[0], threads=2, precision=backend[1]).engine
        opened.append(engine)
        return engine

    return make


@pytest.fixture
def open_tiny(backend: tuple[BackendName, Precision], tiny_model: Path) -> Iterator[Opener]:
    """Opens a model on the backend under test; closes what it opened."""
    opened: list[Engine] = []
    yield opener(backend, tiny_model, opened)
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def shared_tiny(backend: tuple[BackendName, Precision], tiny_model: Path) -> Iterator[Opener]:
    """As `open_tiny`, and one engine of a size for all tests that leave it as it was."""
    opened: list[Engine] = []
    yield functools.cache(opener(backend, tiny_model, opened))
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def reference(tiny_model: Path, tiny_preset: PresetConfig) -> Reference:
    return load_reference(load_model(tiny_model), tiny_preset)


@pytest.fixture(scope="module")
def torch_draws(reference: Reference) -> Callable[..., ReferenceFrame]:
    """What torch draws of a frame: the same for every backend, so computed once."""
    drawn: dict[tuple[EngineSpec, bytes, bytes], ReferenceFrame] = {}

    def draw(spec: EngineSpec, live: np.ndarray, settings: Settings | None = None) -> ReferenceFrame:
        key = spec, live.tobytes(), b"" if settings is None else settings.field.tobytes()
        if key not in drawn:
            drawn[key] = run_reference(reference, spec, live, settings)
        return drawn[key]

    return draw


def infer(engine: Engine, live: np.ndarray) -> tuple[np.ndarray, np.ndarray, FrameStatistics]:
    synthetic, attention = np.full_like(live, 7), np.full(live.shape, 7, np.uint8)
    (slot,) = engine.slots(1)
    slot.bind(live, synthetic, attention)
    slot.submit()
    return synthetic, attention, slot.wait()


def grey_difference(a: np.ndarray, b: np.ndarray, bits_stored: int = 8) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).max() * 255.0 / ((1 << bits_stored) - 1))


def tolerance(precision: Precision) -> float:
    """Grey levels of 255. bf16 keeps 8 bits of the logits, which steep random weights multiply."""
    return 32.0 if precision == "bf16" else 1.0


@pytest.mark.parametrize("bits_stored", DEPTHS)
def test_where_attention_is_0_synthetic_is_live_bit_for_bit(
    shared_tiny: Opener, random_frame: Callable[..., np.ndarray], bits_stored: int
) -> None:
    live = random_frame(97, 131, bits_stored)
    synthetic, attention, _ = infer(shared_tiny(97, 131, bits_stored), live)
    untouched = attention == 0
    assert 0.05 < untouched.mean() < 0.95
    np.testing.assert_array_equal(synthetic[untouched], live[untouched])
    assert (synthetic != live)[attention > 64].mean() > 0.9


@pytest.mark.parametrize("bits_stored", [8, 12])
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_backend_draws_what_torch_draws(
    shared_tiny: Opener,
    torch_draws: Callable[..., ReferenceFrame],
    random_frame: Callable[..., np.ndarray],
    size: tuple[int, int],
    bits_stored: int,
) -> None:
    live = random_frame(*size, bits_stored)
    engine = shared_tiny(*size, bits_stored)
    synthetic, attention, statistics = infer(engine, live)
    expected = torch_draws(engine.spec, live)
    assert grey_difference(attention, expected.attention) <= tolerance(engine.precision)
    assert grey_difference(synthetic, expected.synthetic, bits_stored) <= tolerance(engine.precision)
    assert statistics.finite
    slack = tolerance(engine.precision) / 255
    assert statistics.minimum == pytest.approx(expected.statistics.minimum, abs=slack)
    assert statistics.maximum == pytest.approx(expected.statistics.maximum, abs=slack)
    assert statistics.mean == pytest.approx(expected.statistics.mean, abs=slack)
    assert statistics.area == pytest.approx(np.count_nonzero(attention) / attention.size, abs=1e-4)


@pytest.mark.parametrize("size", [(96, 384), (464, 512), (131, 97)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("field", ["whole", "circle", "nothing"])
def test_every_backend_tells_the_features_that_torch_tells(
    shared_tiny: Opener,
    torch_draws: Callable[..., ReferenceFrame],
    random_frame: Callable[..., np.ndarray],
    size: tuple[int, int],
    field: str,
) -> None:
    live = random_frame(*size, 12)
    live[: size[0] // 3] = 4095  # clipped, so that this feature is not 0
    engine = shared_tiny(*size, 12)
    settings = Settings.default(engine.spec)
    if field != "whole":
        row, column = np.mgrid[: size[0], : size[1]]
        inside = (row - size[0] / 2) ** 2 + (column - size[1] / 2) ** 2 < (0.4 * min(size)) ** 2
        settings = settings.with_field((inside * 255 * (field == "circle")).astype(np.uint8))
    engine.set_field(settings.field)
    found = infer(engine, live)[2].features
    engine.set_field(None)
    expected = torch_draws(engine.spec, live, settings).statistics.features
    slack = 0.02 if engine.precision == "bf16" else 1e-4
    np.testing.assert_allclose(found, expected, rtol=slack, atol=slack * np.abs(expected).max())
    assert (np.count_nonzero(expected) > 60) == (field != "nothing")


def test_pixels_outside_the_field_are_in_no_feature_of_the_picture(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    live = random_frame(128, 128)
    other = live.copy()
    other[:, 96:] = 255
    field = np.zeros((128, 128), np.uint8)
    field[16:112, 16:80] = 255
    engine = open_tiny(128, 128)
    engine.set_field(field)
    assert (infer(engine, live)[2].features[64:] == infer(engine, other)[2].features[64:]).all()
    engine.set_field(None)
    assert (infer(engine, live)[2].features[64:] != infer(engine, other)[2].features[64:]).any()


def test_a_frame_is_judged_by_the_statistics_that_are_set(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    engine = open_tiny(64, 64)
    assert engine.domain is None
    frames = [random_frame(64, 64, seed=seed) for seed in range(300)]
    statistics = [infer(engine, frame)[2] for frame in frames]
    assert all(math.isnan(each.domain) for each in statistics)
    domain = Domain.of_model(measure_axes(np.stack([each.features for each in statistics])))
    engine.set_domain(domain)
    like = [infer(engine, random_frame(64, 64, seed=seed))[2].domain for seed in range(300, 320)]
    assert max(like) < 2.0
    assert infer(engine, np.zeros((64, 64), np.uint8))[2].domain > 3.0 * max(like)
    engine.set_domain(None)
    assert math.isnan(infer(engine, frames[0])[2].domain)


@pytest.mark.parametrize("value", [0, 255], ids=["black", "white"])
def test_flat_frames_draw_what_torch_draws(
    shared_tiny: Opener, torch_draws: Callable[..., ReferenceFrame], value: int
) -> None:
    live = np.full((96, 128), value, np.uint8)
    engine = shared_tiny()
    synthetic, attention, statistics = infer(engine, live)
    expected = torch_draws(engine.spec, live)
    assert statistics.finite
    assert grey_difference(attention, expected.attention) <= tolerance(engine.precision)
    assert grey_difference(synthetic, expected.synthetic) <= tolerance(engine.precision)


def test_the_largest_frame_runs(
    open_tiny: Opener, torch_draws: Callable[..., ReferenceFrame], random_frame: Callable[..., np.ndarray]
) -> None:
    live = random_frame(2048, 2048, 16)
    engine = open_tiny(2048, 2048, 16)
    synthetic, attention, _ = infer(engine, live)
    expected = torch_draws(engine.spec, live)
    assert grey_difference(attention, expected.attention) <= tolerance(engine.precision)
    np.testing.assert_array_equal(synthetic[attention == 0], live[attention == 0])


@pytest.mark.parametrize("bits_stored", [8, 12, 16])
def test_synthetic_follows_from_live_attention_and_context(
    open_tiny: Opener,
    tiny_network: Generator,
    export_tiny: Callable[..., Path],
    random_frame: Callable[..., np.ndarray],
    bits_stored: int,
) -> None:
    # A context that is the same everywhere is known without looking at the network: tanh(inf) = 1.
    with torch.no_grad():
        tiny_network.context.conv.weight.zero_()
        tiny_network.context.conv.bias.fill_(30.0)
    live = random_frame(96, 128, bits_stored)
    synthetic, attention, _ = infer(open_tiny(96, 128, bits_stored, model=export_tiny(tiny_network)), live)
    largest = (1 << bits_stored) - 1
    opacity = attention.astype(np.float64) / 255.0
    exact = live + opacity * (largest - live.astype(np.float64))
    assert attention.max() > 200
    assert np.abs(synthetic - exact).max() <= 0.5 + largest * 1e-6


def test_a_blob_comes_back_where_it_was(open_tiny: Opener, echo_model: Path) -> None:
    for rows, columns in ((465, 511), (300, 700), (96, 64), (1024, 768)):
        row, column = rows * 0.37, columns * 0.71
        spread = max(rows, columns) / 24
        rise = np.exp(
            -((np.arange(rows)[:, None] - row) ** 2 + (np.arange(columns) - column) ** 2) / (2 * spread**2)
        )
        live = np.round(255 * rise).astype(np.uint8)
        _, attention, _ = infer(open_tiny(rows, columns, model=echo_model), live)
        weight = attention / attention.sum(dtype=float)
        found = (weight.sum(1) @ np.arange(rows), weight.sum(0) @ np.arange(columns))
        assert found == pytest.approx((row, column), abs=0.5), f"{rows}x{columns}"


def test_a_zone_plate_resamples_as_in_torch(
    open_tiny: Opener, echo_model: Path, tiny_preset: PresetConfig
) -> None:
    class Echo(Generator):
        def logits_and_latent(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
            return 6.0 * x, torch.full_like(x, -0.4), self.encode(x)

    row, column = np.mgrid[:401, :523]
    radius_squared = (row - 200.0) ** 2 + (column - 261.0) ** 2
    live = np.round(127.5 + 127.5 * np.cos(radius_squared * np.pi / 523)).astype(np.uint8)
    engine = open_tiny(401, 523, model=echo_model)
    _, attention, _ = infer(engine, live)
    expected = run_reference(Reference(Echo(tiny_preset).eval(), 0.1), engine.spec, live)
    # No convolution in this network, so even bf16 has only the picture itself to round.
    assert grey_difference(attention, expected.attention) <= (4.0 if engine.precision == "bf16" else 1.0)


def test_nothing_is_drawn_outside_the_field(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    live = random_frame(96, 128)
    engine = open_tiny()
    whole = infer(engine, live)[1]
    field = np.zeros((96, 128), np.uint8)
    field[20:80, 30:90] = 255
    engine.set_field(field)
    synthetic, attention, _ = infer(engine, live)
    assert whole[field == 0].max() > 0
    assert attention[field == 0].max() == 0
    np.testing.assert_array_equal(synthetic[field == 0], live[field == 0])
    np.testing.assert_array_equal(attention[field == 255], whole[field == 255])
    engine.set_field(None)
    np.testing.assert_array_equal(infer(engine, live)[1], whole)


def test_another_grey_table_changes_the_picture_without_a_rebuild(
    open_tiny: Opener, reference: Reference, random_frame: Callable[..., np.ndarray]
) -> None:
    live = random_frame(96, 128, 12)
    engine = open_tiny(96, 128, 12)
    before, _, _ = infer(engine, live)
    table = np.linspace(0.0, 1.0, 256, dtype=np.float32) ** 0.5
    inverse = (np.linspace(0.0, 1.0, 256) ** 2 * 4095.0).astype(np.float32)
    engine.set_grey_table(table, inverse)
    after, attention, _ = infer(engine, live)
    settings = Settings.default(engine.spec).with_tables(table, inverse)
    expected = run_reference(reference, engine.spec, live, settings)
    assert not np.array_equal(before, after)
    assert grey_difference(after, expected.synthetic, 12) <= tolerance(engine.precision)
    np.testing.assert_array_equal(after[attention == 0], live[attention == 0])


@pytest.mark.parametrize("head", ["attention", "context"])
def test_a_network_that_overflows_is_told(
    open_tiny: Opener,
    tiny_network: Generator,
    export_tiny: Callable[..., Path],
    random_frame: Callable[..., np.ndarray],
    head: str,
) -> None:
    live = random_frame(96, 128)
    with torch.no_grad():
        weight = getattr(tiny_network, head).conv.weight
        weight[0::2], weight[1::2] = 3e38, -3e38
    engine = open_tiny(model=export_tiny(tiny_network))
    synthetic, _, statistics = infer(engine, live)
    assert not statistics.finite
    assert synthetic.shape == live.shape


def test_two_slots_in_flight_finish_in_order_and_keep_apart(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    engine = open_tiny()
    frames = [random_frame(96, 128, seed=seed) for seed in range(6)]
    alone = [infer(engine, frame) for frame in frames]
    slots = engine.slots(2)
    outputs = [(np.zeros_like(frames[0]), np.zeros_like(frames[0])) for _ in slots]
    for start in range(0, len(frames), 2):
        for slot, frame, (synthetic, attention) in zip(
            slots, frames[start : start + 2], outputs, strict=True
        ):
            slot.bind(frame, synthetic, attention)
            slot.submit()
        slots[1].wait()
        assert slots[0].ready(), "the first submitted slot must be done when the second is"
        slots[0].wait()
        for (synthetic, attention), expected in zip(outputs, alone[start : start + 2], strict=True):
            np.testing.assert_array_equal(synthetic, expected[0])
            np.testing.assert_array_equal(attention, expected[1])


def test_wait_works_from_another_thread_and_lets_this_one_run(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    engine = open_tiny(1024, 1024)
    live = random_frame(1024, 1024)
    synthetic, attention = np.zeros_like(live), np.zeros_like(live)
    (slot,) = engine.slots(1)
    slot.bind(live, synthetic, attention)
    heard: list[FrameStatistics] = []
    slot.submit()
    waiter = threading.Thread(target=lambda: heard.append(slot.wait()))
    waiter.start()
    waiter.join(timeout=30)
    assert heard[0].finite
    assert heard[0].area == pytest.approx(np.count_nonzero(attention) / attention.size, abs=1e-4)


def test_planes_are_read_and_written_where_they_lie(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    # Planes of one buffer, as a ring slot holds them; live is read-only there.
    rows, columns = 96, 128
    live = random_frame(rows, columns, 12)
    memory = np.zeros(2 * live.nbytes + rows * columns + 64, np.uint8)
    memory[: live.nbytes] = live.view(np.uint8).ravel()
    planes = [
        memory[start : start + size].view(kind).reshape(rows, columns)
        for start, size, kind in (
            (0, live.nbytes, "<u2"),
            (live.nbytes, live.nbytes, "<u2"),
            (2 * live.nbytes, rows * columns, "u1"),
        )
    ]
    planes[0].flags.writeable = False
    engine = open_tiny(rows, columns, 12)
    expected, expected_attention, _ = infer(engine, live)
    (slot,) = engine.slots(1)
    slot.bind(*planes)
    slot.submit()
    slot.wait()
    np.testing.assert_array_equal(planes[1], expected)
    np.testing.assert_array_equal(planes[2], expected_attention)
    np.testing.assert_array_equal(planes[0], live)
    assert memory[-64:].max() == 0


def test_a_frame_allocates_nothing_of_its_size(
    open_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    live = random_frame(1024, 1024, 16)
    synthetic, attention = np.zeros_like(live), np.zeros(live.shape, np.uint8)
    (slot,) = open_tiny(1024, 1024, 16, slots=1).slots(1)
    slot.bind(live, synthetic, attention)
    for _ in range(5):
        slot.submit()
        slot.wait()
    tracemalloc.start()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        slot.bind(live, synthetic, attention)
        slot.submit()
        slot.wait()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100_000
    # One plane of this frame is 512 pages, so ten frames with one fresh plane each would be 5,120 faults.
    assert faults < 1_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            lambda p: {**p, "live": p["live"][:, :-1]}, r"live must be \(96, 128\) uint8", id="shape"
        ),
        pytest.param(
            lambda p: {**p, "live": p["live"].astype("u2")}, "live must be .* got .* uint16", id="dtype"
        ),
        pytest.param(
            lambda p: {**p, "synthetic": p["synthetic"].T.copy().T}, "must be contiguous", id="strides"
        ),
        pytest.param(
            lambda p: {**p, "attention": p["attention"].astype("f4")}, "attention must be", id="attention"
        ),
    ],
)
def test_planes_of_another_kind_are_refused(
    shared_tiny: Opener,
    random_frame: Callable[..., np.ndarray],
    change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]],
    message: str,
) -> None:
    live = random_frame(96, 128)
    planes = {"live": live, "synthetic": np.zeros_like(live), "attention": np.zeros_like(live)}
    (slot,) = shared_tiny().slots(1)
    with pytest.raises(ValueError, match=message):
        slot.bind(**change(planes))


def test_an_output_that_cannot_be_written_is_refused(
    shared_tiny: Opener, random_frame: Callable[..., np.ndarray]
) -> None:
    live = random_frame(96, 128)
    synthetic = np.zeros_like(live)
    synthetic.flags.writeable = False
    with pytest.raises(ValueError, match="synthetic is written by the engine, got a read-only array"):
        shared_tiny().slots(1)[0].bind(live, synthetic, np.zeros_like(live))


def test_a_slot_out_of_turn_is_refused(open_tiny: Opener, random_frame: Callable[..., np.ndarray]) -> None:
    live = random_frame(96, 128)
    engine = open_tiny(slots=1)
    with pytest.raises(ValueError, match="opened with 1 slots, got a request for 2"):
        engine.slots(2)
    (slot,) = engine.slots(1)
    with pytest.raises(ValueError, match="not bound; bind"):
        slot.submit()
    with pytest.raises(ValueError, match="this slot is idle"):
        slot.wait()
    slot.bind(live, np.zeros_like(live), np.zeros_like(live))
    slot.submit()
    with pytest.raises(ValueError, match="in flight"):
        slot.submit()
    with pytest.raises(ValueError, match="only when it is idle"):
        slot.bind(live, np.zeros_like(live), np.zeros_like(live))
    slot.wait()


@pytest.mark.parametrize(
    ("table", "message"),
    [
        pytest.param(np.zeros(255, np.float32), r"table must be \(256,\) finite", id="length"),
        pytest.param(np.full(256, np.nan, np.float32), "table must be .* finite", id="nan"),
        pytest.param(np.sin(np.arange(256)).astype(np.float32), "table must be monotone", id="waves"),
    ],
)
def test_a_table_that_cannot_be_mapped_back_is_refused(
    shared_tiny: Opener, table: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        shared_tiny().set_grey_table(table, np.linspace(0, 255, 256, dtype=np.float32))


def test_a_field_of_another_size_is_refused(shared_tiny: Opener) -> None:
    with pytest.raises(ValueError, match=r"field must be \(96, 128\) uint8, got \(96, 96\)"):
        shared_tiny().set_field(np.zeros((96, 96), np.uint8))
