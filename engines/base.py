"""What every engine does alike: hands out its slots, takes other settings, and lets nobody use a slot out of turn."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float32

from calib.domain import Domain
from engines.engine import EngineSpec, FrameStatistics
from engines.planes import Settings, byte_planes, statistics_of

AnySlot = TypeVar("AnySlot")


class BaseEngine(Generic[AnySlot]):
    """An engine's slots, and the settings that their next submissions use.

    Args:
        spec: Frame size, bits and slots.
        settings: Grey levels, field and domain to begin with.
    """

    def __init__(self, spec: EngineSpec, settings: Settings) -> None:
        self.spec = spec
        self.settings = settings
        self._slots: list[AnySlot] = []

    def slots(self, count: int) -> Sequence[AnySlot]:
        """As `engines.engine.Engine.slots`."""
        if not 1 <= count <= self.spec.slots:
            raise ValueError(
                f"this engine was opened with {self.spec.slots} slots, got a request for {count}"
            )
        return self._slots[:count]

    def set_grey_table(self, table: np.ndarray, inverse: np.ndarray) -> None:
        """As `engines.engine.Engine.set_grey_table`."""
        self.settings = self.settings.with_tables(table, inverse)

    def set_field(self, field: np.ndarray | None) -> None:
        """As `engines.engine.Engine.set_field`."""
        self.settings = self.settings.with_field(field)

    @property
    def domain(self) -> Domain | None:
        """As `engines.engine.Engine.domain`."""
        return self.settings.domain

    def set_domain(self, domain: Domain | None) -> None:
        """As `engines.engine.Engine.set_domain`."""
        self.settings = self.settings.with_domain(domain)


class BaseSlot(ABC):
    """A slot's turns: bound, submitted, waited for, and again. Implements `engines.engine.Slot` but for `ready`.

    Args:
        spec: What the engine was opened for.
        settings: Gives the engine's present settings.
    """

    def __init__(self, spec: EngineSpec, settings: Callable[[], Settings]) -> None:
        self._spec = spec
        self._present = settings
        self._bound: dict[str, np.ndarray] = {}
        """The caller's arrays as bytes, kept alive; empty before the first `bind`."""
        self._busy = False

    def bind(self, live: np.ndarray, synthetic: np.ndarray, attention: np.ndarray) -> None:
        """As `engines.engine.Slot.bind`."""
        if self._busy:
            raise ValueError("a slot can be bound anew only when it is idle; wait() for it first")
        planes = byte_planes(self._spec, live, synthetic, attention)
        self._attach(planes)
        self._bound = planes

    def submit(self) -> None:
        """As `engines.engine.Slot.submit`."""
        if self._busy or not self._bound:
            state = "in flight; wait() for it" if self._busy else "not bound; bind() it"
            raise ValueError(f"a slot must be bound and idle to submit, this one is {state} first")
        self._begin()
        self._busy = True

    def wait(self) -> FrameStatistics:
        """As `engines.engine.Slot.wait`; whatever it raises, the slot is idle then."""
        if not self._busy:
            raise ValueError("wait() needs a submitted frame, this slot is idle; submit() first")
        try:
            values = self._end()
        finally:
            self._busy = False
        return statistics_of(values, self._present().domain)

    @abstractmethod
    def _attach(self, planes: dict[str, np.ndarray]) -> None:
        """Have the runtime read and write these from now on."""

    @abstractmethod
    def _begin(self) -> None:
        """Start the inference of what is bound, with the present settings."""

    @abstractmethod
    def _end(self) -> Float32[np.ndarray, " n"]:
        """Wait for it; returns the graph's statistics.

        Raises:
            EngineError: It failed.
        """
