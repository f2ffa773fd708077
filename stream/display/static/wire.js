// Reads a frame's message: the same bytes that the pipeline sends to every client, nothing re-encoded on
// the way. The layout is documented in stream/wire.py. The planes are views into the message; the browsers
// this runs on are all little-endian, as the wire is.

const MAGIC = "CNTRSTRM";
const MAJOR = 1;
const CORE_BYTES = 192;
const EXTENSION_WINDOW = 1;
const EXTENSION_RATE = 2;
const EXTENSION_SPACING = 3;
const EXTENSION_ADAPTATION = 4;
const PLACES = { 1: "at the detector", 2: "at the isocentre", 3: "at a calibrated object" };
const FLAG_FAULTS = 8;
const FLAG_UNMASKED_TEXT = 2;
const MAX_SIDE = 2048;

export const STATES = { 1: "SYNTHETIC", 2: "PASSTHROUGH", 3: "UNCHANGED", 4: "STALE", 5: "NO_SIGNAL" };
export const REASONS = {
  0: "none",
  1: "starting",
  2: "deadline",
  3: "engine_lost",
  4: "out_of_domain",
  5: "output_invalid",
  6: "untaught",
  7: "off",
};
export const MONOCHROME1 = 1;

export class WireError extends Error {}

function need(condition, sentence) {
  if (!condition) throw new WireError(sentence);
}

/**
 * Decode one message.
 * @param {ArrayBuffer} buffer The bytes as they came.
 * @returns The header's fields, and `live`, `synthetic` (or null) as Uint8Array or Uint16Array.
 * @throws {WireError} Bytes that are no message, or of another major version.
 */
export function decode(buffer) {
  need(buffer.byteLength >= CORE_BYTES, `a message has at least ${CORE_BYTES} bytes, got ${buffer.byteLength}`);
  const view = new DataView(buffer);
  const magic = String.fromCharCode(...new Uint8Array(buffer, 0, 8));
  need(magic === MAGIC, "these bytes are no message of a stream");
  const major = view.getUint16(8, true);
  need(major === MAJOR, `this page reads version ${MAJOR} of the wire, got ${major}; reload the page`);
  const coreBytes = view.getUint16(12, true);
  const headerBytes = view.getUint16(14, true);
  need(
    coreBytes >= CORE_BYTES && coreBytes <= headerBytes && headerBytes <= buffer.byteLength,
    `a header of ${headerBytes} bytes with a core of ${coreBytes} does not fit the message`,
  );
  const rows = view.getUint32(96, true);
  const columns = view.getUint32(100, true);
  const bits = view.getUint8(104);
  need(
    rows >= 1 && rows <= MAX_SIDE && columns >= 1 && columns <= MAX_SIDE && bits >= 8 && bits <= 16,
    `a frame of ${rows} x ${columns} with ${bits} bits stored is not allowed`,
  );
  const state = STATES[view.getUint8(106)];
  const reason = REASONS[view.getUint8(107)];
  need(state !== undefined && reason !== undefined, "the message has a state or a reason that is not known");
  const extensions = readExtensions(view, coreBytes, headerBytes, view.getUint16(110, true));
  const pixels = rows * columns;
  return {
    stream: hex(new Uint8Array(buffer, 16, 16)),
    sequence: Number(view.getBigUint64(32, true)),
    publication: Number(view.getBigUint64(40, true)),
    // A double holds nanoseconds of up to 104 days exactly and years to within 0.01 us.
    dueMs: Number(view.getBigUint64(56, true)) / 1e6,
    rows,
    columns,
    bits,
    maxValue: 2 ** bits - 1,
    inverted: view.getUint8(105) === MONOCHROME1,
    state,
    reason,
    faultsInjected: (view.getUint8(109) & FLAG_FAULTS) !== 0,
    unmaskedText: (view.getUint8(109) & FLAG_UNMASKED_TEXT) !== 0,
    ageMs: view.getUint32(112, true),
    ...extensions,
    live: readPlane(view, 0, bits, pixels, headerBytes),
    synthetic: readPlane(view, 1, bits, pixels, headerBytes),
  };
}

function readExtensions(view, at, end, count) {
  const found = { windowCenter: null, windowWidth: null, rateHz: 0, spacing: null, adaptation: null };
  for (let index = 0; index < count; index += 1) {
    need(at + 8 <= end, "the header ends inside an extension");
    const kind = view.getUint16(at, true);
    const length = view.getUint32(at + 4, true);
    at += 8;
    need(at + length <= end, "an extension is longer than the header");
    if (kind === EXTENSION_WINDOW && length >= 16) {
      found.windowCenter = view.getFloat64(at, true);
      found.windowWidth = view.getFloat64(at + 8, true);
    } else if (kind === EXTENSION_RATE && length >= 8) {
      found.rateHz = view.getFloat64(at, true);
    } else if (kind === EXTENSION_SPACING && length >= 20) {
      const [rowMm, columnMm] = [view.getFloat64(at, true), view.getFloat64(at + 8, true)];
      need(rowMm > 0 && columnMm > 0, `a pixel of ${rowMm} x ${columnMm} mm is not allowed`);
      // A place that a later minor version knows: a size without its place says nothing.
      const place = PLACES[view.getUint32(at + 16, true)];
      found.spacing = place === undefined ? null : { rowMm, columnMm, place };
    } else if (kind === EXTENSION_ADAPTATION && length >= 36) {
      found.adaptation = readAdaptation(view, at);
    }
    at += Math.ceil(length / 8) * 8;
  }
  return found;
}

/** Which patient's adaptation drew the frame: its random key, and what is said of it. */
function readAdaptation(view, at) {
  const [primary, secondary] = [view.getFloat64(at + 16, true), view.getFloat64(at + 24, true)];
  const minutes = view.getUint32(at + 32, true);
  const turn = (angle) => Number.isNaN(angle) || Math.abs(angle) <= 360;
  need(minutes < 1440 && turn(primary) && turn(secondary), "the message names an adaptation that is none");
  const two = (number) => `${number}`.padStart(2, "0");
  const known = !Number.isNaN(primary) && !Number.isNaN(secondary);
  const angle = (degrees, positive, negative) => `${degrees >= 0 ? positive : negative} ${Math.abs(degrees).toFixed(0)}`;
  const projection = known
    ? `${angle(primary, "LAO", "RAO")} ${angle(secondary, "CRAN", "CAUD")}`
    : "projection not known";
  return {
    key: hex(new Uint8Array(view.buffer, at, 16)),
    words: `patient-adapted, run of ${two(Math.floor(minutes / 60))}:${two(minutes % 60)}, ${projection}`,
  };
}

function readPlane(view, index, bits, pixels, headerBytes) {
  const present = (view.getUint8(108) & (1 << index)) !== 0;
  if (!present) {
    need(index !== 0, "a message carries the live plane");
    return null;
  }
  const offset = Number(view.getBigUint64(128 + 16 * index, true));
  const length = Number(view.getBigUint64(136 + 16 * index, true));
  const sampleBytes = bits === 8 ? 1 : 2;
  need(
    length === pixels * sampleBytes &&
      offset >= headerBytes &&
      offset % 64 === 0 &&
      offset + length <= view.byteLength,
    `plane ${index} of ${length} bytes at ${offset} does not fit the frame`,
  );
  const Samples = sampleBytes === 1 ? Uint8Array : Uint16Array;
  return new Samples(view.buffer, offset, pixels);
}

function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
