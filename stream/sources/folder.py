"""A folder of frames: images or single-frame DICOMs, one a file, in natural order of their names."""

import os
import re
from abc import abstractmethod
from dataclasses import replace
from pathlib import Path

import numpy as np

from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.sources.cine import CineSource
from stream.sources.cine_header import is_dicom, read_header
from stream.sources.codestream import Picture, picture_of
from stream.sources.options import SourceOptions
from stream.sources.picture import GrayFromColour, check_out, decode_image, frame_format, quiet_opencv, region
from stream.sources.source import Source, SourceFrame

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
_HEAD_BYTES = 1 << 16
_MAX_FILE_BYTES = 1 << 30
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND"


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts frame 2 before frame 10."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)
    )


def open_folder(path: Path, options: SourceOptions) -> Source:
    """Open a folder of images, of single-frame DICOMs, or of one DICOM cine.

    Raises:
        SourceError: Nothing to show, kinds or sizes mixed, or a file that no stream carries.
    """
    images, dicoms, passed_over = list_frames(path)
    notes = (f"{passed_over} other files of the folder are passed over.",) if passed_over else ()
    if dicoms and images:
        kinds = sorted([(natural_key(each.name), each.name) for each in (images[0], dicoms[0])])
        raise SourceError(
            f"{path.name}: a folder must hold one kind of frames, got images and DICOM files ({kinds[1][1]} is the "
            "first that differs); move one kind elsewhere"
        )
    if len(dicoms) == 1:
        source = CineSource(dicoms[0], options)
        source.notes += notes
        return source
    if dicoms:
        return DicomFolderSource(path, dicoms, options, notes)
    if images:
        return ImageFolderSource(path, images, options, notes)
    raise SourceError(
        f"{path.name}: needed a folder with {', '.join(SUFFIXES)} or DICOM files, got none; sub-folders are not "
        "looked into, name the one that holds the frames"
    )


def open_image(path: Path, options: SourceOptions) -> Source:
    """Open one image file: a recording of a single frame.

    Raises:
        SourceError: Not an image that a stream carries.
    """
    source = ImageFolderSource(path.parent, [path], options, ())
    source.kind = "image"
    return source


def list_frames(path: Path) -> tuple[list[Path], list[Path], int]:
    """A folder's images and its DICOM files, each in natural order, and how many other files it holds.

    Raises:
        SourceError: It cannot be read.
    """
    images: list[Path] = []
    dicoms: list[Path] = []
    passed_over = 0
    try:
        names = sorted(
            (entry.name for entry in os.scandir(path) if entry.is_file()),
            key=lambda name: (natural_key(name), name),
        )
        for name in names:
            file = path / name
            if name.startswith(".") or name.upper() == "DICOMDIR":
                passed_over += 1
            elif file.suffix.lower() in SUFFIXES:
                images.append(file)
            elif is_dicom(_head(file, 132)):
                dicoms.append(file)
            else:
                passed_over += 1
    except OSError as error:
        raise SourceError(f"{path.name}: the folder cannot be read: {error.strerror}") from None
    return images, dicoms, passed_over


def _head(file: Path, size: int) -> bytes:
    with file.open("rb", buffering=0) as opened:
        return opened.read(size) or b""


class _FolderSource(Source):
    """What both kinds of folder share: the list, the rate, the position."""

    kind = "folder"

    def __init__(self, path: Path, files: list[Path], options: SourceOptions, notes: tuple[str, ...]) -> None:
        self._files = files
        self._options = options
        self._next = 0
        self.frame_count = len(files)
        self.notes = notes
        self.rate_hz = options.rate_hz
        self.format = self._checked_format()
        if options.rate_hz is None and len(files) > 1 and not options.untimed:
            raise SourceError(
                f"{path.name}: {len(files)} frames in a folder need a rate, since files say nothing of time; give "
                "--rate, for example --rate 15"
            )

    @abstractmethod
    def _checked_format(self) -> FrameFormat:
        """The format of every file; raises for the first that differs."""

    @abstractmethod
    def _read_file(self, file: Path, out: np.ndarray) -> None:
        """Write one file's stored pixel values into `out`."""

    def read(self, out: np.ndarray) -> SourceFrame | None:
        check_out(out, self.format)
        if self._next >= len(self._files):
            return None
        file = self._files[self._next]
        self._next += 1
        try:
            self._read_file(file, out)
        except OSError as error:
            raise SourceError(f"{file.name}: the frame cannot be read: {error.strerror}") from None
        return SourceFrame()

    def skip(self) -> bool:
        if self._next >= len(self._files):
            return False
        self._next += 1
        return True

    def rewind(self) -> None:
        self._next = 0


class ImageFolderSource(_FolderSource):
    """PNG, JPEG, BMP or TIFF files of one size and depth, decoded as they are asked for."""

    def _checked_format(self) -> FrameFormat:
        quiet_opencv()
        first: Picture | None = None
        colours = 0
        for file in self._files:
            picture = _picture(file)
            depth = 8 if picture.bits <= 8 else 16
            picture = replace(picture, bits=depth)
            if first is None:
                first = picture
            if (picture.rows, picture.columns, depth) != (first.rows, first.columns, first.bits):
                raise SourceError(
                    f"{file.name}: all frames of a folder must be like the first, {first.columns}x{first.rows} pixels "
                    f"of {first.bits} bits, got {picture.columns}x{picture.rows} of {depth}; move it elsewhere"
                )
            colours += picture.channels == 3
        assert first is not None  # open_folder passes at least one file
        if colours:
            verb = "their luma is taken" if self._options.gray else "their channels are checked to be equal"
            self.notes += (f"{colours} of {len(self._files)} images are stored with three channels; {verb}.",)
        bits = 8
        if first.bits == 16:
            bits = self._options.bits or 16
            if self._options.bits is None:
                self.notes += (
                    "16-bit images do not say how many bits are stored; 16 are assumed, --bits says fewer.",
                )
        self._gray = GrayFromColour(self._files[0].parent.name, self._options.gray)
        return frame_format(
            self._files[0].name, first.rows, first.columns, self._options.crop, bits_stored=bits
        )

    def _read_file(self, file: Path, out: np.ndarray) -> None:
        import cv2

        data = file.read_bytes()
        _check_end(file, data)
        picture = picture_of(data)
        if picture is None:
            raise SourceError(f"{file.name}: the image is damaged; was it changed while open?")
        flags = cv2.IMREAD_COLOR if picture.channels == 3 else cv2.IMREAD_GRAYSCALE | cv2.IMREAD_ANYDEPTH
        decoded = decode_image(np.frombuffer(data, np.uint8), flags | cv2.IMREAD_IGNORE_ORIENTATION)
        if decoded is None:
            raise SourceError(f"{file.name}: the image cannot be decoded; it is damaged, save it again")
        part = region(decoded, self._options.crop)
        if part.shape[:2] != out.shape or part.dtype != out.dtype:
            raise SourceError(
                f"{file.name}: needed {out.shape[1]}x{out.shape[0]} pixels of {out.dtype}, got {part.shape[1]}x"
                f"{part.shape[0]} of {part.dtype}; was it changed while open?"
            )
        if part.ndim == 3:
            self._gray.write(part, out, f" in {file.name}")
            return
        if self.format.bits_stored in range(9, 16) and int(part.max()) > self.format.max_value:
            raise SourceError(
                f"{file.name}: values must be at most {self.format.max_value} for --bits {self.format.bits_stored}, got "
                f"{int(part.max())}; give more bits"
            )
        np.copyto(out, part)


class DicomFolderSource(_FolderSource):
    """Single-frame DICOM files of one format, each opened when its frame is asked for."""

    def _checked_format(self) -> FrameFormat:
        formats: list[FrameFormat] = []
        for file in self._files:
            with file.open("rb") as opened:
                header, data = read_header(file.name, opened)
                if data is not opened:
                    data.close()
            if header.frames > 1:
                raise SourceError(
                    f"{file.name}: a folder holds single frames or one cine, got a cine of {header.frames} frames "
                    f"among {len(self._files)} DICOM files; name the cine itself"
                )
            found = frame_format(
                file.name,
                header.rows,
                header.columns,
                self._options.crop,
                bits_stored=header.bits_stored,
                photometric=header.photometric,
                window=header.window,
            )
            formats = formats or [found]
            wanted = formats[0]
            if replace(found, window_center=wanted.window_center, window_width=wanted.window_width) != wanted:
                raise SourceError(
                    f"{file.name}: all frames of a folder must be like the first, {_named(wanted)}, got {_named(found)}; "
                    "move it elsewhere"
                )
        return formats[0]

    def _read_file(self, file: Path, out: np.ndarray) -> None:
        frame = CineSource(file, self._options)
        try:
            frame.read(out)
        finally:
            frame.close()


def _named(found: FrameFormat) -> str:
    return f"{found.columns}x{found.rows} pixels of {found.bits_stored} bits {found.photometric.name}"


def _picture(file: Path) -> Picture:
    try:
        head = _head(file, _HEAD_BYTES)
        picture = picture_of(head)
        if picture is None and os.stat(file).st_size <= _MAX_FILE_BYTES:
            picture = picture_of(file.read_bytes())
    except OSError as error:
        raise SourceError(f"{file.name}: the image cannot be read: {error.strerror}") from None
    if picture is None:
        raise SourceError(
            f"{file.name}: needed a PNG, JPEG, BMP or TIFF image, got something else or a damaged one"
        )
    if picture.channels not in (1, 3) or picture.bits > 16 or (picture.channels == 3 and picture.bits > 8):
        raise SourceError(
            f"{file.name}: images must be gray of 8 or 16 bits, or gray stored as 8-bit RGB, got {picture}; convert "
            "them"
        )
    return picture


def _check_end(file: Path, data: bytes) -> None:
    """Refuse an image that is cut off, which decoders fill up with gray without a word."""
    end = _JPEG_END if data.startswith(_JPEG_END[:1]) else _PNG_END if data.startswith(b"\x89PNG") else b""
    if end not in data[-4096:]:
        raise SourceError(f"{file.name}: the image ends too early; it is cut off, copy it again")
