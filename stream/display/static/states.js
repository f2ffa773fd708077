// What the picture is, decided by a timer from what was last heard: never only when something is drawn.

import { SILENT_MS } from "./link.js";

export const SYNTHETIC_COLOUR = "#ffd23f";
export const PLAIN_COLOUR = "#dbe4ee";
/** States in which the whole picture is changed. */
export const NOT_LIVE = new Set(["UNCHANGED", "STALE", "NO_SIGNAL"]);

/** A reason as people read it. */
export function reasonText(reason) {
  return reason.replaceAll("_", " ");
}

/**
 * The state to show now.
 * @param nowMs performance.now().
 * @param link The WebSocket, which knows when the server was last heard.
 * @param server The last state message with `at`, when it came; null before the first.
 * @param frame The newest frame this page has, with `at`, when it came; null before the first.
 * @returns {{state: string, reason: string, ageMs: number, cause: string}} `cause` says who is at fault.
 */
export function currentState(nowMs, link, server, frame) {
  if (link.silent(nowMs) || server === null) {
    const cause = link.stranger ? "stranger" : "server";
    return { state: "NO_SIGNAL", reason: "none", ageMs: nowMs - link.heardAt, cause };
  }
  const { state, reason, why } = server;
  const said = { state, reason, why, ageMs: server.age_ms + nowMs - server.at };
  if (server.state === "NO_SIGNAL") return { ...said, cause: server.ended ? "ended" : "publisher" };
  if (frame === null) {
    // The pipeline lives and no picture has come yet: there is nothing that could be called live.
    return said.state === "STALE" ? { ...said, cause: "source" } : { ...said, cause: "waiting" };
  }
  if (server.stream === "") {
    // A publisher that has come back and has sent no frame yet; what the canvas holds is the former one's.
    return { state: "STALE", reason: "none", ageMs: nowMs - frame.at, cause: "source" };
  }
  const newer =
    frame.stream !== server.stream ? frame.at > server.at : frame.publication > server.publication;
  if (newer) {
    return { state: frame.state, reason: frame.reason, ageMs: frame.ageMs + nowMs - frame.at, cause: "source" };
  }
  const behind = frame.stream !== server.stream || frame.publication < server.publication;
  if (behind && !NOT_LIVE.has(server.state) && nowMs - frame.at > SILENT_MS) {
    return { state: "STALE", reason: "none", ageMs: nowMs - frame.at, cause: "viewer" };
  }
  return { ...said, cause: "source" };
}

/** Duration as people read it. */
export function seconds(ms) {
  if (ms < 60000) return `${(ms / 1000).toFixed(1)} s`;
  const whole = Math.floor(ms / 1000);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, "0")} min`;
}

const SILENCE = {
  server: "The viewer's server does not answer. Reconnecting",
  stranger: "The viewer's server was started again and does not know this browser: open the address that it printed",
  publisher: "Nothing is heard from the pipeline. Waiting for it",
  ended: "The run has ended. Waiting for the next one",
};

/** The large words over a picture that is not live: [title, explanation], or null. */
export function largeWords(now) {
  switch (now.state) {
    case "UNCHANGED":
      return [`UNCHANGED ${seconds(now.ageMs)}`, "The source repeats one image: pedal up, or held?"];
    case "STALE":
      return now.cause === "viewer"
        ? [`STALE ${seconds(now.ageMs)}`, "This viewer is too slow to keep up with the stream"]
        : [`STALE ${seconds(now.ageMs)}`, "The source has stopped"];
    case "NO_SIGNAL":
      return [`NO SIGNAL ${seconds(now.ageMs)}`, now.why || SILENCE[now.cause]];
    default:
      return now.cause === "waiting" ? ["WAITING", "The pipeline is there; its first frame is not"] : null;
  }
}

/** The words on the state label of the head line. */
export function stateWords(now) {
  switch (now.state) {
    case "PASSTHROUGH":
      return `AI OFF: ${reasonText(now.reason)}`;
    case "NO_SIGNAL":
      return "NO SIGNAL";
    default:
      return now.state;
  }
}

/** Whether a frame has synthetic pixels that may be shown. */
export function hasSynthetic(frame) {
  return frame.synthetic !== null && frame.state !== "PASSTHROUGH";
}

/** The mark burned into a picture that would show synthetic pixels: [text, colour]. */
export function syntheticMark(frame, percent) {
  if (!hasSynthetic(frame)) {
    const why = frame.state === "PASSTHROUGH" ? `: ${reasonText(frame.reason)}` : "";
    return [`LIVE, AI off${why}`, PLAIN_COLOUR];
  }
  const who = frame.adaptation ? ", patient-adapted" : "";
  return [`${percent === null ? "SYNTHETIC" : `SYNTHETIC ${percent} %`}${who}`, SYNTHETIC_COLOUR];
}

/**
 * The line on the patient's adaptation: what the picture was drawn with, and why the general model drew where one is asked for.
 * @param frame The frame that is shown; null before the first.
 * @param said The server's last state message; null before the first.
 * @returns {{words: string, adapted: boolean} | null} null where no adaptation is asked for.
 */
export function adaptationWords(frame, said) {
  if (frame !== null && hasSynthetic(frame) && frame.adaptation) return { words: frame.adaptation.words, adapted: true };
  const asked = said?.adaptation;
  if (!asked) return null;
  const why = asked.why_general ?? asked.failure;
  return why ? { words: `General model, not patient-adapted: ${why.split("; ")[0]}`, adapted: false } : null;
}
