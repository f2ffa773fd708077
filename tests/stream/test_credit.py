from pathlib import Path

import pytest
import zmq

from stream.credit import WINDOW, Credit
from stream.errors import EndpointError


def use_up(credit: Credit) -> int:
    """Hand out frames until there is no credit left; how many that were."""
    frames = 0
    while credit.allows():
        credit.use()
        frames += 1
    return frames


def test_a_replay_runs_ahead_of_its_client_by_the_window_only(tmp_path: Path) -> None:
    credit = Credit(f"ipc://{tmp_path}/c")
    with zmq.Context() as context, context.socket(zmq.PUSH) as client:
        assert use_up(credit) == WINDOW
        client.connect(f"ipc://{tmp_path}/c")
        client.send((3).to_bytes(4, "little"))
        assert credit.socket.poll(10_000)
        credit.hear()
        assert use_up(credit) == 3
    credit.close()


def test_frames_that_never_reach_the_client_are_given_back(tmp_path: Path) -> None:
    credit = Credit(f"ipc://{tmp_path}/c")
    use_up(credit)
    credit.give_back(2)
    assert use_up(credit) == 2
    credit.close()


def test_a_credit_port_in_use_is_refused() -> None:
    with zmq.Context() as context, context.socket(zmq.PULL) as holder:
        port = holder.bind_to_random_port("tcp://127.0.0.1")
        with pytest.raises(
            EndpointError, match=r"needed a free address, got tcp://.*; choose another with --endpoint"
        ):
            Credit(f"tcp://127.0.0.1:{port}")
