"""An RTSP server of GStreamer: raw gray frames on standard input, `python3 rtsp_server.py PORT CODEC COLUMNS ROWS RATE`.

Run by the system's Python, which has GStreamer's bindings. Prints `ready` once it listens; ends with its input. Each frame goes on
at once; while nobody is connected they are thrown away.
"""

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstApp", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - their versions are asked for first

# One thread: x264's frame threads hold frames back, and FFmpeg's decoder was seen to lose slices of its sliced threads here.
ENCODERS = {
    "h264": "x264enc tune=zerolatency speed-preset=ultrafast threads=1 bitrate=8000 key-int-max=30 ! rtph264pay config-interval=-1",
    "mjpeg": "jpegenc quality=95 ! rtpjpegpay",
}


def main() -> None:
    port, codec, columns, rows, rate = sys.argv[1:6]
    Gst.init(None)
    loop = GLib.MainLoop()
    sources = []
    server = GstRtspServer.RTSPServer(service=port, address="127.0.0.1")
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(
        f"( appsrc name=frames is-live=true do-timestamp=true format=time caps=video/x-raw,format=GRAY8,width={columns},"
        f"height={rows},framerate={rate}/1 ! videoconvert ! video/x-raw,format=I420 ! {ENCODERS[codec]} name=pay0 pt=96 )"
    )
    factory.set_shared(True)
    factory.set_latency(0)

    def configured(_factory, media):
        sources.append(media.get_element().get_by_name_recurse_up("frames"))

    factory.connect("media-configure", configured)
    server.get_mount_points().add_factory("/live", factory)
    server.attach(None)

    def read():
        size = int(columns) * int(rows)
        while len(data := sys.stdin.buffer.read(size)) == size:
            for source in sources[-1:]:
                source.emit("push-buffer", Gst.Buffer.new_wrapped(data))
        loop.quit()

    threading.Thread(target=read, daemon=True).start()
    print("ready", flush=True)
    loop.run()


main()
