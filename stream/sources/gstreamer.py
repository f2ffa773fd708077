"""A GStreamer pipeline as a source, `gst:PIPELINE`, for an OpenCV that was built with GStreamer; the one from PyPI is not."""

from stream.errors import SourceError, SourceGone
from stream.sources.live_video import LiveVideoSource
from stream.sources.options import SourceOptions
from stream.sources.picture import quiet_opencv
from stream.sources.within import within

OPEN_WITHIN_S = 5.0
SINK = " ! appsink drop=true max-buffers=1 sync=false"
"""The newest frame wins, and none waits for its presentation time."""


def open_gstreamer(pipeline: str, options: SourceOptions) -> LiveVideoSource:
    """Open what a GStreamer pipeline delivers; gives up after 5 s.

    Args:
        pipeline: Elements without a sink, which is added; its last caps are to be `video/x-raw` in GRAY8 or BGR. It can run
            any element there is, so it must be your own.
        options: As `LiveVideoSource`.

    Raises:
        SourceError: This OpenCV has no GStreamer, or the pipeline does not start.
    """
    import cv2

    if not cv2.videoio_registry.hasBackend(cv2.CAP_GSTREAMER):
        raise SourceError(
            f"gst: needed an OpenCV that was built with GStreamer (-D WITH_GSTREAMER=ON), got OpenCV {cv2.__version__} without; or let "
            "GStreamer send: ... ! mpegtsmux ! tcpserversink port=5000, read as tcp://127.0.0.1:5000"
        )
    if "appsink" in pipeline:
        raise SourceError(
            f"gst: needed a pipeline without a sink, got one with appsink; leave it out,{SINK} is added"
        )

    def work() -> LiveVideoSource:
        quiet_opencv()
        capture = cv2.VideoCapture(pipeline + SINK, cv2.CAP_GSTREAMER)
        if not capture.isOpened():
            capture.release()
            raise SourceError(
                "gst: the pipeline does not start; try it with gst-launch-1.0, and end it in videoconvert"
            )
        return LiveVideoSource(
            capture,
            "gst",
            options,
            kind="gstreamer",
            note="Frames are due as early as the quickest of the last seconds came; what the pipeline itself needs is not known.",
        )

    return within(
        OPEN_WITHIN_S,
        work,
        SourceGone(
            f"gst: needed a frame within {OPEN_WITHIN_S:g} s, got none; try the pipeline with gst-launch-1.0"
        ),
    )
