"""What is kept of a run, the frames that never came, and the worst ones."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from bench.errors import BenchError
from bench.live import Run
from bench.report import build_report, samples_of
from bench.samples import (
    EDGE_FRAMES,
    Samples,
    back_filled_ms,
    histogram,
    load_samples,
    measured_span,
    only,
    samples_path,
    save_samples,
    split_ms,
)
from bench.summaries import summaries
from stream.measure import Measured
from stream.timing import NS_PER_MS

MadeUp = Callable[..., Run]


def _measured(latencies_ms: dict[int, float], period_ms: float = 10.0) -> Measured:
    """Frames received, by sequence number, each with its latency; the rest never came."""
    numbers = np.array(list(latencies_ms), np.uint64)
    due = 1_000_000 + numbers.astype(np.int64) * round(period_ms * NS_PER_MS)
    received = due + np.round(np.array(list(latencies_ms.values())) * NS_PER_MS).astype(np.int64)
    stamps = np.column_stack([due, due, due, due, received, received]).astype(np.uint64)
    state = np.ones(numbers.size, np.uint8)
    return Measured(numbers, numbers, state, np.zeros_like(state), stamps)


def test_the_samples_come_back_as_they_were_kept(made_up_run: MadeUp, tmp_path: Path) -> None:
    kept = samples_of(made_up_run(1000, late_ms=(30.0,)))
    save_samples(tmp_path / "report.npz", [kept, Samples(series={"transport_ms": np.array([0.1234, 5.0])})])
    first, second = load_samples(tmp_path / "report.npz")
    assert first.frames is not None
    assert kept.frames is not None
    for name in Measured.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first.frames, name), getattr(kept.frames, name))
    assert (first.first, first.end) == (kept.first, kept.end)
    for path in kept.paths():
        np.testing.assert_allclose(first.values_ms(path), kept.values_ms(path), atol=6e-5)
    assert second.frames is None
    np.testing.assert_allclose(second.values_ms("transport_ms"), [0.1234, 5.0], atol=6e-5)


def test_the_samples_of_ten_minutes_take_less_than_a_megabyte(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    stamps = np.cumsum(
        np.column_stack(
            [np.full(18_000, 33_333_333)] + [generator.integers(2e5, 9e5, 18_000) for _ in range(5)]
        ),
        axis=1,
    )
    stamps += np.arange(18_000)[:, None] * 33_333_333
    numbers = np.arange(18_000, dtype=np.uint64)
    state = np.ones(18_000, np.uint8)
    series = {"floor/floor_ms": generator.normal(1.0, 0.1, 9_000)}
    frames = Measured(numbers, numbers, state, state, stamps.astype(np.uint64))
    save_samples(tmp_path / "a.npz", [Samples(frames, 0, 18_000, series)])
    assert (tmp_path / "a.npz").stat().st_size < 1_000_000


def test_every_series_has_the_figures_that_the_report_gives(made_up_run: MadeUp) -> None:
    run = made_up_run(1000, late_ms=(30.0, 26.0))
    report, kept = dict(summaries(build_report(run))), samples_of(run)
    for path in kept.paths():
        values = kept.values_ms(path)
        assert report[path]["n"] == values.size, path
        assert report[path]["p50"] == pytest.approx(float(np.median(values))), path


def test_the_first_and_the_last_ten_frames_received_do_not_count() -> None:
    measured = _measured(dict.fromkeys(range(5, 105), 1.0))
    assert measured_span(measured, 0, 1000) == (5 + EDGE_FRAMES, 105 - EDGE_FRAMES)
    assert measured_span(measured, 40, 20) == (40, 60)
    assert measured_span(_measured({0: 1.0, 1: 1.0}), 100, 1000) == (100, 100)
    assert measured_span(_measured({}), 100, 1000) == (100, 100)


def test_the_stages_of_a_frame_add_up_to_its_latency_even_without_an_inference() -> None:
    passed = split_ms(np.array([10, 11, 13, 16, 20, 25], np.uint64) * NS_PER_MS)
    assert passed == {"grab": 1.0, "submit": 2.0, "engine": 3.0, "guard": 4.0, "transport": 5.0}
    alone = split_ms(np.array([10, 11, 0, 0, 20, 25], np.uint64) * NS_PER_MS)
    assert alone == {"grab": 1.0, "submit": None, "engine": None, "guard": 9.0, "transport": 5.0}


def test_the_worst_frames_are_named_with_their_stage_split(made_up_run: MadeUp) -> None:
    worst = build_report(made_up_run(100, late_ms=(20.0, 55.0, 30.0)))["worst"]
    assert [each["sequence"] for each in worst[:3]] == [21, 22, 20]
    assert [each["latency_ms"] for each in worst[:3]] == [55.0, 30.0, 20.0]
    assert worst[0]["state"] == "passthrough"
    assert worst[0]["reason"] == "deadline"
    assert sum(value or 0.0 for value in worst[0]["stages_ms"].values()) == pytest.approx(55.0)
    assert len(worst) == 10


def test_a_frame_that_never_came_counts_until_the_next_one_that_did() -> None:
    # Frames 2, 3 and 4 fell into a stall; 5 was due at 50 ms and came at 57, when 2 had been due for 37 ms.
    measured = _measured({0: 5.0, 1: 5.0, 5: 7.0, 6: 5.0})
    filled, unanswered = back_filled_ms(measured, 9)
    np.testing.assert_allclose(filled[:4], [5.0, 5.0, 7.0, 5.0])
    np.testing.assert_allclose(filled[4:], [37.0, 27.0, 17.0])
    assert unanswered == 2


def test_both_histograms_are_kept_only_where_they_differ(made_up_run: MadeUp) -> None:
    whole = build_report(made_up_run(100))["coordinated_omission"]
    assert whole["missing"] == 0
    assert whole["histogram_back_filled"] is None
    assert sum(whole["histogram"]["counts"]) == 100
    run = made_up_run(100)
    run.measured = only(run.measured, ~np.isin(run.measured.sequence, (50, 51)))
    holed = build_report(run)["coordinated_omission"]
    assert holed["missing"] == 2
    assert sum(holed["histogram"]["counts"]) == 98
    assert sum(holed["histogram_back_filled"]["counts"]) == 100
    # Frame 52 took 11.2 ms at 50 per second, so 50 had been due for 51.2 ms when it came.
    assert holed["latency_ms"]["max"] == pytest.approx(51.2)


def test_repeated_images_are_not_taken_for_lost_frames(made_up_run: MadeUp) -> None:
    run = made_up_run(100)
    run.status["counters"]["repeated"] = 2
    run.measured = only(run.measured, ~np.isin(run.measured.sequence, (50, 51)))
    found = build_report(run)["coordinated_omission"]
    assert found["missing"] is None
    assert found["how"].startswith("not told")


def test_a_histogram_has_one_more_edge_than_counts_and_loses_nothing() -> None:
    values = np.array([0.0, 1.0, 1.01, 30.0, 1e9])
    found = histogram(values)
    assert len(found["edges_ms"]) == len(found["counts"]) + 1
    assert sum(found["counts"]) == values.size
    assert histogram(np.zeros(0)) == {"edges_ms": [], "counts": []}


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04broken"], ids=["empty", "text", "torn"])
def test_a_file_that_holds_no_samples_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    with pytest.raises(BenchError, match=r"needed samples written by contrastream bench, got .*a\.npz"):
        load_samples(tmp_path / "a.npz")


def test_samples_that_are_missing_or_of_another_make_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"keep the \.npz with its \.json"):
        load_samples(samples_path(tmp_path / "a.json"))
    np.savez(tmp_path / "a.npz", schema=np.array("other/2"))
    with pytest.raises(BenchError, match=r"needed samples of contrastream\.samples/1, got other/2"):
        load_samples(tmp_path / "a.npz")
