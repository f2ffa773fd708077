"""The int8 model of a site: derived from a source model and the site's frames, kept, and found again.

It lies in ~/.cache/contrastream/int8 as one file, `KEY.int8`: a hash of what follows, a line of JSON with everything
that it was made for, then OpenVINO's two parts. Reading it needs no NNCF; making it (`quantize.py`) does. Unlike a
plan it cannot be made anew at a start, since the site's frames are not there then: what is missing is an error.
"""

import dataclasses
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from engines.cache_folder import cache_folder, locked, write_whole
from engines.errors import EngineError
from engines.plan_facts import short_hash

FORMAT = "contrastream.int8/1"
LOST = "int8 models are not kept, so int8 cannot be used"
KEPT = 16
"""Models kept, of all sites together; above it those longest unmade go first. One is about 1 to 13 MB."""
DERIVING = ("int8.py", "quantize.py")
VECTOR_INT8 = ("avx512_vnni", "avx_vnni", "amx_int8")
"""CPU flags of int8 multiplication that adds into 32 bits. Without them sums of two products saturate at 16 bits, so the
model has weights of half the range, and is another one."""


@dataclass(frozen=True)
class Int8Key:
    """Everything that an int8 model was made for. Another value of any of them needs another."""

    model_sha256: str
    """The source model's name."""
    version: str
    """OpenVINO's, in full."""
    wide_sums: bool
    """Whether the CPU has one of `VECTOR_INT8`."""
    frames_sha256: str
    """Of the site's frames and its grey-level table, by `frames_sha256`."""
    recipe: str
    """Hash of our own code that makes it."""

    @property
    def name(self) -> str:
        """Its file's name without the ending."""
        return f"{self.model_sha256[:12]}-{short_hash(json.dumps(dataclasses.asdict(self), sort_keys=True))}"


@dataclass(frozen=True)
class Int8Model:
    """OpenVINO's two parts of a quantised model."""

    xml: bytes
    weights: bytes
    nncf: str
    """The version of NNCF that made it."""
    quantised: int
    """Convolutions in int8."""
    convolutions: int
    """Of how many in all."""


def int8_key(model_sha256: str, version: str, frames_hash: str) -> Int8Key:
    """The key of a model on this machine.

    Args:
        model_sha256: The source model's name.
        version: OpenVINO's.
        frames_hash: What it was calibrated on.
    """
    return Int8Key(model_sha256, version, has_wide_sums(), frames_hash, recipe())


def has_wide_sums(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether this CPU multiplies int8 without saturating; False where nothing is known of it."""
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return False
    return not set(VECTOR_INT8).isdisjoint(flags.split())


def frames_sha256(frames: Sequence[np.ndarray], table: Float32[np.ndarray, "256"]) -> str:
    """A hash of what a model is calibrated on: the frames in their order, and the grey levels they become."""
    digest = hashlib.sha256(table.astype("<f4").tobytes())
    for frame in frames:
        digest.update(f"{frame.shape} {frame.dtype.itemsize}".encode())
        digest.update(np.ascontiguousarray(frame).astype(f"<u{frame.dtype.itemsize}", copy=False).tobytes())
    return digest.hexdigest()


def recipe() -> str:
    """The hash of our own code between a source model and its int8 form."""
    digest = hashlib.sha256()
    for name in DERIVING:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:12]


def read_int8(key: Int8Key) -> Int8Model:
    """The model of this key, as it is kept.

    Raises:
        EngineError: There is none, or what is there is not whole; says what to do.
    """
    folder = cache_folder("int8", LOST)
    again = "run: contrastream calib precision"
    if folder is None:
        raise EngineError(f"needed the site's int8 model, but there is no folder for it here; {again}")
    path = folder / f"{key.name}.int8"
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise EngineError(
            f"needed the int8 model that this site's frames gave with OpenVINO {key.version} on this kind of CPU, found none "
            f"in {folder}; {again} again on this machine, or take another precision"
        ) from None
    except OSError as error:
        raise EngineError(f"the int8 model {path} cannot be read: {error.strerror}; {again} again") from error
    try:
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("it was cut off or changed")
        head, _, rest = content[32:].partition(b"\n")
        facts = json.loads(head)
        if facts["format"] != FORMAT or Int8Key(**facts["key"]) != key:
            raise ValueError("it is of something else")
        size = int(facts["xml_bytes"])
        return Int8Model(
            rest[:size], rest[size:], facts["nncf"], int(facts["quantised"]), int(facts["convolutions"])
        )
    except (ValueError, KeyError, TypeError) as error:
        raise EngineError(f"the int8 model {path.name} cannot be used: {error}; {again} again") from error


def keep_int8(key: Int8Key, made: Int8Model) -> Path:
    """Keep a model for the next start; whole or not at all.

    Raises:
        EngineError: It cannot be written.
    """
    folder = cache_folder("int8", LOST)
    if folder is None:
        raise EngineError("int8 needs a folder of this user's own to be kept in; set XDG_CACHE_HOME")
    facts = {
        "format": FORMAT,
        "key": dataclasses.asdict(key),
        "nncf": made.nncf,
        "quantised": made.quantised,
        "convolutions": made.convolutions,
        "xml_bytes": len(made.xml),
    }
    content = json.dumps(facts).encode() + b"\n" + made.xml + made.weights
    path = folder / f"{key.name}.int8"
    try:
        with locked(path):
            write_whole(path, hashlib.sha256(content).digest() + content)
            older = sorted(folder.glob("*.int8"), key=lambda each: each.stat().st_mtime_ns, reverse=True)
            for each in older[KEPT:]:
                each.unlink(missing_ok=True)
    except OSError as error:
        raise EngineError(
            f"the int8 model cannot be kept in {folder}: {error.strerror}; make room"
        ) from error
    logging.getLogger(__name__).info("int8 model kept: %s", path)
    return path
