// The page: joins the link, the pictures, the state and the user's hands.

import { Link } from "./link.js";
import { engineWords, gpuWords } from "./engine.js";
import { Picture, Window } from "./picture.js";
import { compose, save } from "./snapshot.js";
import {
  adaptationWords,
  currentState,
  hasSynthetic,
  largeWords,
  NOT_LIVE,
  seconds,
  stateWords,
  syntheticMark,
} from "./states.js";
import { Numbers } from "./numbers.js";
import { decode, WireError } from "./wire.js";

const TICK_MS = 100;
const PANELS = { live: ["live"], synthetic: ["synthetic"], overlay: ["overlay"], side: ["live", "synthetic", "overlay"] };

const element = (id) => document.getElementById(id);
const body = document.body.dataset;
const pictures = Object.fromEntries(PANELS.side.map((id) => [id, new Picture(element(id))]));
const grey = new Window();
const numbers = new Numbers();

let newest = null; // the newest frame that came
let drawn = null; // the frame that the canvases hold
let said = null; // the server's last state message
let frozen = null; // {sinceMs, label} while frozen
// An address that ends in #live, #synthetic, #overlay or #side says what is shown at first.
let mode = Object.hasOwn(PANELS, location.hash.slice(1)) ? location.hash.slice(1) : "side";
let comparing = false;
let opacity = 60;
let paintPending = false;
let redraw = false;
let closedKeep = null; // which words on the frames that were written are no longer wanted

const link = new Link({
  frame(buffer) {
    try {
      const frame = decode(buffer);
      frame.at = performance.now();
      newest = frame;
      numbers.received(frame);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
      numbers.refused(error.message);
      setTimeout(() => link.next(), TICK_MS);
      return;
    }
    schedule();
  },
  state(message) {
    said = message;
    said.at = performance.now();
    tick();
  },
});

function schedule() {
  if (paintPending) return;
  paintPending = true;
  requestAnimationFrame(paint);
}

function paintAgain() {
  redraw = true;
  schedule();
}

function paint() {
  paintPending = false;
  const fresh = newest !== null && newest !== drawn && frozen === null;
  if (fresh) drawn = newest;
  if (drawn !== null && (fresh || redraw)) draw(drawn);
  redraw = false;
  const shownMs = performance.now();
  if (fresh) numbers.drawn(drawn, shownMs, link.clock);
  link.next(fresh ? drawn : null, shownMs);
  tick();
}

const view = () => (comparing ? "live" : mode);

function draw(frame) {
  const table = grey.tableFor(frame);
  for (const panel of PANELS[view()]) {
    const picture = pictures[panel];
    if (panel === "live" || !hasSynthetic(frame)) {
      picture.plane(frame, frame.live, table);
    } else if (panel === "synthetic") {
      picture.plane(frame, frame.synthetic, table);
    } else {
      picture.blend(frame, opacity, table);
    }
    if (panel !== "live") picture.mark(...syntheticMark(frame, panel === "overlay" ? opacity : null));
    if (frame.faultsInjected) picture.test();
  }
  element("stage").style.setProperty("--aspect", `${frame.columns / frame.rows}`);
  element("synthetic-caption").textContent = hasSynthetic(frame) ? "Synthetic" : "Synthetic off, showing live";
  element("overlay-caption").textContent = hasSynthetic(frame) ? `Overlay ${opacity} %` : "Overlay off, showing live";
  element("sequence").textContent = frame.sequence;
  body.sequence = frame.sequence;
  body.publication = frame.publication;
}

/** What is shown, by the clock: runs on a timer, so that a picture goes stale with nothing happening. */
function tick() {
  const nowMs = performance.now();
  const now = currentState(nowMs, link, said, newest);
  if (body.state !== now.state || body.reason !== now.reason) {
    body.state = now.state;
    body.reason = now.reason;
    body.stateAt = nowMs;
  }
  body.cause = now.cause;
  text("state", stateWords(now));
  const words = largeWords(now);
  element("veil").hidden = words === null || frozen !== null;
  if (words !== null) {
    text("veil-title", words[0]);
    text("veil-text", words[1]);
  }
  element("frozen").hidden = frozen === null;
  if (frozen !== null) {
    text("frozen", `FROZEN ${seconds(nowMs - frozen.sinceMs)} since ${frozen.label}. Stream: ${stateWords(now)}`);
  }
  const test = drawn !== null && drawn.faultsInjected;
  element("test").hidden = !test;
  body.test = `${test}`;
  const adaptation = adaptationWords(drawn, said);
  element("adaptation").hidden = adaptation === null;
  if (adaptation !== null) text("adaptation", adaptation.words);
  body.adapted = `${adaptation?.adapted ?? false}`;
  element("warning").hidden = !(drawn !== null && drawn.unmaskedText);
  const live = !NOT_LIVE.has(now.state) && frozen === null;
  const age = numbers.age(nowMs, link.clock, live);
  tickKeep();
  text("age", age.text);
  body.ageMs = age.ms ?? "";
  body.ageUncertaintyMs = age.uncertaintyMs ?? "";
  element("age").classList.toggle("late", age.late);
  text("fps", numbers.fps(nowMs));
  text("drops", numbers.drops(said));
  text("engine", engineWords(said));
  const gpu = gpuWords(said);
  element("gpu-figures").hidden = gpu === null;
  text("gpu-name", said?.gpu?.name ?? "GPU");
  text("gpu", gpu ?? "--");
  if (!element("details").hidden) {
    text("details", numbers.details(nowMs, link.clock, said, drawn, drawn && grey.current(drawn)));
  }
}

/** What would be written by the key k, and what became of the last press; only where this browser may have it done. */
function tickKeep() {
  const keep = said?.keep ?? null;
  element("keep").hidden = element("keep-help").hidden = keep === null;
  element("kept").hidden = keep === null || keep.words === "" || keep.serial === closedKeep;
  body.keeps = `${keep !== null}`;
  if (keep === null) return;
  text("keep", `Keep ${Math.round(keep.held_s)} s`);
  text("keep-help-text", `Write the last ${keep.seconds} s of live frames, for calib patient`);
  element("keep").disabled = keep.writing;
  body.keeping = keep.writing ? "writing" : keep.command ? "written" : "";
  text("kept-words", keep.words);
  element("kept-command").hidden = keep.command === "";
  text("kept-command", keep.command);
}

function pressKeep() {
  if (said?.keep) link.keep();
}

function closeKept() {
  closedKeep = said?.keep?.serial ?? null;
  tick();
}

function text(id, words) {
  const target = element(id);
  if (target.textContent !== `${words}`) target.textContent = words;
}

function setMode(name) {
  mode = name;
  body.mode = name;
  showView();
}

function showView() {
  body.view = view();
  for (const button of document.querySelectorAll("button[data-mode]")) {
    button.setAttribute("aria-pressed", `${button.dataset.mode === mode}`);
  }
  element("opacity").disabled = !(mode === "overlay" || mode === "side");
  paintAgain();
}

function setOpacity(percent) {
  opacity = Math.min(Math.max(Math.round(percent), 0), 100);
  element("opacity").value = opacity;
  element("opacity").style.setProperty("--filled", `${opacity}%`);
  text("opacity-text", `${opacity} %`);
  paintAgain();
}

function setFrozen(on) {
  frozen =
    on && drawn !== null
      ? { sinceMs: performance.now(), label: new Date().toLocaleTimeString("en-GB") }
      : null;
  body.frozen = `${frozen !== null}`;
  element("freeze").setAttribute("aria-pressed", body.frozen);
  text("freeze", frozen === null ? "Freeze" : "Go on");
  paintAgain();
  tick();
}

function setComparing(on) {
  if (comparing === on) return;
  comparing = on;
  showView();
}

function resetWindow() {
  grey.reset();
  paintAgain();
}

async function snapshot() {
  if (drawn === null) return;
  const now = currentState(performance.now(), link, said, newest);
  const shown = PANELS[view()];
  const synthetic = hasSynthetic(drawn) && shown.some((panel) => panel !== "live");
  const what = synthetic ? `SYNTHETIC${drawn.adaptation ? ", patient-adapted" : ""}` : "LIVE";
  const still = frozen === null ? "" : ` · FROZEN ${frozen.label}`;
  const state = now.state === "SYNTHETIC" ? "" : ` · ${stateWords(now)}`;
  const words = [
    `${what}${state}${still} · frame ${drawn.sequence}`,
    "Research use only, not a medical device",
  ];
  const large = frozen === null ? (largeWords(now)?.[0] ?? null) : null;
  await save(compose(shown.map((panel) => element(panel)), words, large));
}

function fullScreen() {
  if (document.fullscreenElement !== null) document.exitFullscreen();
  else document.documentElement.requestFullscreen();
}

function toggleHelp() {
  const help = element("help");
  if (help.open) help.close();
  else help.showModal();
}

function toggleDetails() {
  element("details").hidden = !element("details").hidden;
  tick();
}

const KEYS = {
  1: () => setMode("live"),
  2: () => setMode("synthetic"),
  3: () => setMode("overlay"),
  4: () => setMode("side"),
  " ": () => setFrozen(frozen === null),
  c: () => setComparing(true),
  s: snapshot,
  k: pressKeep,
  f: fullScreen,
  w: resetWindow,
  i: toggleDetails,
  "?": toggleHelp,
};
const STEPS = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1 };

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey) return;
  if (event.key in STEPS) {
    setOpacity(opacity + STEPS[event.key] * (event.shiftKey ? 1 : 5));
  } else if (event.key.toLowerCase() in KEYS && !event.repeat) {
    KEYS[event.key.toLowerCase()]();
  } else {
    return;
  }
  event.preventDefault();
});
addEventListener("keyup", (event) => {
  if (event.key.toLowerCase() === "c") setComparing(false);
  // A button that has the focus would take the key that froze the picture as a click too.
  if (event.key === " ") event.preventDefault();
});
addEventListener("blur", () => setComparing(false));

for (const button of document.querySelectorAll("button[data-mode]")) {
  button.addEventListener("click", () => setMode(button.dataset.mode));
}
element("opacity").addEventListener("input", (event) => setOpacity(event.target.valueAsNumber));
element("freeze").addEventListener("click", () => setFrozen(frozen === null));
element("compare").addEventListener("pointerdown", () => setComparing(true));
for (const end of ["pointerup", "pointerleave", "pointercancel"]) {
  element("compare").addEventListener(end, () => setComparing(false));
}
element("compare").addEventListener("contextmenu", (event) => event.preventDefault());
element("reset").addEventListener("click", resetWindow);
element("snapshot").addEventListener("click", snapshot);
element("keep").addEventListener("click", pressKeep);
element("kept-close").addEventListener("click", closeKept);
element("full").addEventListener("click", fullScreen);
element("help-button").addEventListener("click", toggleHelp);
element("help-close").addEventListener("click", toggleHelp);

let drag = null;
for (const { canvas } of Object.values(pictures)) {
  canvas.addEventListener("pointerdown", (event) => {
    if (drawn === null || event.button !== 0) return;
    canvas.setPointerCapture(event.pointerId);
    drag = { x: event.clientX, y: event.clientY, from: grey.current(drawn) };
  });
  canvas.addEventListener("pointermove", (event) => {
    if (drag === null || drawn === null) return;
    grey.drag(drawn, drag.from, event.clientX - drag.x, event.clientY - drag.y);
    paintAgain();
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (drag = null));
  canvas.addEventListener("dblclick", resetWindow);
}

setMode(mode);
setOpacity(opacity);
setInterval(tick, TICK_MS);
