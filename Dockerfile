# Contrastream on a CPU. Research tool, not a medical device.
#   docker build -t contrastream:cpu .
#   docker run --rm --network host contrastream:cpu                 # the digital phantom, with the viewer at the printed address
#   docker run --rm --network host --device /dev/video0 --group-add video contrastream:cpu run v4l2:0 --web --no-browser
# The viewer and the endpoint listen on loopback, hence the host's network; beyond this host they want keys (SECURITY.md).
FROM debian:trixie-slim AS build
# No versions of Debian's packages: its security updates are wanted, and a pinned version would soon be gone from its servers.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && python3 -m venv /opt/contrastream
ENV PATH=/opt/contrastream/bin:$PATH
WORKDIR /source
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --requirement requirements.lock
COPY . ./
RUN pip install --no-cache-dir --no-deps .

FROM debian:trixie-slim
# libgl1 and libglib2.0-0t64 are what OpenCV's wheel leaves to the system; Debian's pip wants ca-certificates (Dockerfile.cuda).
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates python3 libgl1 libglib2.0-0t64 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --create-home contrastream \
 && install --directory --owner contrastream --mode 0700 /run/contrastream /var/lib/contrastream /var/cache/contrastream
COPY --from=build /opt/contrastream /opt/contrastream
# The audit log, its key and trusted models are in /var/lib/contrastream, plans and compiled models in /var/cache/contrastream:
# mount volumes there to keep them.
ENV PATH=/opt/contrastream/bin:$PATH \
    XDG_RUNTIME_DIR=/run/contrastream \
    XDG_STATE_HOME=/var/lib/contrastream \
    XDG_CACHE_HOME=/var/cache/contrastream
USER 10001
WORKDIR /home/contrastream
HEALTHCHECK --start-period=30s CMD ["contrastream", "run", "--healthcheck"]
ENTRYPOINT ["contrastream"]
CMD ["run", "phantom", "--web", "--no-browser"]
