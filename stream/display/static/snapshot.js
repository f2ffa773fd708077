// A still of what is shown, as PNG. What it is stands in its pixels; nothing of a patient stands anywhere.

const FOOT_ROWS = 64;
const LEAST_COLUMNS = 640;

/**
 * Compose the picture.
 * @param {HTMLCanvasElement[]} canvases The pictures shown, left to right, with their marks burned in.
 * @param {string[]} words What it is: the line under the pictures.
 * @param {string | null} large Words over a picture that is not live.
 * @returns {HTMLCanvasElement}
 */
export function compose(canvases, words, large) {
  const columns = canvases.reduce((sum, canvas) => sum + canvas.width, 0);
  const rows = Math.max(...canvases.map((canvas) => canvas.height));
  const sheet = document.createElement("canvas");
  sheet.width = Math.max(columns, LEAST_COLUMNS);
  sheet.height = rows + FOOT_ROWS;
  const context = sheet.getContext("2d", { alpha: false });
  context.fillStyle = "#000";
  context.fillRect(0, 0, sheet.width, sheet.height);
  let x = Math.floor((sheet.width - columns) / 2);
  for (const canvas of canvases) {
    context.drawImage(canvas, x, 0);
    x += canvas.width;
  }
  if (large !== null) {
    context.fillStyle = "rgba(0, 0, 0, 0.55)";
    context.fillRect(0, 0, sheet.width, rows);
    line(context, large, 44, "#ff8a5c", sheet.width, rows / 2);
  }
  line(context, words[0], 20, "#ffd23f", sheet.width, rows + 20);
  line(context, words[1], 16, "#dbe4ee", sheet.width, rows + 46);
  return sheet;
}

function line(context, text, size, colour, columns, y) {
  context.textAlign = "center";
  context.textBaseline = "middle";
  context.fillStyle = colour;
  context.font = `700 ${size}px sans-serif`;
  context.fillText(text, columns / 2, y, columns - 16);
}

/** Hand the sheet to the user as a file whose name holds the time and nothing else. */
export async function save(sheet) {
  const blob = await new Promise((resolve) => sheet.toBlob(resolve, "image/png"));
  const stamp = new Date(Date.now() - new Date().getTimezoneOffset() * 60000).toISOString();
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = `contrastream-${stamp.slice(0, 19).replaceAll(/[-:]/g, "")}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}
