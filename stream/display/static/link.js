// The WebSocket to the viewer's server: asks for one frame at a time, measures the clock, reconnects by itself.

import { ClockOffset } from "./clock.js";

const RETRY_MS = 500;
// A server that is there speaks at least five times a second.
export const SILENT_MS = 700;
const PING_MS = 1000;
const FIRST_PINGS_MS = [0, 40, 80, 160, 320];

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
    this.pingTimer = null;
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

  /** Ask for the newest frame: the credit for one, given back when that one has been drawn. */
  next() {
    if (!this.open || this.asked) return;
    this.asked = true;
    this.socket.send('{"type":"next"}');
  }

  connect() {
    const scheme = location.protocol === "https:" ? "wss" : "ws";
    const socket = new WebSocket(`${scheme}://${location.host}/frames`);
    this.socket = socket;
    this.startedAt = performance.now();
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.clock.reset();
      this.asked = false;
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
      } else if (message.type === "state") {
        this.receiver.state(message);
      }
    };
    socket.onclose = () => this.lost(socket);
  }

  lost(socket) {
    if (socket !== this.socket) return;
    clearInterval(this.pingTimer);
    this.socket = null;
    setTimeout(() => this.connect(), RETRY_MS);
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

  ping(socket) {
    if (socket.readyState !== WebSocket.OPEN) return;
    socket.send(JSON.stringify({ type: "ping", sent_ms: performance.now() }));
  }
}
