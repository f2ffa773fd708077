// From stored pixel values to a canvas: window, blend, and the marks that are burned into the pixels.

/** A window (DICOM centre and width) as a table from stored values to canvas pixels. */
export class Window {
  constructor() {
    this.key = "";
    this.table = new Uint32Array(0);
    this.format = "";
    /** What the user dragged to; null where the stream's own window holds. */
    this.dragged = null;
  }

  /** The window that the stream asks for: its own, or else the whole range of the bits stored. */
  static initial(frame) {
    if (frame.windowCenter !== null && frame.windowWidth > 1) {
      return { center: frame.windowCenter, width: frame.windowWidth };
    }
    return { center: 2 ** (frame.bits - 1), width: 2 ** frame.bits };
  }

  current(frame) {
    return this.dragged ?? Window.initial(frame);
  }

  /**
   * Move the window from where a drag began.
   * @param {{center: number, width: number}} from The window when the drag began.
   * @param {number} dx Pixels to the right: wider, less contrast.
   * @param {number} dy Pixels down: a higher centre, darker.
   */
  drag(frame, from, dx, dy) {
    const step = 2 ** frame.bits / 512;
    const width = Math.min(Math.max(from.width + dx * step, 2), 2 ** (frame.bits + 1));
    const center = Math.min(Math.max(from.center + dy * step, 0), frame.maxValue);
    this.dragged = { center, width };
  }

  reset() {
    this.dragged = null;
  }

  /**
   * The table for a frame: canvas pixels (opaque grey, 0xAABBGGRR) by stored value.
   * DICOM PS3.3 C.11.2.1.2.1, LINEAR: y = clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1) * 255.
   */
  tableFor(frame) {
    const format = `${frame.stream} ${frame.bits} ${frame.inverted}`;
    if (format !== this.format) {
      // Another depth or another source: a window dragged for the old one means nothing here.
      this.format = format;
      this.dragged = null;
    }
    const { center, width } = this.current(frame);
    const key = `${frame.bits} ${frame.inverted} ${center} ${width}`;
    if (key !== this.key) {
      this.key = key;
      const size = 2 ** frame.bits;
      // 16-bit words may hold values above the bits stored; they get the table's last grey level.
      const words = frame.bits === 8 ? 256 : 65536;
      if (this.table.length !== words) this.table = new Uint32Array(words);
      for (let word = 0; word < words; word += 1) {
        const value = Math.min(word, size - 1);
        const y = Math.min(Math.max((value - (center - 0.5)) / (width - 1) + 0.5, 0), 1);
        const grey = Math.round((frame.inverted ? 1 - y : y) * 255);
        this.table[word] = (0xff000000 | (grey << 16) | (grey << 8) | grey) >>> 0;
      }
    }
    return this.table;
  }
}

/** One canvas and the pixels behind it, allocated once per frame size. */
export class Picture {
  /** @param {HTMLCanvasElement} canvas */
  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d", { alpha: false });
    this.image = null;
    this.words = null;
  }

  resize(frame) {
    if (this.image !== null && this.image.width === frame.columns && this.image.height === frame.rows) return;
    this.canvas.width = frame.columns;
    this.canvas.height = frame.rows;
    this.image = this.context.createImageData(frame.columns, frame.rows);
    this.words = new Uint32Array(this.image.data.buffer);
  }

  /** Draw one plane. */
  plane(frame, samples, table) {
    this.resize(frame);
    const words = this.words;
    for (let index = 0; index < words.length; index += 1) words[index] = table[samples[index]];
    this.context.putImageData(this.image, 0, 0);
    this.canvas.dataset.sequence = frame.sequence;
    this.canvas.dataset.markRows = 0;
  }

  /**
   * Draw live + opacity * (synthetic - live), both of one message, so of one frame.
   * @param {number} percent Opacity, 0 to 100. 0 is live and 100 is synthetic, exactly.
   */
  blend(frame, percent, table) {
    this.resize(frame);
    const { live, synthetic } = frame;
    const words = this.words;
    // 12 fractional bits keep the product of a 16-bit difference inside a 32-bit integer.
    const opacity = Math.round((percent * 4096) / 100);
    for (let index = 0; index < words.length; index += 1) {
      const under = live[index];
      words[index] = table[under + (((synthetic[index] - under) * opacity + 2048) >> 12)];
    }
    this.context.putImageData(this.image, 0, 0);
    this.canvas.dataset.sequence = frame.sequence;
    this.canvas.dataset.markRows = 0;
  }

  /** Burn in, along the bottom, that faults are injected: the picture is of a test, not of a room. */
  test() {
    burnBand(this.context, "TEST, FAULTS INJECTED", "#ff78ff", this.canvas.width, this.canvas.height);
  }

  /** Burn a mark into the top left corner of the pixels. */
  mark(text, colour) {
    const rows = burnMark(this.context, text, colour, this.canvas.width, this.canvas.height);
    this.canvas.dataset.markRows = rows;
  }
}

/** Write `text` on a black band along the bottom. */
function burnBand(context, text, colour, columns, rows) {
  let size = Math.min(Math.max(Math.round(rows / 20), 8), 40);
  context.font = `700 ${size}px sans-serif`;
  size = Math.max(Math.floor(size * Math.min(1, (0.94 * columns) / context.measureText(text).width)), 6);
  context.font = `700 ${size}px sans-serif`;
  context.textBaseline = "middle";
  context.textAlign = "center";
  context.fillStyle = "#000";
  context.fillRect(0, rows - 1.5 * size, columns, 1.5 * size);
  context.fillStyle = colour;
  context.fillText(text, columns / 2, rows - 0.7 * size);
}

/** Write `text` on a black label in the top left corner; returns the rows that the label covers. */
export function burnMark(context, text, colour, columns, rows) {
  let size = Math.min(Math.max(Math.round(rows / 20), 10), 56);
  context.textBaseline = "middle";
  context.textAlign = "left";
  context.font = `700 ${size}px sans-serif`;
  const room = columns * 0.92;
  const length = context.measureText(text).width;
  if (length > room) {
    size = Math.max(Math.floor((size * room) / length), 6);
    context.font = `700 ${size}px sans-serif`;
  }
  const pad = Math.round(size * 0.4);
  const height = size + pad;
  context.fillStyle = "#000";
  context.fillRect(0, 0, context.measureText(text).width + 2 * pad, height);
  context.fillStyle = colour;
  context.fillText(text, pad, height / 2 + 1);
  return height;
}
