'use strict';
// Decodes the attention maps and turns them into pixels. The page's data is described in explorer.py.

const KINDS = ['spatial', 'content', 'combined'];
const MEAN = -1; // the head number that stands for the mean of all heads

function bytesOf(base64) {
  const text = atob(base64);
  const bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return bytes;
}

async function unzip(base64) {
  const stream = new Blob([bytesOf(base64)]).stream().pipeThrough(new DecompressionStream('gzip'));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

class Maps {
  constructor(data, bytes, peaks) {
    this.data = data;
    this.rows = data.grid.rows;
    this.columns = data.grid.columns;
    this.bytes = bytes;
    this.peaks = peaks;
    this.colours = bytesOf(data.colours);
    this.cache = new Map();
  }

  static async load(data) {
    const peaks = bytesOf(data.peaks);
    return new Maps(data, await unzip(data.maps), new Float32Array(peaks.buffer));
  }

  // Weights (rows * columns) of one map; bytes hold the square root of weight / largest weight.
  get(detection, layer, kind, head) {
    const key = [detection, layer, kind, head].join();
    if (!this.cache.has(key)) {
      if (this.cache.size > 600) this.cache.clear();
      this.cache.set(key, head === MEAN ? this.mean(detection, layer, kind) : this.decode(detection, layer, kind, head));
    }
    return this.cache.get(key);
  }

  decode(detection, layer, kind, head) {
    const index = ((detection * this.data.layers.length + layer) * KINDS.length + kind) * this.data.heads + head;
    const size = this.rows * this.columns;
    const peak = this.peaks[index];
    return Float32Array.from(this.bytes.subarray(index * size, (index + 1) * size), (byte) => peak * (byte / 255) ** 2);
  }

  mean(detection, layer, kind) {
    const sum = new Float32Array(this.rows * this.columns);
    for (let head = 0; head < this.data.heads; head++) {
      this.get(detection, layer, kind, head).forEach((weight, i) => { sum[i] += weight / this.data.heads; });
    }
    return sum;
  }

  // The weight at a point of the original image: of its token, or interpolated between token centres.
  sample(weights, x, y, smooth) {
    const u = x / this.data.grid.cellWidth, v = y / this.data.grid.cellHeight;
    const clampColumn = (i) => Math.min(Math.max(i, 0), this.columns - 1);
    const clampRow = (i) => Math.min(Math.max(i, 0), this.rows - 1);
    if (!smooth) return weights[clampRow(Math.floor(v)) * this.columns + clampColumn(Math.floor(u))];
    const column = Math.floor(u - 0.5), row = Math.floor(v - 0.5);
    const right = u - 0.5 - column, below = v - 0.5 - row;
    const left = clampColumn(column), next = clampColumn(column + 1);
    const upper = clampRow(row) * this.columns, lower = clampRow(row + 1) * this.columns;
    return (1 - below) * ((1 - right) * weights[upper + left] + right * weights[upper + next])
      + below * ((1 - right) * weights[lower + left] + right * weights[lower + next]);
  }

  // Paint a map of the whole image into a canvas; `top` gets the brightest colour.
  paint(canvas, weights, top, smooth, width, seeThrough) {
    const { width: imageWidth, height: imageHeight } = this.data.image;
    canvas.width = Math.round(width);
    canvas.height = Math.max(1, Math.round(width * imageHeight / imageWidth));
    const context = canvas.getContext('2d');
    const pixels = context.createImageData(canvas.width, canvas.height);
    const stepX = imageWidth / canvas.width, stepY = imageHeight / canvas.height;
    for (let y = 0, at = 0; y < canvas.height; y++) {
      for (let x = 0; x < canvas.width; x++, at += 4) {
        const weight = this.sample(weights, (x + 0.5) * stepX, (y + 0.5) * stepY, smooth);
        const share = Math.min(1, weight / top);
        const colour = 3 * Math.round(255 * share);
        pixels.data[at] = this.colours[colour];
        pixels.data[at + 1] = this.colours[colour + 1];
        pixels.data[at + 2] = this.colours[colour + 2];
        pixels.data[at + 3] = seeThrough ? 255 * (0.2 + 0.8 * share) : 255; // little weight hides little: the photo stays visible
      }
    }
    context.putImageData(pixels, 0, 0);
    return context;
  }
}

function largest(weights) {
  return weights.reduce((most, weight) => Math.max(most, weight), 1e-12);
}
