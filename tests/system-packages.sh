#!/bin/sh
# What some tests need from the system's packages: Chromium, Xvfb and xdotool (viewer), dciodvfy (recorder), a compiler and ZeroMQ's
# headers (the C++ example), zsh and fish (their completion), FFmpeg and GStreamer's RTSP server (network sources). Installed where that is possible without asking.
# Where it is not, the tests that need them are skipped and say so.
missing=""
[ -x /usr/bin/chromium ] || missing="chromium"
command -v Xvfb >/dev/null 2>&1 || missing="$missing xvfb"
command -v xdotool >/dev/null 2>&1 || missing="$missing xdotool"
command -v dciodvfy >/dev/null 2>&1 || missing="$missing dicom3tools"
[ -e /usr/include/zmq.hpp ] || missing="$missing libzmq3-dev cppzmq-dev g++"
command -v zsh >/dev/null 2>&1 || missing="$missing zsh"
command -v fish >/dev/null 2>&1 || missing="$missing fish"
# Senders of network video: their packages recommend many more, of which none is needed.
command -v ffmpeg >/dev/null 2>&1 || missing="$missing ffmpeg"
/usr/bin/python3 -c "import gi; gi.require_version('GstRtspServer', '1.0')" >/dev/null 2>&1 ||
    missing="$missing python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good gstreamer1.0-plugins-ugly"
[ -z "$missing" ] && exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "installing$missing from the system's packages, for the tests"
    apt-get update -qq >/dev/null 2>&1
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq $missing >/dev/null 2>&1 && exit 0
fi
echo "not installed: $missing; the tests that need it will be skipped (install it to run them)"
exit 0
