// The WebSocket to the viewer's server: asks for one frame at a time, measures the clock, reconnects by itself.

import { ClockOffset } from "./clock.js";

const RETRY_MS = 500;
// A server that is there speaks at least five times a second.
export const SILENT_MS = 700;
const PING_MS = 1000;
const FIRST_PINGS_MS = [0, 40, 80, 160, 320];
// While the server measures: more exchanges, of which the quickest tell the clock best.
const MEASURING_PING_MS = 100;
// What browsers round performance.now() to, with and without the page to itself (W3C High Resolution Time).
const RESOLUTION_MS = crossOriginIsolated ? 0.005 : 0.1;

export class Link {
  /**
   * @param {{frame: (buffer: ArrayBuffer) => void, state: (state: object) => void}} receiver
   */
  constructor(receiver) {
    this.receiver = receiver;
    this.clock = new ClockOffset();
    this.socket = null;
    /** performance.now() when the server was last heard; the page's own start before that. */
    this.heardAt = performance.now();
    this.everHeard = false;
    this.asked = false;
    /** Whether a server is there that does not know this browser: it was started again. */
    this.stranger = false;
    this.pingTimer = null;
    /** Whether the server has asked when each frame is drawn; it does so only to measure. */
    this.measuring = false;
    /** The last exchange as [sent, came back], for the server that measures; null where it has it. */
    this.back = null;
    this.connect();
    setInterval(() => this.watch(), 250);
  }

  get open() {
    return this.socket !== null && this.socket.readyState === WebSocket.OPEN;
  }

  /** Whether nothing was heard for too long to call any picture live. */
  silent(nowMs) {
    return !this.everHeard || nowMs - this.heardAt > SILENT_MS;
  }

  /**
   * Ask for the newest frame: the credit for one, given back when that one has been drawn.
   * @param frame The frame that has just been drawn; null for none.
   * @param shownMs performance.now() when it was. Sent along only where the server measures.
   */
  next(frame = null, shownMs = 0) {
    if (!this.open || this.asked) return;
    this.asked = true;
    if (this.measuring && frame !== null) {
      const { publication } = frame;
      this.socket.send(JSON.stringify({ type: "next", publication, shown_ms: shownMs }));
    } else {
      this.socket.send('{"type":"next"}');
    }
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/frames`);
    this.socket = socket;
    this.startedAt = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.stranger = false;
      this.clock.reset();
      this.asked = false;
      this.measuring = false;
      this.back = null;
      this.next();
      for (const delay of FIRST_PINGS_MS) setTimeout(() => this.ping(socket), delay);
      this.pingTimer = setInterval(() => this.ping(socket), PING_MS);
    };
    socket.onmessage = (event) => {
      const nowMs = performance.now();
      this.heardAt = nowMs;
      this.everHeard = true;
      if (typeof event.data !== "string") {
        this.asked = false;
        this.receiver.frame(event.data);
        return;
      }
      const message = JSON.parse(event.data);
      if (message.type === "pong") {
        this.clock.take(message.sent_ms, nowMs, message.received_ns / 1e6, message.replied_ns / 1e6);
        this.back = [message.sent_ms, nowMs];
      } else if (message.type === "state") {
        this.receiver.state(message);
      } else if (message.type === "measure") {
        this.measuring = true;
        clearInterval(this.pingTimer);
        this.pingTimer = setInterval(() => this.ping(socket), MEASURING_PING_MS);
      }
    };
    socket.onclose = () => this.lost(socket);
  }

  lost(socket) {
    if (socket !== this.socket) return;
    clearInterval(this.pingTimer);
    this.socket = null;
    this.askWhy();
    setTimeout(() => this.connect(), RETRY_MS);
  }

  /** Whether we are let in: a WebSocket that is refused does not say why to a page, a request does. */
  async askWhy() {
    try {
      const answer = await fetch("/healthz", { cache: "no-store", signal: AbortSignal.timeout(RETRY_MS) });
      this.stranger = answer.status === 401;
    } catch {
      this.stranger = false; // nobody answers
    }
  }

  /** Give up a connection that is open, or opening, and says nothing: a server that hangs never closes it. */
  watch() {
    const socket = this.socket;
    if (socket === null) return;
    const quietMs = performance.now() - Math.max(this.heardAt, this.startedAt);
    if (quietMs > 5 * SILENT_MS) {
      socket.onmessage = null;
      socket.onclose = null;
      socket.close();
      this.lost(socket);
    }
  }

  /** Ask for the frames that the server keeps to be written. */
  keep() {
    if (this.socket?.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type: "keep" }));
  }

  ping(socket) {
    if (socket.readyState !== WebSocket.OPEN) return;
    const ping = { type: "ping", sent_ms: performance.now() };
    if (this.measuring && this.back !== null) {
      ping.back = [...this.back, RESOLUTION_MS];
      this.back = null;
    }
    socket.send(JSON.stringify(ping));
  }
}
