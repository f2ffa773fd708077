"""Why the torch backend cannot run, found without importing torch where that needs no torch."""

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engines.driver import FAILURES, LIBRARY, Driver, Gpu, find_driver
from engines.torch_probe import TorchBuild, covers, probe_torch, read_build

DATA_CENTRE = Gpu("GPU of a test", (9, 0))


class FakeDriver:
    """libcuda's calls as the C library has them: a status back, the answer through a pointer."""

    def __init__(self, cuda: int = 13000, gpus: tuple[Gpu, ...] = (DATA_CENTRE,), status: int = 0) -> None:
        self.cuda, self.gpus, self.status = cuda, gpus, status

    def cuInit(self, flags: int) -> int:
        return self.status

    def cuDriverGetVersion(self, out: Any) -> int:
        out._obj.value = self.cuda
        return 0

    def cuDeviceGetCount(self, out: Any) -> int:
        out._obj.value = len(self.gpus)
        return 0

    def cuDeviceGet(self, out: Any, index: Any) -> int:
        out._obj.value = index.value
        return 0

    def cuDeviceGetName(self, out: Any, size: Any, device: Any) -> int:
        out.value = self.gpus[device.value].name.encode()[: size.value - 1]
        return 0

    def cuDeviceGetAttribute(self, out: Any, attribute: Any, device: Any) -> int:
        out._obj.value = self.gpus[device.value].capability[{75: 0, 76: 1}[attribute.value]]
        return 0


def no_library(name: str) -> Any:
    raise OSError(f"{name}: cannot open shared object file")


def never() -> Any:
    raise AssertionError("torch must not be imported for this answer")


@pytest.fixture
def found(tmp_path: Path) -> Callable[..., Callable[[str], Any]]:
    """A `find_spec` that finds these packages, and a torch built as told."""

    def make(cuda: str | None, *, hip: str | None = None, missing: str = "") -> Callable[[str], Any]:
        (tmp_path / "version.py").write_text(
            "from typing import Optional\n"
            f"__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = {cuda!r}\nhip: Optional[str] = {hip!r}\n"
        )
        return lambda name: None if name == missing else SimpleNamespace(origin=str(tmp_path / "__init__.py"))

    return make


def fake_torch(archs: tuple[str, ...] = ("sm_80", "sm_90"), *, available: bool = True) -> Any:
    return SimpleNamespace(
        cuda=SimpleNamespace(is_available=lambda: available, get_arch_list=lambda: list(archs))
    )


def test_the_driver_tells_its_version_and_its_gpus() -> None:
    gpus = (DATA_CENTRE, Gpu("small GPU", (8, 6)))
    assert find_driver(lambda name: FakeDriver(12080, gpus)) == (Driver((12, 8), gpus), "")
    assert str(gpus[1]) == "small GPU (compute capability 8.6)"


@pytest.mark.parametrize(
    ("library", "why"),
    [
        pytest.param(no_library, f"no NVIDIA driver \\({LIBRARY} is not there\\); with a GPU", id="no driver"),
        pytest.param(lambda name: FakeDriver(gpus=()), "no GPU that the driver can use", id="no gpu"),
        pytest.param(lambda name: FakeDriver(status=100), "CUDA_ERROR_NO_DEVICE", id="no device"),
        pytest.param(lambda name: FakeDriver(status=803), "restart this machine", id="two versions"),
        pytest.param(lambda name: FakeDriver(status=999), r"\(cuInit: error 999\); look at nvidia-smi", id="unknown"),
    ],
)  # fmt: skip
def test_a_driver_that_cannot_be_used_says_why_and_what_to_do(
    library: Callable[[str], Any], why: str
) -> None:
    driver, said = find_driver(library)
    assert driver is None
    assert re.search(why, said)
    assert all("; " in sentence for sentence in (said, *FAILURES.values()))


def test_the_drivers_calls_have_the_names_and_codes_of_cudas_own_binding() -> None:
    binding = pytest.importorskip("cuda.bindings.driver")
    calls = {name for name in vars(FakeDriver) if name.startswith("cu")}
    assert {name for name in calls if not hasattr(binding, name)} == set()
    attribute = binding.CUdevice_attribute
    assert attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR == 75
    assert attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR == 76
    for code, sentence in FAILURES.items():
        name = binding.CUresult(code).name
        assert "CUDA_ERROR" not in sentence or name in sentence


@pytest.mark.parametrize(
    ("missing", "why"),
    [
        ("torch", 'torch is not installed; run: pip install -e ".[torch]"'),
        ("onnx", 'onnx is not installed; run: pip install -e ".[torch]"'),
    ],
    ids=["torch", "onnx"],
)
def test_a_package_that_is_missing_is_named_with_its_extra(
    found: Callable[..., Any], missing: str, why: str
) -> None:
    find = found("13.0", missing=missing)
    assert probe_torch(find=find, load=lambda name: FakeDriver(), import_torch=never) == (False, why)


@pytest.mark.parametrize(
    ("built", "library", "why"),
    [
        pytest.param(
            {"cuda": None}, no_library,
            "torch 2.13.0 is built without CUDA, and there is no NVIDIA driver (libcuda.so.1 is not there); with a "
            "GPU, install its driver, then install a CUDA build of torch from https://download.pytorch.org/whl",
            id="cpu build, no driver",
        ),
        pytest.param(
            {"cuda": None}, lambda name: FakeDriver(),
            "torch 2.13.0 is built without CUDA; install a CUDA build of torch from https://download.pytorch.org/whl",
            id="cpu build, gpu",
        ),
        pytest.param(
            {"cuda": None, "hip": "6.4"}, lambda name: FakeDriver(),
            "torch 2.13.0 is built for AMD GPUs; install it from https://download.pytorch.org/whl", id="amd build",
        ),
        pytest.param(
            {"cuda": "13.0"}, no_library,
            "no NVIDIA driver (libcuda.so.1 is not there); with a GPU, install its driver", id="no driver",
        ),
        pytest.param({"cuda": "13.0"}, lambda name: FakeDriver(gpus=()), FAILURES[100], id="no gpu"),
        pytest.param(
            {"cuda": "13.0"}, lambda name: FakeDriver(12080),
            "torch 2.13.0 needs a driver for CUDA 13, got one for 12.8; update the driver, or install torch for CUDA "
            "12 from https://download.pytorch.org/whl",
            id="old driver",
        ),
    ],
)  # fmt: skip
def test_what_files_and_driver_can_tell_is_told_without_importing_torch(
    found: Callable[..., Any], built: dict[str, Any], library: Callable[[str], Any], why: str
) -> None:
    assert probe_torch(find=found(**built), load=library, import_torch=never) == (False, why)


@pytest.mark.parametrize(
    ("torch", "why"),
    [
        pytest.param(fake_torch(), "", id="usable"),
        pytest.param(
            fake_torch(("sm_100", "sm_120")),
            "torch 2.13.0 is built for sm_100 sm_120, got GPU of a test (compute capability 9.0); install a build for "
            "it from https://download.pytorch.org/whl",
            id="gpu too old",
        ),
        pytest.param(
            fake_torch(available=False),
            "torch 2.13.0 cannot use the GPU: it does not say why; look at nvidia-smi",
            id="torch says no",
        ),
    ],
)
def test_torch_itself_has_the_last_word(found: Callable[..., Any], torch: Any, why: str) -> None:
    answer = probe_torch(find=found("13.0"), load=lambda name: FakeDriver(), import_torch=lambda: torch)
    assert answer == (why == "", why)


@pytest.mark.parametrize(
    ("archs", "capability", "runs"),
    [
        pytest.param(["sm_80", "sm_90"], (9, 0), True, id="same"),
        pytest.param(["sm_80"], (8, 9), True, id="later minor"),
        pytest.param(["sm_86"], (8, 0), False, id="earlier minor"),
        pytest.param(["sm_80"], (9, 0), False, id="later major"),
        pytest.param(["sm_80", "compute_80"], (12, 0), True, id="compiled here"),
        pytest.param(["compute_120"], (9, 0), False, id="cannot be compiled here"),
        pytest.param(["sm_90a"], (9, 0), True, id="this one alone"),
        pytest.param(["sm_100a"], (10, 3), False, id="that one alone"),
        pytest.param(["sm_120"], (12, 1), True, id="two digits"),
        pytest.param(["gfx942"], (9, 0), False, id="nonsense"),
        pytest.param([], (9, 0), False, id="none"),
    ],
)
def test_a_build_runs_on_the_gpus_it_covers(
    archs: list[str], capability: tuple[int, int], runs: bool
) -> None:
    assert covers(archs, capability) is runs


def test_the_installed_torch_is_read_as_it_says_of_itself() -> None:
    import torch

    build = read_build(Path(torch.__file__).parent / "version.py")
    cuda = (
        None if torch.version.cuda is None else tuple(int(part) for part in torch.version.cuda.split(".")[:2])
    )
    assert build == TorchBuild(torch.__version__, cuda, torch.version.hip)


def test_a_version_file_that_cannot_be_read_is_a_build_without_cuda(tmp_path: Path) -> None:
    broken = tmp_path / "version.py"
    broken.write_text("cuda = (")
    assert (
        read_build(broken) == read_build(tmp_path / "none.py") == TorchBuild("of unknown version", None, None)
    )


@pytest.mark.gpu
def test_a_real_driver_answers_as_torch_does() -> None:
    driver, why = find_driver(ctypes.CDLL)
    if driver is None:
        pytest.skip(why)
    import torch

    assert len(driver.gpus) == torch.cuda.device_count()
    assert driver.gpus[0].capability == torch.cuda.get_device_capability(0)
