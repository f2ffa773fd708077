// The figures of the head line and of the details: counted here, from what this page itself saw.

import { engineLines } from "./engine.js";

const RATE_OVER_MS = 2000;
// Added latency above this harms manual catheter work (docs of the project, budgets).
const LATE_MS = 100;
// The details: where the second column begins, and characters of it in a line.
const COLUMN = 24;
const WIDEST = 72;
// An age that cannot be: the stamps are of another host's clock.
const ABSURD_MS = 3600000;

export class Numbers {
  constructor() {
    this.stream = "";
    this.publication = null;
    this.skipped = 0;
    this.refusals = 0;
    this.refusal = "";
    this.drawnAt = [];
    this.last = null;
  }

  /** A frame came: what was published in between never came to this viewer. */
  received(frame) {
    if (frame.stream !== this.stream) {
      this.stream = frame.stream;
      this.skipped = 0;
    } else {
      this.skipped += Math.max(0, frame.publication - this.publication - 1);
    }
    this.publication = frame.publication;
  }

  /** A message could not be read. */
  refused(why) {
    this.refusals += 1;
    this.refusal = why;
  }

  /** A frame was drawn. */
  drawn(frame, nowMs, clock) {
    this.drawnAt.push(nowMs);
    this.last = { dueMs: frame.dueMs, nowMs, clock: clock.best(nowMs) };
  }

  /** Frames drawn per second over the last two: N stamps hold N - 1 intervals. */
  fps(nowMs) {
    while (this.drawnAt.length > 0 && nowMs - this.drawnAt[0] > RATE_OVER_MS) this.drawnAt.shift();
    const stamps = this.drawnAt;
    if (stamps.length < 3) return "--";
    return (((stamps.length - 1) * 1000) / (stamps[stamps.length - 1] - stamps[0])).toFixed(1);
  }

  /**
   * The age of the picture: at the instant it was drawn while the stream is live, growing otherwise.
   * Says nothing rather than something uncertain.
   */
  age(nowMs, clock, live) {
    const unknown = { text: "--", late: false, ms: null, uncertaintyMs: null };
    if (this.last === null || this.last.dueMs === 0) return unknown;
    const at = live ? this.last.nowMs : nowMs;
    const best = (live && this.last.clock) || clock.best(nowMs);
    if (best === null) return unknown;
    const ms = at + best.offsetMs - this.last.dueMs;
    if (ms < -best.uncertaintyMs - 1 || ms > ABSURD_MS) return unknown;
    const late = live && ms > LATE_MS;
    const doubt = best.uncertaintyMs < 0.95 ? best.uncertaintyMs.toFixed(1) : Math.ceil(best.uncertaintyMs);
    return {
      text: `${ms.toFixed(0)} ms ±${doubt}${late ? " late" : ""}`,
      late,
      ms,
      uncertaintyMs: best.uncertaintyMs,
    };
  }

  /** Frames that the pipeline dropped, all reasons. */
  drops(said) {
    if (said === null || said.drops === null) return "--";
    return Object.values(said.drops).reduce((sum, count) => sum + count, 0);
  }

  /** Lines for the details panel. */
  details(nowMs, clock, said, frame, window) {
    const best = clock.best(nowMs);
    const rate = (hz) => (typeof hz === "number" ? `${hz.toFixed(1)} /s` : "--");
    const counts = (table) =>
      Object.entries(table ?? {})
        .filter(([, count]) => count > 0)
        .map(([reason, count]) => `${reason.replaceAll("_", " ")} ${count}`)
        .join(", ") || "none";
    const inference = said?.inference_ms;
    const lines = [
      ["Grabbed", rate(said?.grabbed_hz)],
      ["Published (unique)", rate(said?.published_hz)],
      ["Received by the server", rate(said?.received_hz)],
      ["Dropped", counts(said?.drops)],
      ["Without AI", counts(said?.passthrough)],
      ["Synthetic", said?.published > 0 ? `${said.synthetic} of ${said.published}` : "--"],
      ["One inference", typeof inference === "number" ? `${inference.toFixed(1)} ms` : "--"],
      ...engineLines(said),
      ...adaptationLines(said?.adaptation),
      ["Engine restarts", said?.engine_restarts ?? "--"],
      ...(said?.source_why ? [["Source", said.source_why]] : []),
      ["Skipped by this viewer", this.skipped],
      ["Not readable", this.refusals === 0 ? "none" : `${this.refusals}: ${this.refusal}`],
      ["Clock offset known to", best === null ? "--" : `±${best.uncertaintyMs.toFixed(2)} ms`],
      ["Viewers of this server", said?.viewers ?? "--"],
      ["Publisher", said?.publisher ? `process ${said.publisher_pid ?? "--"}` : "gone"],
    ];
    if (frame !== null) {
      lines.push(
        ["Format", `${frame.rows} x ${frame.columns}, ${frame.bits} bits stored`],
        ["Pixel", pixelSize(frame.spacing)],
        ["Window", `centre ${window.center.toFixed(0)}, width ${window.width.toFixed(0)}`],
      );
    }
    for (const note of said?.notes ?? []) lines.push(["Note", note]);
    return lines.map(([name, value]) => `${name.padEnd(COLUMN)}${folded(value)}`).join("\n");
  }
}

/** [name, value] pairs on the patient's adaptation; none where none is asked for. */
function adaptationLines(said) {
  if (!said) return [];
  const lines = [["Adaptation", said.words ?? said.failure ?? "being made ready"]];
  if (typeof said.ready_ms === "number") lines.push(["Made ready in", `${(said.ready_ms / 1000).toFixed(2)} s`]);
  if (typeof said.distance === "number") {
    lines.push(["Projection", `distance ${said.distance.toFixed(2)}, limit ${said.limit.toFixed(2)}`]);
  }
  if (said.why_general) lines.push(["General model", said.why_general]);
  return lines;
}

/** How large a pixel is, and where: what lies nearer to the focal spot is shown larger. */
function pixelSize(spacing) {
  if (spacing === null) return "of unknown size";
  return `${spacing.rowMm.toFixed(4)} x ${spacing.columnMm.toFixed(4)} mm ${spacing.place}`;
}

/** A long value over several lines, each below the first. */
function folded(value) {
  const lines = [""];
  for (const word of `${value}`.split(" ")) {
    const line = lines[lines.length - 1];
    if (line !== "" && line.length + word.length >= WIDEST) lines.push(word);
    else lines[lines.length - 1] = line === "" ? word : `${line} ${word}`;
  }
  return lines.join(`\n${" ".repeat(COLUMN)}`);
}
