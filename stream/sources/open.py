"""`open_source()`: from what a person names to a source. The only file that knows every kind."""

import importlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from stream.errors import SourceError
from stream.sources.options import SourceOptions
from stream.sources.source import Source

KINDS = "phantom, v4l2:0, rtsp://host/path, tcp://host:port, gst:PIPELINE, igtl://host:18944/Device, a DICOM file, a video file, an image, a folder of frames or python:module:Class"
LIVE = ("v4l2:", "rtsp:", "tcp:", "gst:", "igtl:")
"""How the names of sources begin that set their own pace and have no end."""
_IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")


def open_source(spec: str, options: SourceOptions | None = None) -> Source:
    """Open the source that `spec` names.

    Files are told apart by their content, not their names: a playlist or a script that a video library would
    follow is no video here.

    Args:
        spec: `phantom`, `v4l2:0`, `v4l2:/dev/video0`, `rtsp://host/path`, `tcp://host:port` (MPEG-TS), `gst:PIPELINE`,
            `igtl://host:18944/Device`, the path of a DICOM file, a video file, an image or a
            folder, or `python:module:Class` for a `Source` of your own, which is called with the options.
        options: What was asked of it.

    Raises:
        SourceError: Missing, unreadable, or of no kind that is known; the sentence says what to do.
    """
    options = options or SourceOptions()
    if spec == "phantom":
        return _open_phantom(options)
    if spec.startswith("v4l2:"):
        from stream.sources.device import open_device

        return open_device(spec.removeprefix("v4l2:"), options)
    if spec.startswith("igtl:"):
        try:
            from stream.sources.igtl import IgtlSource
        except ModuleNotFoundError as error:
            raise SourceError(
                f"{spec}: OpenIGTLink needs the package {error.name}, which is not installed; run: pip install -e '.[slicer]'"
            ) from None

        return IgtlSource(spec, options)
    if spec.partition("://")[0] in ("rtsp", "tcp", "udp", "rtp", "srt", "rtsps"):
        from stream.sources.network import open_network

        return open_network(spec, options)
    if spec.startswith("gst:"):
        from stream.sources.gstreamer import open_gstreamer

        return open_gstreamer(spec.removeprefix("gst:").strip(), options)
    if spec.startswith("python:"):
        return _open_python(spec, options)
    path = Path(spec)
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a path"
        raise SourceError(f"{spec}: needed {KINDS}, but this cannot be opened: {reason}") from None
    if stat.S_ISDIR(mode):
        from stream.sources.folder import open_folder

        return open_folder(Path(os.path.abspath(path)), options)
    if stat.S_ISCHR(mode) and str(path).startswith("/dev/video"):
        raise SourceError(f"{spec}: a capture device is named v4l2:{spec}")
    if not stat.S_ISREG(mode):
        raise SourceError(f"{spec}: needed {KINDS}, got a pipe, socket or device; name a regular file")
    return _open_file(path, options)


def _open_python(spec: str, options: SourceOptions) -> Source:
    module_name, _, class_name = spec.removeprefix("python:").partition(":")
    try:
        kind = getattr(importlib.import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SourceError(
            f"{spec}: needed python:module:Class with a module that can be imported from here, got {error}"
        ) from None
    if not (isinstance(kind, type) and issubclass(kind, Source)):
        raise SourceError(f"{spec}: needed a subclass of stream.sources.source.Source, got {kind!r}")
    make = cast(Callable[[SourceOptions], Source], kind)
    return make(options)


def _open_file(path: Path, options: SourceOptions) -> Source:
    from stream.sources.cine_header import is_dicom
    from stream.sources.codestream import picture_of

    try:
        with path.open("rb") as file:
            head = file.read(1 << 16)
    except OSError as error:
        raise SourceError(f"{path.name}: the file cannot be read: {error.strerror}") from None
    if not head:
        raise SourceError(f"{path.name}: needed {KINDS}, got an empty file; copy it again")
    if is_dicom(head):
        from stream.sources.cine import CineSource

        return CineSource(path, options)
    if path.suffix.lower() in (".dcm", ".dicom", ".ima"):
        raise SourceError(f"{path.name}: needed a DICOM file (DICM after 128 bytes), got something else")
    from stream.sources.video import VideoSource, is_video

    if is_video(head):
        return VideoSource(path, options)
    if picture_of(head) is not None or path.suffix.lower() in _IMAGES:
        from stream.sources.folder import open_image

        return open_image(path, options)
    raise SourceError(
        f"{path.name}: needed {KINDS}, got a file of another kind; not a DICOM, and not MP4, AVI, Matroska, MPEG or ASF"
    )


def _open_phantom(options: SourceOptions) -> Source:
    from calib.config import PhantomConfig
    from stream.sources.phantom import PhantomSource

    if options.crop is not None:
        raise SourceError("the phantom is not cropped; give --size instead of --crop")
    asked: dict[str, Any] = {
        "rate_hz": options.rate_hz,
        "seed": options.seed,
        "rows": options.size,
        "columns": options.size,
        "contrast": options.contrast,
        "bits_stored": options.bits,
    }
    try:
        config = PhantomConfig(**{name: value for name, value in asked.items() if value is not None})
    except ValueError as error:
        raise SourceError(f"phantom: {error}") from None
    return PhantomSource(config)
