"""The wall-clock budget of one run's teaching."""

import time

from casgan.train import StopWish


class Budget(StopWish):
    """Whether somebody wants the run to end, or its minutes are over.

    Args:
        wish: Of whoever may press Ctrl-C.
        minutes: From now on; None for no end.
    """

    def __init__(self, wish: StopWish, minutes: float | None) -> None:
        self.wish, self.began = wish, time.monotonic()
        self.seconds = None if minutes is None else 60.0 * minutes
        self.is_spent = False

    @property
    def patient(self) -> bool:
        """As the wish has it, which the signals ask."""
        return self.wish.patient

    @patient.setter
    def patient(self, value: bool) -> None:
        self.wish.patient = value

    def wanted(self) -> bool:
        if self.seconds is not None and time.monotonic() - self.began > self.seconds:
            self.is_spent = True
        return self.is_spent or self.wish.wanted()
