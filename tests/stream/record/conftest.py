"""Captures whose every pixel is known."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.frame import FrameFormat, Plane, Reason, State
from stream.record.capture import CaptureWriter
from stream.ring import RingMemory
from stream.timing import NS_PER_MS, NS_PER_S
from stream.wire import ALL_PLANES, Header, Message, pack_header, unpack

FORMAT = FrameFormat(96, 128, 12, window_center=2000.0, window_width=3000.0)
BEGIN_NS = 5 * NS_PER_S
ENGINE = {"backend": "openvino", "precision": "bf16", "model_sha256": "ab" * 32, "taught": True}


def message_of(
    number: int,
    due_ns: int,
    *,
    frame_format: FrameFormat = FORMAT,
    state: State = State.SYNTHETIC,
    reason: Reason = Reason.NONE,
    **more: Any,
) -> Message:
    """Frame `number`: live is a ramp plus the number, synthetic 7 less, attention the number."""
    memory = RingMemory.create(frame_format, 1)
    slot = memory.slots[0]
    ramp = np.arange(frame_format.pixels).reshape(frame_format.rows, frame_format.columns)
    slot.live[:] = (ramp + number) % (frame_format.max_value + 1)
    slot.synthetic[:] = np.maximum(slot.live, 7) - 7
    slot.attention[:] = number
    said = {
        "stream": bytes(16),
        "sequence": number,
        "publication": number,
        "rate_hz": 20.0,
        "unmasked_text": False,
    }
    header = Header(
        **(said | more),
        frame_format=frame_format,
        state=state,
        reason=reason,
        planes=ALL_PLANES if state is State.SYNTHETIC else Plane.LIVE,
        stamps_ns=(due_ns, due_ns + 1, 0, 0, due_ns + 2),
    )
    length = pack_header(slot.bytes, header, memory.layout)
    whole = unpack(bytes(slot.bytes[:length]))
    memory.close()
    return whole


@pytest.fixture
def captured(tmp_path: Path) -> Callable[..., Path]:
    """Writes a capture of so many frames, 50 ms apart but for a step of 200 ms before frame 5; frame 2 is live only."""

    def write(count: int = 8, name: str = "a.capture", **fields: Any) -> Path:
        writer = CaptureWriter(tmp_path / name)
        writer.add_engine(ENGINE, BEGIN_NS)
        due_ns = BEGIN_NS
        for number in range(count):
            live_only = {"state": State.PASSTHROUGH, "reason": Reason.DEADLINE} if number == 2 else {}
            writer.add(message_of(number, due_ns, **(fields | live_only)), due_ns + 3 * NS_PER_MS)
            due_ns += (200 if number == 4 else 50) * NS_PER_MS
        writer.finish(due_ns)
        return writer.path

    return write
