"""What lies in a folder of X-ray pictures: cine runs and whose they are, found without decoding a picture.

Three layouts, also mixed: XCAD's (trainB, trainC, test), folders of images with one folder per run
(Patient_x/Run_y/frame_0.jpg), and DICOM files. Everything is read as coming from outside: sizes are checked
before a picture is decoded, links must stay inside, and of a DICOM header only what the pixels need is read.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16

from casgan.archive_files import (
    dicom_frames,
    dicom_header,
    image_head,
    image_pixels,
    is_dicom,
    natural_key,
    patient_label,
)
from casgan.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MASK_FOLDERS = frozenset({"segmentedframes", "masks", "mask", "labels", "label", "gt", "groundtruth"})
XCAD_BLOCKS = 5
"""XCAD names no patients: each of its two folders is cut into this many blocks of neighbouring files."""
MAX_RUN_BYTES = 1 << 31
"""Most bytes of one decoded run that `Run.frames` holds at once."""

_MASK_NAME = re.compile(r"[_-](gt|mask|label)$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"[ _.-]*\(?\d+\)?$")

Pixels = UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]


@dataclass(frozen=True)
class Run:
    """One cine run, or one picture of a set without runs. Frames are read when asked for."""

    patient: str
    """Who: the name of a folder, or a label that stands for a DICOM PatientID without telling it."""
    name: str
    """Which run; unique in its archive."""
    paths: tuple[Path, ...]
    """Its images in order, or its one DICOM file."""
    count: int
    """Frames."""
    rows: int
    columns: int
    bits_stored: int
    """8 to 16."""
    inverted: bool = False
    """True for MONOCHROME1: the lowest stored value is white."""
    dicom: bool = False
    domain: str | None = None
    """"plain" or "filled" where the layout says so, None where the pictures have to tell."""

    def pictures(self) -> Iterator[Pixels]:
        """Its frames one by one, stored pixel values.

        Raises:
            DataError: A frame cannot be read or is not of the run's size; names the file.
        """
        decoded = dicom_frames(self.paths[0]) if self.dicom else map(image_pixels, self.paths)
        at = -1
        for at, picture in enumerate(decoded):
            if picture.shape != (self.rows, self.columns):
                raise DataError(
                    f"{self.paths[0 if self.dicom else at].name}: frame {at} of run {self.name} must be {self.rows} "
                    f"rows x {self.columns} columns, got {picture.shape}; the file was changed or is damaged"
                )
            yield picture
        if at + 1 != self.count:
            raise DataError(
                f"{self.paths[0].name}: run {self.name} must have {self.count} frames, got {at + 1}; the file is damaged"
            )

    def frames(self) -> UInt8[np.ndarray, "n h w"] | UInt16[np.ndarray, "n h w"]:
        """All its frames, stored pixel values; a new array.

        Raises:
            DataError: As `pictures`, or the run does not fit into `MAX_RUN_BYTES`.
        """
        wide = 1 if self.bits_stored == 8 else 2
        if self.count * self.rows * self.columns * wide > MAX_RUN_BYTES:
            raise DataError(
                f"{self.paths[0].name}: run {self.name} must decode to at most {MAX_RUN_BYTES >> 20} MiB, got "
                f"{self.count} frames of {self.rows} x {self.columns}; read it frame by frame"
            )
        out = np.empty((self.count, self.rows, self.columns), np.uint8 if wide == 1 else np.uint16)
        for index, picture in enumerate(self.pictures()):
            out[index] = picture
        return out


@dataclass(frozen=True)
class Archive:
    """The runs of a folder."""

    folder: Path
    runs: tuple[Run, ...]
    annotated: tuple[tuple[Path, Path], ...] = ()
    """XCAD's test set: pairs of an image and its vessel mask. Not for teaching CAS-GAN."""
    notes: tuple[str, ...] = field(default=())
    """What a person should know: what was passed over, and where patients are not known."""

    @property
    def patients(self) -> tuple[str, ...]:
        """The patients, in natural order."""
        return tuple(sorted({run.patient for run in self.runs}, key=natural_key))


def read_archive(folder: Path) -> Archive:
    """Find the runs of a folder; decodes no picture.

    A folder of images is one run; the patient is the first folder below `folder`, or, for images that lie
    in `folder` itself, what their names say. A DICOM file is a run; its patient is told apart by PatientID,
    which is hashed at once and neither kept nor shown, and where that is empty by the first folder.
    `trainB` and `trainC` are XCAD's filled and contrast-free frames. Folders and files of masks are passed
    over, and so is what is no picture.

    Raises:
        DataError: No folder, nothing in it to learn from, or a file that cannot be used; names the file.
    """
    if not folder.is_dir():
        raise DataError(
            f"{folder}: needed a folder of cine runs, got {_kind(folder)}; name the folder itself"
        )
    root = folder.resolve()
    notes: list[str] = []
    listing = _listing(root, notes)
    runs, annotated = _xcad_runs(root, listing, notes)
    dicoms: list[Path] = []
    for place, files in listing.items():
        images = [file for file in files if file.suffix.lower() in SUFFIXES]
        dicoms += [file for file in files if file.suffix.lower() not in SUFFIXES]
        if images:
            runs += _image_runs(root, place, images)
    runs += _dicom_runs(root, dicoms)
    if not runs:
        raise DataError(
            f"{folder}: needed cine runs ({', '.join(SUFFIXES)} or DICOM files, or XCAD's trainB and trainC), got "
            "none; name the folder that holds the patients' folders"
        )
    _check_names(runs)
    runs.sort(key=lambda run: (natural_key(run.patient), natural_key(run.name)))
    return Archive(folder, tuple(runs), tuple(annotated), tuple(notes))


def _kind(path: Path) -> str:
    return "a file" if path.exists() else "nothing there"


def _listing(root: Path, notes: list[str]) -> dict[Path, list[Path]]:
    """The usable files of each folder, in natural order; links that leave `root` are refused."""
    found: dict[Path, list[Path]] = {}
    masks = others = 0

    def refused(error: OSError) -> None:
        raise DataError(f"{error.filename}: the folder cannot be read: {error.strerror}; give access to it")

    for here, folders, names in os.walk(root, onerror=refused):
        place = Path(here)
        for name in folders + names:
            if (place / name).is_symlink() and not (place / name).resolve().is_relative_to(root):
                raise DataError(
                    f"{(place / name).relative_to(root)}: a link must stay inside {root.name}, this one leads out of "
                    "it; copy what it names or remove it"
                )
        folders[:] = sorted((name for name in folders if not name.startswith(".")), key=natural_key)
        test_masks = place.name.lower() == "test" and "images" in folders
        kept = [name for name in folders if name.lower() not in MASK_FOLDERS or test_masks]
        masks += len(folders) - len(kept)
        folders[:] = kept
        files: list[Path] = []
        for name in sorted(names, key=natural_key):
            file = place / name
            if name.startswith(".") or not file.is_file():
                others += 1
            elif file.suffix.lower() in SUFFIXES:
                if _MASK_NAME.search(file.stem):
                    masks += 1
                else:
                    files.append(file)
            elif name.upper() != "DICOMDIR" and is_dicom(file):
                files.append(file)
            else:
                others += 1
        if files:
            found[place] = files
    if masks:
        notes.append(f"{masks} folders or files of masks are passed over")
    if others:
        notes.append(f"{others} files that are no pictures are passed over")
    return found


def _xcad_runs(
    root: Path, listing: dict[Path, list[Path]], notes: list[str]
) -> tuple[list[Run], list[tuple[Path, Path]]]:
    """XCAD's pictures, each a run of its own; what belongs to its layout is taken out of the listing."""
    runs: list[Run] = []
    annotated: list[tuple[Path, Path]] = []
    homes = {place.parent for place in listing if place.name in ("trainB", "trainC")}
    for home in sorted(homes):
        listing.pop(home / "trainA", None)
        sides = [(home / name, listing.pop(home / name, [])) for name in ("trainB", "trainC")]
        missing = [place.name for place, files in sides if not files]
        if missing:
            raise DataError(
                f"{home}: XCAD's layout needs trainB (filled) and trainC (contrast-free), got no pictures in "
                f"{missing[0]}; add them"
            )
        where = "" if home == root else f"{home.relative_to(root)}/"
        groups = [{_stem_of(file) for file in files} for _, files in sides]
        named = all(len(stems) > 1 for stems in groups)
        if not named:
            notes.append(
                f"{where or 'this folder'}: XCAD's names tell no patients, so train and test are split by blocks of "
                "neighbouring files; that frames of one patient do not lie in both cannot be proved"
            )
        for (place, files), domain in zip(sides, ("filled", "plain"), strict=True):
            for index, file in enumerate(files):
                block = f"block {index * XCAD_BLOCKS // len(files) + 1}"
                patient = where + (_stem_of(file) if named else block)
                runs.append(_image_run(patient, f"{where}{place.name}/{file.stem}", [file], domain))
        for base in {home, home.parent} if home != root else {home}:
            images, masks = (
                listing.pop(base / "test" / "images", []),
                listing.pop(base / "test" / "masks", []),
            )
            of_stem = {file.stem: file for file in masks}
            annotated += [(file, of_stem[file.stem]) for file in images if file.stem in of_stem]
    return runs, annotated


def _stem_of(file: Path) -> str:
    """A file's name without its last number: what the frames of one run share."""
    return _LAST_NUMBER.sub("", file.stem) or file.parent.name


def _image_run(patient: str, name: str, files: list[Path], domain: str | None = None) -> Run:
    heads = [image_head(file) for file in files]
    for file, head in zip(files, heads, strict=True):
        if head != heads[0]:
            raise DataError(
                f"{file.name}: the frames of run {name} must be of one size and depth, {heads[0]}, got {head}; put "
                "each run into a folder of its own"
            )
    first = heads[0]
    bits = 8 if first.bits == 8 else 16
    return Run(patient, name, tuple(files), len(files), first.rows, first.columns, bits, domain=domain)


def _image_runs(root: Path, place: Path, images: list[Path]) -> list[Run]:
    parts = place.relative_to(root).parts
    if parts:
        return [_image_run(parts[0], _run_name(parts), images)]
    # Loose images: 14_002_5_0016.bmp is frame 16 of run 14_002_5, whose patient is 14_002.
    groups: dict[str, list[Path]] = {}
    for file in images:
        groups.setdefault(_stem_of(file), []).append(file)
    return [_image_run(_LAST_NUMBER.sub("", stem) or stem, stem, files) for stem, files in groups.items()]


def _run_name(parts: tuple[str, ...]) -> str:
    """Patient_1/Coro_2/frames is run Patient_1/Coro_2."""
    return "/".join(parts[:-1] if len(parts) > 1 and parts[-1].lower() in ("frames", "images") else parts)


def _dicom_runs(root: Path, files: list[Path]) -> list[Run]:
    headers = [(file, dicom_header(file)) for file in files]
    runs = []
    for file, header in headers:
        parts = file.relative_to(root).parts[:-1]
        if header.patient:
            patient = patient_label(
                header.patient, [other.instance for _, other in headers if other.patient == header.patient]
            )
        elif parts:
            patient = parts[0]
        else:
            raise DataError(
                f"{file.name}: its PatientID is empty, so its patient is not known; put each patient's files into a "
                "folder of their own"
            )
        runs.append(
            Run(
                patient,
                str(file.relative_to(root)),
                (file,),
                header.frames,
                header.rows,
                header.columns,
                header.bits_stored,
                header.inverted,
                dicom=True,
            )
        )
    return runs


def _check_names(runs: list[Run]) -> None:
    seen: set[str] = set()
    for run in runs:
        if run.name in seen:
            raise DataError(f"two runs are called {run.name}; rename one of their folders")
        seen.add(run.name)
