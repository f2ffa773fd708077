"""DICOM cine loops and single frames: XA, RF, Enhanced XA/XRF, secondary capture, any kept transfer syntax."""

import contextlib
import os
from pathlib import Path
from typing import Any

import numpy as np

from stream.errors import SourceError
from stream.sources.cine_frames import encapsulated_index, native_index
from stream.sources.cine_header import CineHeader, hushed, read_header
from stream.sources.codestream import picture_of
from stream.sources.options import SourceOptions
from stream.sources.picture import check_out, decode_image, frame_format, region
from stream.sources.source import Source, SourceFrame

_RLE = "1.2.840.10008.1.2.5"
_JPEG_LOSSLESS = ("1.2.840.10008.1.2.4.57", "1.2.840.10008.1.2.4.70")
_ITEM_HEAD = b"\xfe\xff\x00\xe0"
_EMPTY_OFFSET_TABLE = _ITEM_HEAD + bytes(4)


class CineSource(Source):
    """The frames of one DICOM file, read and decoded one by one as they are asked for.

    Stored pixel values are delivered as they are: neither MONOCHROME1 nor the Modality LUT is applied. Bits
    above Bits Stored (old overlays, PS3.5 8.1.1) are cleared; signed values are shifted up to start at 0.

    Args:
        path: The file.
        options: `rate_hz` overrides the header's timing; `crop` is applied.

    Raises:
        SourceError: Not readable as frames, or a cine without timing and without `rate_hz`.
    """

    kind = "cine"

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._name = path.name
        self._crop = options.crop
        self._files = contextlib.ExitStack()
        try:
            file = self._files.enter_context(path.open("rb"))
            self._header, data = read_header(self._name, file)
            if data is not file:
                self._files.enter_context(data)
            self._descriptor = data.fileno()
            self._open(options)
        except OSError as error:
            self._files.close()
            raise SourceError(f"{self._name}: the file cannot be read: {error.strerror}") from None
        except BaseException:
            self._files.close()
            raise

    def _open(self, options: SourceOptions) -> None:
        header = self._header
        self.format = frame_format(
            self._name,
            header.rows,
            header.columns,
            options.crop,
            bits_stored=header.bits_stored,
            photometric=header.photometric,
            window=header.window,
        )
        file_bytes = os.fstat(self._descriptor).st_size
        if header.encapsulated:
            self._index = encapsulated_index(
                self._name,
                self._descriptor,
                header.pixel_offset,
                header.frames,
                file_bytes,
                header.extended_offsets,
            )
        else:
            self._index = native_index(
                self._name, header.pixel_offset, header.frame_bytes, header.frames, file_bytes
            )
        self._decoder: Any = None
        self._turbo = header.transfer_syntax in _JPEG_LOSSLESS and header.bits_allocated == 8
        self._whole: np.ndarray | None = None
        self._next = 0
        # A codec that does not know this variety is found when opening; the picture is kept for the first read.
        self._first = self._decode(0) if header.encapsulated else None
        self.frame_count = header.frames
        self.notes = header.notes
        self.device = header.device
        self.angles_deg = header.angles_deg
        # A crop leaves a pixel's size alone, and what a whole field measures says nothing of a part of it.
        self.sizes = {
            name: size
            for name, size in header.sizes.items()
            if options.crop is None or name != "field_of_view_mm"
        }
        self.rate_hz = header.timing.rate_hz if options.rate_hz is None else options.rate_hz
        self._retimed = options.rate_hz is not None
        if self.rate_hz is None and header.frames > 1 and not options.untimed:
            raise SourceError(
                f"{self._name}: {header.frames} frames need a rate, but the header holds no frame time, cine rate or "
                "frame stamps; give --rate, for example --rate 15"
            )

    def interval_ms(self, index: int) -> float | None:
        if self._retimed:
            return super().interval_ms(index)
        return self._header.timing.interval_ms(index)

    def read(self, out: np.ndarray) -> SourceFrame | None:
        check_out(out, self.format)
        if self._next >= len(self._index):
            return None
        index = self._next
        self._next += 1  # a frame that cannot be decoded is passed over by the next read
        header = self._header
        if header.encapsulated:
            picture = self._first if index == 0 and self._first is not None else self._decode(index)
            self._first = None
            self._finish(picture, out)
        elif self._crop is None and header.little_endian and header.bits_allocated == out.itemsize * 8:
            self._pread(index, out.reshape(-1).view(np.uint8).data)
            self._finish(out, out)
        else:
            if self._whole is None:
                self._whole = np.empty(
                    (header.rows, header.columns), np.uint8 if header.bits_allocated == 8 else np.uint16
                )
            self._pread(index, self._whole.reshape(-1).view(np.uint8).data)
            if not header.little_endian:
                self._to_little_endian(self._whole)
            self._finish(self._whole, out)
        return SourceFrame()

    def skip(self) -> bool:
        if self._next >= len(self._index):
            return False
        self._next += 1
        return True

    def rewind(self) -> None:
        self._next = 0

    def close(self) -> None:
        self._files.close()

    def _pread(self, index: int, into: memoryview) -> None:
        """Read frame `index`'s bytes as they lie in the file."""
        start = self._index.starts[index]
        done = 0
        while done < len(into):
            count = os.preadv(self._descriptor, [into[done:]], start + done)
            if count <= 0:
                raise SourceError(
                    f"{self._name}: the file ends inside frame {index}; was it changed while open?"
                )
            done += count

    def _to_little_endian(self, whole: np.ndarray) -> None:
        # PS3.5 8.1.2 (retired): 8-bit samples in OW are packed two to a big-endian word
        if whole.itemsize == 2:
            whole.byteswap(inplace=True)
        elif self._header.pixel_vr == "OW":
            if whole.size % 2:
                raise SourceError(
                    f"{self._name}: big-endian words need an even number of pixels; convert the file"
                )
            whole.reshape(-1).view(np.uint16).byteswap(inplace=True)

    def _decode(self, index: int) -> np.ndarray:
        """Decode one compressed frame into the decoder's own (rows, columns) array."""
        size = self._index.ends[index] - self._index.starts[index]
        # An empty basic offset table before the frame's own items makes one frame's pixel data (PS3.5 A.4).
        coded = bytearray(len(_EMPTY_OFFSET_TABLE) + size)
        coded[: len(_EMPTY_OFFSET_TABLE)] = _EMPTY_OFFSET_TABLE
        view = memoryview(coded)
        self._pread(index, view[len(_EMPTY_OFFSET_TABLE) :])
        codestream = view[len(_EMPTY_OFFSET_TABLE) + 8 :]
        if self._header.transfer_syntax != _RLE:
            self._check_claim(codestream, index)
        if self._turbo and self._index.fragments[index] == 1:
            picture = self._decode_turbo(codestream)
            if picture is not None:
                return picture
            self._turbo = (
                False  # this build of OpenCV has a libjpeg without lossless; pylibjpeg reads the same pixels
            )
        return self._decode_pydicom(coded, index)

    def _check_claim(self, codestream: memoryview, index: int) -> None:
        """Refuse a codestream of another size before a decoder allocates what it claims."""
        picture = picture_of(codestream)
        header = self._header
        if picture is None:
            raise SourceError(
                f"{self._name}: frame {index} is no image of the transfer syntax's kind; it is damaged"
            )
        if (picture.rows, picture.columns, picture.channels) != (header.rows, header.columns, 1):
            raise SourceError(
                f"{self._name}: frame {index} must be {header.columns}x{header.rows} gray as the header says, got "
                f"{picture}; the file is damaged"
            )

    @staticmethod
    def _decode_turbo(codestream: memoryview) -> np.ndarray | None:
        """8-bit JPEG Lossless by OpenCV's libjpeg-turbo: the same pixels as pylibjpeg's in a sixth of the time."""
        import cv2

        if b"\xff\xd9" not in bytes(
            codestream[-3:]
        ):  # libjpeg-turbo fills a stream that ends early with gray
            return None
        picture = decode_image(np.frombuffer(codestream, np.uint8), cv2.IMREAD_UNCHANGED)
        return picture if picture is not None and picture.dtype == np.uint8 and picture.ndim == 2 else None

    def _decode_pydicom(self, coded: bytearray, index: int) -> np.ndarray:
        from pydicom.pixels import get_decoder

        header = self._header
        if self._decoder is None:
            self._decoder = get_decoder(header.transfer_syntax)
        with hushed():
            try:
                picture, _ = self._decoder.as_array(
                    coded,
                    index=0,
                    raw=True,
                    validate=True,
                    rows=header.rows,
                    columns=header.columns,
                    number_of_frames=1,
                    samples_per_pixel=1,
                    photometric_interpretation=header.photometric.name,
                    bits_allocated=header.bits_allocated,
                    bits_stored=header.bits_stored,
                    pixel_representation=int(header.signed),
                    pixel_keyword="PixelData",
                    correct_unused_bits=False,
                    apply_j2k_sign_correction=False,
                    apply_jls_sign_correction=False,
                )
            except Exception:
                picture = None
        if picture is None or picture.shape != (header.rows, header.columns) or picture.itemsize > 2:
            raise SourceError(
                f"{self._name}: frame {index} cannot be decoded by the codecs kept here ({_syntax_name(header)}); it is "
                "damaged or of a variety they do not know: convert the file with another tool"
            )
        decoded: np.ndarray = picture
        return decoded

    def _finish(self, picture: np.ndarray, out: np.ndarray) -> None:
        """Crop, bring the stored bits down to bit 0, clear the others, shift signed values up.

        PS3.5 8.1.1: only the bits from High Bit down to High Bit - Bits Stored + 1 are pixel values.
        """
        header = self._header
        picture = picture.view(np.uint8 if picture.itemsize == 1 else np.uint16)
        part = region(picture, self._crop) if picture is not out else out
        low_bit = header.high_bit + 1 - header.bits_stored
        if low_bit:
            np.right_shift(part, low_bit, out=part)
        if header.bits_allocated > header.bits_stored:
            np.bitwise_and(part, self.format.max_value, out=out, casting="unsafe")
        elif part is not out:
            np.copyto(out, part)
        if header.signed:
            np.bitwise_xor(out, 1 << (header.bits_stored - 1), out=out, casting="unsafe")


def _syntax_name(header: CineHeader) -> str:
    from pydicom.uid import UID

    return str(UID(header.transfer_syntax).name)
