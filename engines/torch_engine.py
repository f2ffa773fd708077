"""The torch backend: the reference's graph on a GPU, its convolutions in half precision, as a live engine.

It is what runs where TensorRT cannot be had. On a CPU the other engines are faster; there it serves the tests.
"""

import contextlib
import functools
import logging
from typing import Any

import torch
from torch import Tensor

from casgan.presets import PresetConfig
from engines.base import BaseEngine
from engines.engine import BackendName, EngineSpec, Precision
from engines.errors import CudaError, CudaOutOfMemory, EngineError
from engines.model import ModelFile, check_f16
from engines.page_lock import PageLocks
from engines.planes import Settings, domain_of
from engines.reference import Reference, load_reference
from engines.torch_slots import CudaSlot, HostSlot, Picture, Shared, reason_of

log = logging.getLogger(__name__)

DTYPES: dict[Precision, torch.dtype] = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
PORTABLE = 1
"""cudaHostRegisterPortable: page-locked for every CUDA context of this process."""


def open_torch(
    model: ModelFile, spec: EngineSpec, *, threads: int | None = None, precision: Precision | None = None
) -> "TorchEngine":
    """Open a model for one frame size on the first GPU.

    Args:
        model: The file and its card.
        spec: Frame size, bits and slots.
        threads: Taken for the contract's sake; a GPU has no use for it.
        precision: What the convolutions are computed in; None for f16.

    Raises:
        ModelError: Not a model of ours.
        EngineError: Another precision than f32, bf16 or f16, or the GPU cannot hold it.
    """
    return TorchEngine(model, spec, precision=precision or "f16")


class Convolutions:
    """The network in one precision: fp32 in, fp32 out.

    Args:
        reference: The network; it is changed.
        dtype: What it is computed in.
        device: Where.
    """

    def __init__(self, reference: Reference, dtype: torch.dtype, device: str) -> None:
        # Channels last is what a GPU's matrix units read without reordering.
        self._format = torch.channels_last
        self._network = reference.network.to(device=device, dtype=dtype, memory_format=self._format)
        self._dtype = dtype

    def __call__(self, picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Attention and context logits, and the latent, of a picture (1, 1, size, size)."""
        planes = self._network.logits_and_latent(picture.to(self._dtype, memory_format=self._format))
        attention, context, latent = (plane.float() for plane in planes)
        return attention, context, latent


class PageCalls:
    """The CUDA runtime's two calls that page-lock memory, as torch hands them on.

    Args:
        cuda: `torch.cuda`, or what stands in for it in a test.
        device: Where.
    """

    def __init__(self, cuda: Any, device: str) -> None:
        self._cuda = cuda
        self._device = device

    def register(self, address: int, size: int) -> None:
        """Page-lock `size` bytes from `address` on.

        Raises:
            CudaError: CUDA does not.
        """
        self._check("cudaHostRegister", self._cuda.cudart().cudaHostRegister(address, size, PORTABLE))

    def unregister(self, address: int) -> None:
        """Give back what `register` page-locked.

        Raises:
            CudaError: CUDA does not.
        """
        self._check("cudaHostUnregister", self._cuda.cudart().cudaHostUnregister(address))

    def _check(self, call: str, status: Any) -> None:
        if int(status) == 0:
            return
        # The failed call also left its error for the next kernel launch to find, which must not be a frame's.
        with contextlib.suppress(RuntimeError):
            torch.ones(1, device=self._device)
        said = self._cuda.cudart().cudaGetErrorString(status)
        raise CudaError(f"{call} failed: {said}", call=call, code=str(int(status)))


@functools.cache
def page_locks(device: str) -> PageLocks:
    """What this process has page-locked for a GPU: CUDA refuses a range twice, and two engines may draw into one ring."""
    return PageLocks(PageCalls(torch.cuda, device))


class TorchEngine(BaseEngine[HostSlot]):
    """One network, and a slot with buffers of its own for each frame in flight. Implements `engines.engine.Engine`.

    Args:
        model: The file and its card.
        spec: Frame size, bits and slots.
        precision: f32, bf16 or f16.
        device: `cuda`, or `cpu`: no stream, no graph, `submit` computes.
        capture: Hold each slot's inference in a CUDA graph.
        cuda: `torch.cuda`, or what stands in for it in a test; None takes `torch.cuda` for `cuda` alone.
        preset: The network's layers where the card's preset is not a shipped one.

    Raises:
        ModelError: Not a model of ours.
        EngineError: Another precision, or the GPU cannot hold it.
    """

    backend: BackendName = "torch"

    def __init__(
        self,
        model: ModelFile,
        spec: EngineSpec,
        *,
        precision: Precision,
        device: str = "cuda",
        capture: bool = True,
        cuda: Any = None,
        preset: PresetConfig | None = None,
    ) -> None:
        if precision not in DTYPES:
            raise EngineError(
                f"torch computes in {', '.join(DTYPES)} here, got a request for {precision}; use one of those"
            )
        if precision == "f16":
            check_f16(model.card, model.path.name)
        super().__init__(spec, Settings.default(spec, domain_of(model)))
        self.precision = precision
        self.model_sha256 = model.card.sha256
        self.taught = model.card.taught
        self._device = device
        self._cuda = torch.cuda if cuda is None and device != "cpu" else cuda
        own = self._cuda is not torch.cuda  # a test's stand-in
        self._shared = Shared(PageLocks(PageCalls(self._cuda, device)) if own else page_locks(device))
        reference = load_reference(model, preset)
        try:
            self._slots = self._make_slots(reference, capture)
        except RuntimeError as error:  # torch's errors share no narrower base
            raise self._cannot_open(model, error) from error
        self._say_what_was_not_captured()

    def _make_slots(self, reference: Reference, capture: bool) -> list[HostSlot]:
        convolutions = Convolutions(reference, DTYPES[self.precision], self._device)
        size = reference.network.preset.network_size
        slots: list[HostSlot] = []
        for _ in range(self.spec.slots):
            picture = Picture(convolutions, size, reference.threshold, self.spec, self.settings, self._device)
            if self._cuda is None:
                slots.append(HostSlot(self.spec, picture, lambda: self.settings))
                continue
            slots.append(
                CudaSlot(
                    self.spec,
                    picture,
                    lambda: self.settings,
                    cuda=self._cuda,
                    shared=self._shared,
                    capture=capture,
                )
            )
        return slots

    def _cannot_open(self, model: ModelFile, error: RuntimeError) -> EngineError:
        sizes = f"{model.path.name} for {self.spec.rows}x{self.spec.columns} with {self.spec.slots} slots"
        if isinstance(error, torch.OutOfMemoryError):
            free = ""
            with contextlib.suppress(RuntimeError):
                left, total = self._cuda.mem_get_info()
                free = f"{left / 2**30:.1f} of {total / 2**30:.1f} GiB are free; "
            return CudaOutOfMemory(
                f"needed GPU memory for {sizes}, got: {reason_of(error)}; {free}"
                "end what else uses the GPU, or use a smaller model",
                call="torch",
                code=type(error).__name__,
            )
        return EngineError(f"torch cannot open {sizes}: {reason_of(error)}; try another --engine")

    def _say_what_was_not_captured(self) -> None:
        why = {slot.why_no_graph for slot in self._slots if isinstance(slot, CudaSlot) and not slot.captured}
        if why - {"not asked for"}:
            log.warning(
                "the inference runs without a CUDA graph, which is slower: %s", "; ".join(sorted(why))
            )

    @property
    def gpu_bus_id(self) -> str | None:
        """Which GPU it runs on, as its place on the PCI bus; None on a CPU."""
        if self._device == "cpu":
            return None
        found = self._cuda.get_device_properties(self._device)
        return f"{found.pci_domain_id:08x}:{found.pci_bus_id:02x}:{found.pci_device_id:02x}.0"

    def close(self) -> None:
        for slot in self._slots:
            slot.close()
        self._slots = []
        self._shared.close()
