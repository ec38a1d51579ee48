// How a mask is shown: stripes of a colour that the picture lacks, with an outline in black and white, so that it is
// seen on any picture, and on its own colour too.

const COLOURS = [[255, 0, 170], [0, 220, 110], [0, 150, 255], [255, 130, 0], [150, 60, 255]]; // the first one of equals
const NEAR = 160; // distance in RGB under which a colour is lost on another
const SAMPLE = 24; // pixels each way
const OFFSETS = [[1, 0], [-1, 0], [0, 1], [0, -1], [0.7, 0.7], [0.7, -0.7], [-0.7, 0.7], [-0.7, -0.7]];

/** Return the colour that the fewest pixels of a picture come near to. */
export function unlike(picture) {
  const context = new OffscreenCanvas(SAMPLE, SAMPLE).getContext("2d", { willReadFrequently: true });
  context.drawImage(picture, 0, 0, SAMPLE, SAMPLE);
  const { data } = context.getImageData(0, 0, SAMPLE, SAMPLE);
  const near = ([r, g, b]) => {
    let count = 0;
    for (let i = 0; i < data.length; i += 4) {
      if (data[i + 3] > 64 && Math.hypot(data[i] - r, data[i + 1] - g, data[i + 2] - b) < NEAR) count++;
    }
    return count;
  };
  const counts = COLOURS.map(near);
  return COLOURS[counts.indexOf(Math.min(...counts))];
}

function stripes([r, g, b], step) {
  const side = Math.round(8 * step);
  const tile = new OffscreenCanvas(side, side);
  const context = tile.getContext("2d");
  context.fillStyle = `rgb(${r} ${g} ${b} / 0.62)`;
  context.fillRect(0, 0, side, side);
  context.fillStyle = `rgb(${r * 0.35} ${g * 0.35} ${b * 0.35} / 0.5)`;
  for (let y = 0; y < side; y++) {
    for (let x = 0; x < side; x++) if ((x + y) % side < side * 0.3) context.fillRect(x, y, 1, 1);
  }
  return tile;
}

export class MaskView {
  #shape = new OffscreenCanvas(1, 1);
  #edge = new OffscreenCanvas(1, 1);
  #pattern = null;

  constructor(canvas) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
  }

  /** @param width, height in CSS pixels. */
  resize(width, height) {
    this.density = window.devicePixelRatio || 1;
    for (const canvas of [this.canvas, this.#shape, this.#edge]) {
      canvas.width = Math.max(Math.round(width * this.density), 1);
      canvas.height = Math.max(Math.round(height * this.density), 1);
    }
    this.#pattern = null;
  }

  set colour(colour) {
    this.#colour = colour;
    this.#pattern = null;
  }

  #colour = COLOURS[0];

  draw(mask, box) {
    const { context, canvas } = this;
    const { width, height } = canvas;
    context.clearRect(0, 0, width, height);
    if (!mask) return;
    const shape = this.#shape.getContext("2d");
    shape.globalCompositeOperation = "copy";
    shape.drawImage(mask.canvas, 0, 0, width, height);
    this.#outline("#000", 2.2);
    this.#outline("#fff", 1.1);
    context.globalCompositeOperation = "destination-out";
    context.drawImage(this.#shape, 0, 0);
    context.globalCompositeOperation = "source-over";
    this.#pattern ??= context.createPattern(stripes(this.#colour, this.density), "repeat");
    this.#fill(shape, this.#pattern);
    context.drawImage(this.#shape, 0, 0);
    if (box) this.#frame(box, width / mask.width);
  }

  #fill(context, style) {
    context.globalCompositeOperation = "source-in";
    context.fillStyle = style;
    context.fillRect(0, 0, this.canvas.width, this.canvas.height);
  }

  #outline(colour, reach) {
    const edge = this.#edge.getContext("2d");
    edge.globalCompositeOperation = "source-over";
    edge.clearRect(0, 0, this.canvas.width, this.canvas.height);
    for (const [x, y] of OFFSETS) edge.drawImage(this.#shape, x * reach * this.density, y * reach * this.density);
    this.#fill(edge, colour);
    this.context.drawImage(this.#edge, 0, 0);
  }

  /** The box that can still be moved: dashes and corners to pull. */
  #frame({ x, y, w, h }, scale) {
    const { context, density } = this;
    const [left, top, wide, tall] = [x, y, w, h].map((value) => value * scale);
    context.lineWidth = 1.5 * density;
    for (const [colour, dash] of [["#000", []], ["#fff", [4 * density, 4 * density]]]) {
      context.strokeStyle = colour;
      context.setLineDash(dash);
      context.strokeRect(left, top, wide, tall);
    }
    context.setLineDash([]);
    for (const [cornerX, cornerY] of [[left, top], [left + wide, top], [left, top + tall], [left + wide, top + tall]]) {
      context.beginPath();
      context.arc(cornerX, cornerY, 5 * density, 0, 2 * Math.PI);
      context.fillStyle = "#fff";
      context.fill();
      context.strokeStyle = "#000";
      context.stroke();
    }
  }
}
