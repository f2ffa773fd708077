"""The settings of the live path's commands, one frozen dataclass each; the string below a field is its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

# The marks a dataclass cannot express: an argument without a flag, a command's name, what stands for a value in the help.
from tyro.conf import FlagCreatePairsOff, Positional, arg, subcommand

Backend = Literal["auto", "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"]
EngineName = Literal["auto", "off", "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"]


@dataclass(frozen=True)
class SourceConfig:
    """Where frames come from and how they are read."""

    source: Annotated[Positional[str], arg(metavar="SOURCE")]
    """phantom, v4l2:0, rtsp://host/path, tcp://host:port, gst:PIPELINE, igtl://host:18944/Device, a DICOM cine loop, a video file, a folder of frames, or python:module:Class."""
    rate: Annotated[float | None, arg(metavar="HZ")] = None
    """Frames per second, over what the recording says; the rate asked of a device."""
    loop: bool = False
    """Begin a recording again at its end."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """End after so many frames."""
    crop: Annotated[str | None, arg(metavar="X,Y,W,H")] = None
    """x,y,w,h in pixels: the region of a capture card's picture that is the X-ray."""
    gray: bool = False
    """Convert the colour of a video or image file instead of refusing it."""
    luma: Literal["auto", "limited", "full"] = "auto"
    """Range of a device's luma: 16 to 235, 0 to 255, or as its pixel format has it."""
    width: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Columns asked of a device."""
    height: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows asked of a device."""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows and columns of the phantom."""
    bits: Annotated[int | None, arg(metavar="8..16")] = None
    """Bits stored: of the phantom, and of 16-bit images, which do not say."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """The phantom's patient."""
    contrast: bool = False
    """Contrast medium in the phantom's vessels."""


@dataclass(frozen=True)
class FaultConfig:
    """What is to go wrong with the source, to test how the stream and its viewers take it."""

    fault: Annotated[str | None, arg(metavar="SPEC")] = None
    """A test: inject faults into the source, which every message and viewer then says. Items with commas between: drop=0.1 (share
    of frames lost), jitter=20ms (each up to so late); at frame N: freeze@N:3s (no frames), hold@N:2s (the same image again),
    black@N or black@N:2s, size@N:320x256 (columns x rows), unplug@N:5s (the device is gone), hang@N or hang@N:5s (a driver call
    does not return), crash@N (the source process dies), end@N."""
    fault_seed: Annotated[int, arg(metavar="N")] = 0
    """Of what --fault draws at random: the same seed loses the same frames."""


@dataclass(frozen=True)
class EngineConfig:
    """What turns a frame into an angiogram."""

    model: Annotated[str, arg(metavar="MODEL")] = "compact"
    """A shipped model's name, an ONNX file, or a preset's name with --untaught."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on; what contrastream export made on this machine needs none."""
    engine: EngineName = "auto"
    """The runtime; auto takes the first usable one and says why it passed over others; off shows live only."""
    threads: Annotated[int | None, arg(metavar="N")] = None
    """Threads of a CPU engine."""
    untaught: bool = False
    """Run a model that was not taught, to measure it; its pictures are never shown as synthetic. A preset that no model is shipped of gets random weights."""
    site: Annotated[Path | None, arg(metavar="FILE")] = None
    """The site's record that `contrastream calib run` wrote: grey levels, field and burned-in text of this very source."""


@dataclass(frozen=True)
class ServingConfig:
    """Where frames go."""

    patient: Annotated[Path | None, arg(metavar="FILE")] = None
    """A patient's adaptation, as `contrastream calib patient` wrote it, while the projection is the one it was taught at; `contrastream patient` takes one over on the way."""

    domain: bool = True
    """Leave frames live that are unlike those the model was taught on, or the site's; --no-domain draws on any."""
    endpoint: Annotated[str | None, arg(metavar="ENDPOINT")] = None
    """Where clients find it: a name, ipc:///path or tcp://ADDRESS:PORT; beyond this host with CURVE keys only (`contrastream keys`)."""
    key: Annotated[str | None, arg(metavar="LABEL")] = None
    """The CURVE key pair of a TCP endpoint; main beyond this host. On loopback it wants CURVE too."""
    curve: bool = False
    """Want CURVE on loopback TCP too, which every user of this host reaches."""
    crc: bool = False
    """Send a CRC-32 of every plane."""
    slots: Annotated[int, arg(metavar="N")] = 16
    """Frames the ring holds."""
    web: bool = False
    """Serve the web viewer too."""
    port: Annotated[int, arg(metavar="PORT")] = 8765
    """The web viewer's port, on this host only."""
    session_key: Annotated[Path | None, arg(metavar="FILE")] = None
    """A secret that you keep, mode 0600: browsers that were let in stay in when the web viewer's server starts again."""
    metrics_token: Annotated[Path | None, arg(metavar="FILE")] = None
    """A secret that you keep, mode 0600: Prometheus reads the web viewer's /metrics by it (docs/prometheus)."""
    browser: bool = True
    """Open the web viewer in a browser where there is a display."""
    keep_last: Annotated[float | None, arg(metavar="SECONDS")] = None
    """The web viewer keeps so much of the live frames in memory, and writes it as DICOM when asked (key k): for `calib patient`."""
    keep_in: Annotated[Path | None, arg(metavar="DIR")] = None
    """The folder it is written into; files of mode 0600 that show the patient."""
    keep_memory: Annotated[float | None, arg(metavar="GB")] = None
    """Memory it may take at most; 2 when none is given."""
    igtl: Annotated[int | None, arg(metavar="PORT")] = None
    """Serve the stream over OpenIGTLink too, for 3D Slicer and PLUS, on this host only; 18944 is their own port."""


@dataclass(frozen=True)
class RunConfig(FaultConfig, ServingConfig, EngineConfig, SourceConfig):
    """Run the live path: frames in, synthesized angiograms out, until Ctrl-C or the recording's end.

    Several sources are several rooms, each with a live path, an endpoint (NAME-1, NAME-2 ...) and, with --web, a viewer
    (PORT, PORT + 1 ...) of its own. One engine process serves them all with fair turns.
    """

    source: Annotated[Positional[str], arg(metavar="SOURCE")] = ""
    """phantom, v4l2:0, rtsp://host/path, a DICOM cine loop, a video file, a folder of frames, or python:module:Class (README.md lists all)."""
    more: Annotated[Positional[tuple[str, ...]], arg(metavar="[SOURCE ...]")] = ()
    """More sources, a room each; the other settings hold for all of them."""
    healthcheck: FlagCreatePairsOff[bool] = False
    """Start nothing; ask the run at this --endpoint whether its loop lives: exit status 0 or, without a heartbeat, 1."""
    audit: bool = True
    """Keep an audit log: starts, stops, states, engines, clients and drops, nothing of a patient."""
    audit_folder: Annotated[Path | None, arg(metavar="DIR")] = None
    """Where the audit log is; ~/.local/state/contrastream/audit when none is given."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the summary as JSON."""


@dataclass(frozen=True)
class ReplayConfig(FaultConfig, ServingConfig, EngineConfig, SourceConfig):
    """Replay a recorded cine loop through the whole live path and measure it."""

    speed: Annotated[str, arg(metavar="FACTOR")] = "1"
    """1 is the loop's own pace, 2 twice that, and so on; max is as fast as the machine goes."""
    lossless: bool = False
    """Drop nothing: the replay waits for the engine and for its measuring client, and deadlines are off."""
    domain: bool = False
    """Leave frames live that are unlike those the model was taught on, or the site's. A replay measures, and a frame that
    is not drawn on waits for nothing, so without --domain it draws on any."""
    out: Annotated[Path | None, arg(metavar="FILE")] = None
    """Write the figures as JSON."""


@dataclass(frozen=True)
class AuditVerifyConfig:
    """Is an audit log whole, and is every line as it was written? Exit status 1 with the line named where one is not."""

    file: Annotated[Positional[Path | None], arg(metavar="FILE")] = None
    """A file of the log, or a folder of it; this user's whole log when none is given."""
    head: Annotated[tuple[str, ...], arg(metavar="HASH")] = ()
    """Heads that a heartbeat has shown (audit.head): each must be in the log, else entries at its end are missing."""
    key: Annotated[Path | None, arg(metavar="FILE")] = None
    """The log's key; ~/.local/state/contrastream/audit.key when none is given."""


@dataclass(frozen=True)
class AuditShowConfig:
    """Print an audit log for people, a line an entry. It checks nothing; `audit verify` does."""

    file: Annotated[Positional[Path | None], arg(metavar="FILE")] = None
    """A file of the log, or a folder of it; this user's whole log when none is given."""


@dataclass(frozen=True)
class AuditConfig:
    """The audit log that `contrastream run` keeps: JSON lines, each chained to the one before under a key of this user."""

    step: Annotated[AuditVerifyConfig, subcommand("verify")] | Annotated[AuditShowConfig, subcommand("show")]


@dataclass(frozen=True)
class PatientConfig:
    """Have a running stream take a patient's adaptation over, or go back to the general model, without losing a frame.

    The adaptation is made ready beside what draws; then slots switch between two frames. It needs a run of yours on this host.
    """

    what: Annotated[Positional[str], arg(metavar="FILE|off")]
    """What `contrastream calib patient` wrote; or off for the general model, with the next frame."""
    endpoint: Annotated[str | None, arg(metavar="ENDPOINT")] = None
    """The run's own --endpoint; this host's default stream when none is given."""


@dataclass(frozen=True)
class ViewConfig:
    """Show a running stream in a desktop window, or in a browser with --web."""

    endpoint: Annotated[Positional[str | None], arg(metavar="ENDPOINT")] = None
    """A name, ipc:///path or tcp://ADDRESS:PORT; this host's default stream when none is given."""
    server_key: Annotated[str | None, arg(metavar="KEY")] = None
    """The publisher's public key, 40 characters or its LABEL.key file, for an address with CURVE."""
    key: Annotated[str | None, arg(metavar="LABEL")] = None
    """Your own CURVE key pair there; main when none is given."""
    web: bool = False
    """Serve the web viewer instead of opening a window."""
    memory: bool = False
    """Read the frames in the publisher's shared memory instead of on the wire; on its host only."""
    port: Annotated[int, arg(metavar="PORT")] = 8765
    """The web viewer's port."""
    host: Annotated[str, arg(metavar="ADDRESS")] = "127.0.0.1"
    """The address the web viewer listens on; beyond this host with TLS and --allow-host only."""
    allow_host: Annotated[tuple[str, ...], arg(metavar="NAME")] = ()
    """Names or addresses under which browsers on other hosts reach the web viewer."""
    tls_cert: Annotated[Path | None, arg(metavar="FILE")] = None
    """The web viewer's certificate chain, PEM."""
    tls_key: Annotated[Path | None, arg(metavar="FILE")] = None
    """Its private key, PEM, of mode 0600."""
    session_key: Annotated[Path | None, arg(metavar="FILE")] = None
    """A secret that you keep, mode 0600: browsers that were let in stay in when the web viewer's server starts again."""
    metrics_token: Annotated[Path | None, arg(metavar="FILE")] = None
    """A secret that you keep, mode 0600: Prometheus reads the web viewer's /metrics by it (docs/prometheus)."""
    browser: bool = True
    """Open the web viewer in a browser where there is a display."""
    keep_last: Annotated[float | None, arg(metavar="SECONDS")] = None
    """Keep so much of the live frames in memory; the key k writes it as DICOM, for `contrastream calib patient`."""
    keep_in: Annotated[Path | None, arg(metavar="DIR")] = None
    """The folder it is written into; files of mode 0600 that show the patient."""
    keep_memory: Annotated[float | None, arg(metavar="GB")] = None
    """Memory it may take at most; 2 when none is given."""


@dataclass(frozen=True)
class RecordConfig:
    """Record a running stream until Ctrl-C or its end: as DICOM, a film or arrays, by the file's ending.

    .dcm holds the live frames; NAME-synthetic.dcm and NAME-attention.dcm beside it are derived objects marked as synthetic.
    .mp4 shows live, synthetic and overlay with their marks burned in. .npz has every plane and stamp for numpy. NAME.json
    says what each frame was. While it runs, everything goes into NAME.capture; of a recorder that was killed it stays, and
    `contrastream record NAME.capture NAME` makes the rest.
    """

    endpoint: Annotated[Positional[str], arg(metavar="ENDPOINT")]
    """The stream: main for this host's default one, another name, ipc:///path or tcp://ADDRESS:PORT; or a .capture file."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """A new file that ends in .dcm, .mp4 or .npz."""
    seconds: Annotated[float | None, arg(metavar="S")] = None
    """End so long after the first frame."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """End after so many frames."""
    server_key: Annotated[str | None, arg(metavar="KEY")] = None
    """The publisher's public key, 40 characters or its LABEL.key file, for an address with CURVE."""
    key: Annotated[str | None, arg(metavar="LABEL")] = None
    """Your own CURVE key pair there; main when none is given."""
    memory: bool = False
    """Read the frames in the publisher's shared memory instead of on the wire; on its host only."""

    def __post_init__(self) -> None:
        if self.seconds is not None and not self.seconds > 0:
            raise ValueError(f"--seconds must be above 0, got {self.seconds:g}")
        if self.frames is not None and self.frames < 1:
            raise ValueError(f"--frames must be 1 or more, got {self.frames}")


@dataclass(frozen=True, kw_only=True)
class SynthesizeConfig(EngineConfig):
    """Synthesize the angiogram of every frame of recordings, offline, into a folder of pictures.

    Each frame comes as synthetic/frame_N.png in the recording's own stored values and bits, and as
    attention/frame_N.png, which says how much of each pixel is synthetic. preview.mp4 and preview.png show
    live, synthetic and overlay side by side with their marks; synthesis.json holds model, engine, settings and
    the statistics of every frame. No file holds a name, a path or anything else from the recording's header.

    Several sources, a pattern or a folder with loops below it are an archive: each loop comes whole or not at all
    as DIR/loops/HASH, named by its content, and manifest.json lists them. The same command again does only what is
    missing or has changed; a loop that cannot be read is listed and passed over, and the exit status is then 3.
    """

    sources: Annotated[Positional[tuple[str, ...]], arg(metavar="SOURCE ...")]
    """DICOM cine loops, video files, images, folders, patterns such as 'lab/**/*.dcm'; or one of phantom (with --frames) and python:module:Class."""
    out: Annotated[Path, arg(metavar="DIR")]
    """The folder to write; made if needed."""
    ray: Annotated[str | None, arg(metavar="ADDRESS")] = None
    """Spread the loops over a Ray cluster: local:N for N workers on this machine, HOST:PORT, or auto for the one this machine belongs to."""
    workers: Annotated[int | None, arg(metavar="N")] = None
    """With --ray: engines at once; by default one for each GPU of the cluster, or for each machine where there are none."""
    names: FlagCreatePairsOff[bool] = False
    """Write into the manifest where each loop was found. Paths may hold a patient's name."""
    engine: Backend = "auto"
    """The runtime; auto takes the first usable one and says why it passed over others."""
    untaught: bool = False
    """Run a model that was not taught, to measure it; its frames go to untaught/ and are marked so."""
    overwrite: bool = False
    """Replace a former synthesis in that folder; in an archive, do loops anew that another model or other settings made."""
    dicom: FlagCreatePairsOff[bool] = False
    """Write loop.dcm, loop-synthetic.dcm and loop-attention.dcm, the objects of `contrastream record`, instead of PNGs."""
    film: bool = True
    """Write preview.mp4, an MPEG-4 film for desktop players; most browsers do not show this codec."""
    rate: Annotated[float | None, arg(metavar="HZ")] = None
    """Frames per second of the film, over what the recording says."""
    frames: Annotated[int | None, arg(metavar="N")] = None
    """End after so many frames."""
    crop: Annotated[str | None, arg(metavar="X,Y,W,H")] = None
    """x,y,w,h in pixels: the region of the picture that is the X-ray."""
    gray: bool = False
    """Convert the colour of a video or image file instead of refusing it."""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Rows and columns of the phantom."""
    bits: Annotated[int | None, arg(metavar="8..16")] = None
    """Bits stored: of the phantom, and of 16-bit images, which do not say."""
    seed: Annotated[int | None, arg(metavar="N")] = None
    """The phantom's patient."""
    contrast: bool = False
    """Contrast medium in the phantom's vessels."""


@dataclass(frozen=True)
class KeysNewConfig:
    """Make a CURVE key pair of your own; prints the public key and its file, which may be handed over."""

    label: Annotated[Positional[str], arg(metavar="LABEL")] = "main"
    """A short name."""


@dataclass(frozen=True)
class KeysAllowConfig:
    """Let a client in, by its public key; running publishers of yours do so within a second."""

    label: Annotated[Positional[str], arg(metavar="LABEL")]
    """What you call this client."""
    public_key: Annotated[Positional[str], arg(metavar="KEY")]
    """Its LABEL.key file, or the 40 characters that `contrastream keys list` prints there."""


@dataclass(frozen=True)
class KeysListConfig:
    """List your own pairs and the clients that may come in, by their public keys."""


@dataclass(frozen=True)
class KeysRevokeConfig:
    """Let a client in no longer; running publishers of yours end its sessions within a second."""

    label: Annotated[Positional[str], arg(metavar="LABEL")]
    """What you called it when you allowed it."""


@dataclass(frozen=True)
class KeysConfig:
    """Who may see a stream beyond this host: key pairs, and the clients that are allowed (SECURITY.md)."""

    step: (
        Annotated[KeysNewConfig, subcommand("new")]
        | Annotated[KeysAllowConfig, subcommand("allow")]
        | Annotated[KeysListConfig, subcommand("list")]
        | Annotated[KeysRevokeConfig, subcommand("revoke")]
    )
