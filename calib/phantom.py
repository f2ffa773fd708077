"""Digital phantom: one patient as a stream of X-ray frames with known truth.

    seed -> patient -> pose at a time -> attenuation of each layer -> picture -> stored pixel values

A coronary tree that is carried by the visible heart lies in every frame; contrast medium makes it visible. So
a frame comes as a pair, with and without contrast, that differ in the vessels alone.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from calib.config import PhantomConfig
from calib.phantom_anatomy import (
    CATHETER_BORE_MM,
    CATHETER_RADIUS_MM,
    COARSE_MM,
    Grid,
    blades,
    catheter_course,
    moving_layers,
    still_layers,
)
from calib.phantom_coronary import grow_tree, taper_px
from calib.phantom_detector import LAG_FRAMES, electronic_sd, lagged, noise_field, noisy
from calib.phantom_devices import Devices, draw_devices, guidewire_shadow, lead_shadow, still_shadow
from calib.phantom_heart import Outline, Pose, silhouette
from calib.phantom_patient import Patient, choose_view, draw_patient, pose_at
from calib.phantom_rendering import Patch, blur, blur_reach, draw_tubes, soft_step, store

IODINE_PER_MM = 0.115
"""Attenuation of blood with contrast medium."""
CATHETER_PER_MM = 0.20
QUANTA_PER_MM2 = 50_000.0
"""Quanta at white for dose 1."""
WHITE = 0.70
"""Grey level of the open chest; the heart comes out near 0.45."""
BLADE_GREY = 0.22
"""Grey level under the collimator's blades."""
MAX_LOOP_BYTES = 512 << 20
"""A loop of 16-bit pictures is kept within this; larger frames get a shorter loop."""
BOLUS_SPEED_MM_PER_S = 220.0


@dataclass(frozen=True)
class Loop:
    """The closed loop a phantom's motion runs through: one breath and a whole number of heartbeats."""

    frames: int
    beats: int

    @classmethod
    def of(cls, config: PhantomConfig) -> "Loop":
        """The loop nearest to the rates asked for that keeps within `MAX_LOOP_BYTES`."""
        wanted = round(config.rate_hz * 60.0 / config.breaths_per_min)
        most = MAX_LOOP_BYTES // (2 * config.rows * config.columns)
        frames = max(4, min(wanted, most))
        beats = max(1, round(frames / config.rate_hz * config.heart_rate_bpm / 60.0))
        return cls(frames, beats)


@dataclass(frozen=True)
class Clean:
    """A picture before noise. Grey levels, 0 black and 1 white; arrays are the caller's."""

    plain: Float32[np.ndarray, "h w"]
    angiogram: Float32[np.ndarray, "h w"]
    mask: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class PhantomFrame:
    """One frame and its truth. Stored pixel values are uint8 for 8 bits stored, else uint16."""

    live: np.ndarray
    """(rows, columns): `angiogram` or `plain`, as the settings say."""
    plain: np.ndarray
    """Without contrast medium."""
    angiogram: np.ndarray
    """With contrast medium."""
    mask: Bool[np.ndarray, "h w"]
    """Filled coronary arteries inside the field; the catheter is not in it."""
    centrelines: tuple[Float32[np.ndarray, "_ 4"], ...]
    """(row, column, radius, depth) along each branch, whether or not it is filled or in the field: three in
    pixels, the depth in mm from the isocentre towards the detector."""
    outline: Outline
    """The ellipse that the heart's body shows."""
    index: int
    heart_phase: float
    """0 to 1 from the start of systole."""
    breath_phase: float
    """0 to 1 from the end of expiration."""


class Phantom:
    """One patient. Frames may be asked for in any order; the same index gives the same frame.

    Args:
        config: Settings; the seed names the patient.
        patient: Another patient than the seed's, for instance with a shifted heart.
        devices: Other devices than the seed's.
    """

    def __init__(
        self, config: PhantomConfig, patient: Patient | None = None, devices: Devices | None = None
    ) -> None:
        self.config = config
        self.patient = draw_patient(config.seed) if patient is None else patient
        if devices is None:
            devices = draw_devices(config.seed) if config.devices else Devices()
        self.devices = devices
        self.view = choose_view(config)
        # Pieces of two pixels and more are fine enough, and their number is what a small picture's time goes into.
        stride = int(np.clip(config.spacing_mm / 0.55, 1, 3))
        self.tree = grow_tree(config.seed, config.variation).thinned(stride)
        self.loop = Loop.of(config)
        self.grid = Grid(config.rows, config.columns, config.spacing_mm, config.spacing_mm)
        self.coarse = self.grid.coarser(COARSE_MM / config.spacing_mm)
        self._wall, self._lung = still_layers(self.patient, self.view, self.coarse)
        shape = (config.rows, config.columns)
        self.field = blades(self.patient, self.grid) if config.collimated else np.ones(shape, np.float32)
        self._still_devices = still_shadow(devices, self.patient, self.view, self.grid)
        self._recent: dict[tuple[int, bool], Clean] = {}
        self._first, self._sheets = self.tree.segments
        self._radii_px = taper_px(self.tree.radii_mm, self._first, config.spacing_mm)

    @property
    def blur_reach_px(self) -> int:
        """How far the picture's blur carries contrast beyond the mask, in pixels."""
        return blur_reach(self.blur_px)

    @property
    def blur_px(self) -> float:
        """Standard deviation of the picture's blur, in pixels."""
        return max(0.45, self.config.blur_mm / self.config.spacing_mm)

    @property
    def quanta(self) -> float:
        """Quanta in a white pixel."""
        return QUANTA_PER_MM2 * self.config.dose * self.config.spacing_mm**2

    def phases(self, index: int) -> tuple[float, float]:
        """Heart and breath phase of a frame, 0 to 1."""
        at = index % self.loop.frames
        return at * self.loop.beats / self.loop.frames % 1.0, at / self.loop.frames

    def pose(self, index: int) -> Pose:
        """How heart and diaphragm lie in a frame."""
        return pose_at(self.patient, *self.phases(index))

    def frame(self, index: int) -> PhantomFrame:
        """One frame with its truth; `index` counts on through loop after loop, with new noise each time.

        Raises:
            ValueError: `index` is negative.
        """
        if index < 0:
            raise ValueError(f"a frame's index must be 0 or above, got {index}")
        heart_phase, breath_phase = self.phases(index)
        pose = self.pose(index)
        clean = self.seen(index)
        plain, angiogram = self.add_noise(clean, np.random.default_rng((self.config.seed, 0x40153, index)))
        stored_plain = store(plain, self.config.max_value)
        stored_angiogram = store(angiogram, self.config.max_value)
        return PhantomFrame(
            live=stored_angiogram if self.config.contrast else stored_plain,
            plain=stored_plain,
            angiogram=stored_angiogram,
            mask=clean.mask,
            centrelines=self.centrelines(pose),
            outline=self.outline(pose),
            index=index,
            heart_phase=heart_phase,
            breath_phase=breath_phase,
        )

    def seen(self, index: int, contrast: bool = True) -> Clean:
        """A frame's picture before noise as the detector shows it: with lag. The first frames follow on the last of the loop.

        It follows from the clean pictures of this frame and the two before it, never from what was asked for
        before; the newest are kept, so that frames in their order are rendered once each.

        Args:
            index: Of the frame.
            contrast: As for `clean`.
        """
        if self.config.lag == 0.0:
            return self.clean(self.pose(index), self.filling(index), contrast)
        places = [(index - back) % self.loop.frames for back in range(LAG_FRAMES + 1)]
        recent = {
            (place, contrast): self._recent.get((place, contrast))
            or self.clean(self.pose(place), self.filling(place), contrast)
            for place in places
        }
        self._recent = recent
        cleans = [recent[place, contrast] for place in places]
        plain = lagged([clean.plain for clean in cleans], self.config.lag)
        mask = cleans[0].mask.copy()
        if not contrast:
            return Clean(plain, plain, mask)
        return Clean(plain, lagged([clean.angiogram for clean in cleans], self.config.lag), mask)

    def filling(self, index: int) -> Float32[np.ndarray, " m"] | None:
        """How full of contrast medium each segment of the tree is, 0 to 1; None where all are full.

        Our choice: a front that runs down the tree from a tenth of the loop on, and washes out behind it.
        """
        if not self.config.bolus:
            return None
        at_s = (index % self.loop.frames) / self.config.rate_hz
        loop_s = self.loop.frames / self.config.rate_hz
        since = at_s - 0.1 * loop_s - self.tree.reach_mm[self._first] / BOLUS_SPEED_MM_PER_S
        rise = soft_step(since.astype(np.float32) - np.float32(0.15), 0.15)
        fall = soft_step(since.astype(np.float32) - np.float32(0.55 * loop_s), 0.12 * loop_s)
        return rise * (np.float32(1.0) - fall)

    def clean(
        self, pose: Pose, filling: Float32[np.ndarray, " m"] | None = None, contrast: bool = True
    ) -> Clean:
        """A pose's picture before noise.

        Args:
            pose: How heart and diaphragm lie.
            filling: How full each segment is; None for all full.
            contrast: False leaves the tree out: `angiogram` is then `plain` and the mask is empty.
        """
        moving, texture = moving_layers(pose, self.view, self.coarse)
        texture *= self._lung
        moving += texture
        moving += self._wall
        np.negative(moving, out=moving)
        primary = cv2.exp(moving)
        # Scatter follows the primary beam, spread over several centimetres; contrast medium is too thin to count.
        small = cv2.resize(primary, (24, 24), interpolation=cv2.INTER_AREA)
        veil = cv2.resize(
            cv2.GaussianBlur(small, (0, 0), 3.0),
            (self.coarse.columns, self.coarse.rows),
            interpolation=cv2.INTER_LINEAR,
        )
        share = self.config.scatter
        primary *= np.float32(WHITE / (1.0 + share))
        veil *= np.float32(WHITE * share / (1.0 + share))
        shape = (self.config.rows, self.config.columns)
        if self.coarse.shape != shape:
            primary = cv2.resize(primary, shape[::-1], interpolation=cv2.INTER_LINEAR)
            veil = cv2.resize(veil, shape[::-1], interpolation=cv2.INTER_LINEAR)
        course_mm = catheter_course(self.patient, pose, self.view)
        self._insert_catheter(primary, course_mm)
        self._insert_devices(primary, pose, course_mm)
        plain = self.expose(primary, veil)
        mask = np.zeros(shape, bool)
        if not contrast:
            return Clean(plain, plain, mask)
        vessels = self.vessels(pose, filling)
        field = self.field[vessels.place]
        np.greater(vessels.thickness, self._mask_threshold_px, out=mask[vessels.place])
        mask[vessels.place] &= field > 0.5
        # What the contrast medium takes away is zero beyond the vessels, and stays so when blurred: there the
        # two pictures are the same, bit for bit.
        taken = cv2.exp(vessels.thickness * np.float32(-IODINE_PER_MM * self.config.spacing_mm))
        np.subtract(1.0, taken, out=taken)
        taken *= primary[vessels.place]
        taken = blur(taken, self.blur_px)
        taken *= field
        angiogram = plain.copy()
        angiogram[vessels.place] -= taken
        return Clean(plain, angiogram, mask)

    def expose(
        self, primary: Float32[np.ndarray, "h w"], veil: Float32[np.ndarray, "h w"]
    ) -> Float32[np.ndarray, "h w"]:
        """What the detector makes of a beam before noise: blur, scatter, collimator. A new array.

        Args:
            primary: The beam behind the patient, in grey levels.
            veil: Scattered radiation, too smooth to be blurred.
        """
        plain = blur(primary, self.blur_px)
        plain += veil
        plain -= np.float32(BLADE_GREY)
        plain *= self.field
        plain += np.float32(BLADE_GREY)
        return plain

    def vessels(self, pose: Pose, filling: Float32[np.ndarray, " m"] | None = None) -> Patch:
        """How much vessel, filled as told, the beam passes at each pixel, in pixels; with room for the blur around it."""
        places = self.grid.pixels(self.places_mm(pose)[:, :2])
        return draw_tubes(
            self.grid.shape,
            places[self._first],
            places[self._first + 1],
            self._radii_px,
            filling,
            self._sheets,
            margin=self.blur_reach_px,
        )

    @property
    def _mask_threshold_px(self) -> float:
        """Half the chord of the thinnest vessel, averaged over a pixel."""
        radius = float(self._radii_px.min())
        return 0.5 * math.pi * radius**2 / max(1.0, 2.0 * radius)

    def _insert_catheter(
        self, primary: Float32[np.ndarray, "h w"], course_mm: Float64[np.ndarray, "n 2"]
    ) -> None:
        """Weaken the beam by the catheter, in place: a tube with a bore, so it shows two dark edges."""
        places = self.grid.pixels(course_mm)
        for radius_mm, sign in ((CATHETER_RADIUS_MM, -1.0), (CATHETER_BORE_MM, 1.0)):
            radii = np.full((len(places) - 1, 2), radius_mm / self.config.spacing_mm, np.float32)
            tube = draw_tubes(primary.shape, places[:-1], places[1:], radii)
            if tube.thickness.size:
                scale = np.float32(sign * CATHETER_PER_MM * self.config.spacing_mm)
                primary[tube.place] *= cv2.exp(tube.thickness * scale)

    def _insert_devices(
        self, primary: Float32[np.ndarray, "h w"], pose: Pose, course_mm: Float64[np.ndarray, "n 2"]
    ) -> None:
        """Weaken the beam by the patient's devices, in place."""
        shadows = [self._still_devices]
        if self.devices.pacemaker:
            shadows.append(lead_shadow(self.patient, pose, self.view, self.grid))
        if self.devices.guidewire:
            shadows.append(guidewire_shadow(course_mm, self.grid))
        for shadow in shadows:
            if shadow is not None:
                shadow.cast_on(primary)

    def add_noise(
        self, clean: Clean, rng: np.random.Generator
    ) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
        """The plain picture and the angiogram with the detector's noise, not above its saturation; new arrays."""
        electronic = electronic_sd(self.config)
        deviate = noise_field((self.config.rows, self.config.columns), rng)
        plain = noisy(clean.plain, deviate, self.quanta, electronic)
        if self.config.noise == "independent":
            deviate = noise_field((self.config.rows, self.config.columns), rng)
        angiogram = noisy(clean.angiogram, deviate, self.quanta, electronic)
        for picture in (plain, angiogram):
            np.minimum(picture, np.float32(self.config.saturation), out=picture)
        return plain, angiogram

    def places_mm(self, pose: Pose) -> Float64[np.ndarray, "n 3"]:
        """Every point of the tree as the C-arm sees it: (x, y, depth) in mm from the isocentre."""
        return self.view.project(pose.to_patient(self.tree.points))

    def centrelines(self, pose: Pose) -> tuple[Float32[np.ndarray, "_ 4"], ...]:
        """(row, column, radius, depth) along each branch of the tree: three in pixels, the depth in mm."""
        places_mm = self.places_mm(pose)
        places = self.grid.pixels(places_mm[:, :2])
        radii = (self.tree.radii_mm / self.config.spacing_mm).astype(np.float32)
        lines = np.stack([places[:, 1], places[:, 0], radii, places_mm[:, 2].astype(np.float32)], axis=1)
        return tuple(lines[self.tree.branch(index)] for index in range(len(self.tree.branch_names)))

    def outline(self, pose: Pose) -> Outline:
        """The ellipse that the heart's body shows in a pose."""
        seen = silhouette(pose, self.view)
        x, y = self.grid.pixels(np.array([seen.centre_mm]))[0]
        long_mm, short_mm = seen.axes_mm
        spacing_mm = self.config.spacing_mm
        return Outline((float(x), float(y)), (long_mm / spacing_mm, short_mm / spacing_mm), seen.angle_rad)


def training_pairs(
    size: int,
    seeds: Iterable[int],
    frames_per_seed: int,
    config: PhantomConfig | None = None,
) -> Iterator[
    tuple[
        Float32[np.ndarray, "size size"], Float32[np.ndarray, "size size"], Float32[np.ndarray, "size size"]
    ]
]:
    """Paired training pictures of many patients, each at random phases of heartbeat and breath.

    Args:
        size: Rows and columns, 64 to 2048.
        seeds: The patients. Keep those of training and evaluation apart.
        frames_per_seed: Pairs of each patient, one after the other.
        config: Everything else; seed, rows and columns are replaced.

    Yields:
        (plain, angiogram, mask): noisy grey levels 0 to 1 without rounding to stored values, and 1 where a
        filled coronary artery is. New arrays each time. The same arguments give the same pairs. They are single
        pictures, not frames of a stream, and so without lag.

    Raises:
        ValueError: `frames_per_seed` is below 1, or a setting is out of range.
    """
    if frames_per_seed < 1:
        raise ValueError(f"frames_per_seed must be 1 or above, got {frames_per_seed}")
    template = PhantomConfig() if config is None else config
    for seed in seeds:
        phantom = Phantom(replace(template, seed=seed, rows=size, columns=size))
        rng = np.random.default_rng((seed, 0x7A13))
        for _ in range(frames_per_seed):
            heart_phase, breath_phase, at = rng.random(3)
            pose = pose_at(phantom.patient, float(heart_phase), float(breath_phase))
            clean = phantom.clean(pose, phantom.filling(int(at * phantom.loop.frames)))
            plain, angiogram = phantom.add_noise(clean, rng)
            np.clip(plain, 0.0, 1.0, out=plain)
            np.clip(angiogram, 0.0, 1.0, out=angiogram)
            yield plain, angiogram, clean.mask.astype(np.float32)
