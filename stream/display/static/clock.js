// The offset between this page's clock and the server's CLOCK_MONOTONIC, which stamps the frames.

const KEPT_MS = 30000;
// Two quartz clocks may drift apart by so much; an old exchange is worth less for it.
const DRIFT = 1e-4;

/** Measures the offset by exchanges over the WebSocket; the exchange with the least doubt wins. */
export class ClockOffset {
  constructor() {
    this.exchanges = [];
  }

  /** Forget everything: another server, another clock. */
  reset() {
    this.exchanges.length = 0;
  }

  /**
   * Take one exchange in.
   * @param {number} sentMs performance.now() when the ping left.
   * @param {number} receivedMs performance.now() when the pong came.
   * @param {number} serverReceivedMs The server's clock when the ping came to it.
   * @param {number} serverSentMs The server's clock when the pong left it.
   */
  take(sentMs, receivedMs, serverReceivedMs, serverSentMs) {
    const roundTripMs = receivedMs - sentMs - (serverSentMs - serverReceivedMs);
    if (!(roundTripMs >= 0)) return;
    this.exchanges.push({
      at: receivedMs,
      offsetMs: (serverReceivedMs + serverSentMs - sentMs - receivedMs) / 2,
      roundTripMs,
    });
    while (this.exchanges.length > 0 && receivedMs - this.exchanges[0].at > KEPT_MS) this.exchanges.shift();
  }

  /** The best exchange as {offsetMs, uncertaintyMs}: half its round trip and the drift since. Null if unknown. */
  best(nowMs) {
    let best = null;
    for (const exchange of this.exchanges) {
      const uncertaintyMs = exchange.roundTripMs / 2 + DRIFT * (nowMs - exchange.at);
      if (best === null || uncertaintyMs < best.uncertaintyMs) {
        best = { offsetMs: exchange.offsetMs, uncertaintyMs };
      }
    }
    return best;
  }
}
