// What was heard and computed, along time: features, events of Δx and Δh, scores; a stretch of a log of frames.
"use strict";

/** The latest frames, at most `capacity`, by number. */
class FrameLog {
  constructor(capacity) {
    this.capacity = capacity;
    this.clear();
  }

  clear() {
    this.frames = [];
    this.length = 0;
    this.detections = [];
  }

  add(frame) {
    this.frames[this.length++ % this.capacity] = frame;
    if (frame.detection) this.detections.push(frame.detection);
  }

  /** Frame `number`, or undefined: before the first, forgotten, or yet to come. */
  at(number) {
    return number >= 0 && number < this.length && number >= this.length - this.capacity
      ? this.frames[number % this.capacity] : undefined;
  }
}

/** Draws a log on a canvas. */
class Strip {
  constructor(canvas, info, log) {
    Object.assign(this, { canvas, info, log, end: null, low: -1, high: 2 });
    this.cells = document.createElement("canvas");
    const group = (ofInput) => {
      let at = 0;
      const places = [];
      for (const columns of info.columns) {
        if (columns.ofInput === ofInput && (!ofInput || columns.layer === 0)) {
          for (let i = 0; i < columns.count; ++i) places.push(at + i);
        }
        at += columns.count;
      }
      return places;
    };
    this.inputs = group(true);
    this.units = group(false);
  }

  get stride() {
    return this.info.hop / this.info.rate;
  }

  /** Sizes in pixels of the screen: whole ones for every cell, so that none is blurred. */
  layout() {
    const ratio = window.devicePixelRatio || 1, wide = this.canvas.clientWidth, narrow = wide < 560;
    const left = Math.round(30 * ratio), right = Math.round(4 * ratio);
    const width = Math.round(wide * ratio) - left - right, gap = Math.round(10 * ratio);
    const column = Math.max(1, Math.round((width * this.stride) / (narrow ? 4 : 9)));
    const panel = (name, rows, height) => {
      const row = Math.max(1, Math.round((height * ratio) / rows));
      return { name, rows, row, height: row * rows };
    };
    const panels = [
      panel("features", this.info.features, narrow ? 96 : 112),
      panel("Δx", this.inputs.length, narrow ? 56 : 64),
      panel("Δh", this.units.length, narrow ? 112 : 128),
      { name: "scores", rows: 1, height: Math.round((narrow ? 150 : 170) * ratio) },
    ];
    let top = Math.round(4 * ratio);
    for (const each of panels) {
      each.top = top;
      top += each.height + gap;
    }
    return { ratio, left, width, column, panels, shown: Math.floor(width / column), height: top + Math.round(12 * ratio) };
  }

  draw() {
    const layout = this.layout(), { ratio, left, width, column, panels, shown } = layout;
    const across = Math.round(this.canvas.clientWidth * ratio), context = this.canvas.getContext("2d");
    if (this.canvas.width !== across || this.canvas.height !== layout.height) {
      this.canvas.style.height = `${layout.height / ratio}px`;
      this.canvas.width = across;
      this.canvas.height = layout.height;
    }
    context.clearRect(0, 0, across, layout.height);
    const style = getComputedStyle(document.documentElement);
    const colour = (name) => style.getPropertyValue(name).trim();
    const end = Math.max(this.end ?? this.log.length, Math.min(shown, this.log.length)), first = end - shown;
    const x = (number) => left + (number - first) * column;
    const draw = { context, colour, layout, first, end, x };
    context.imageSmoothingEnabled = false;
    context.font = `${12 * ratio}px ui-sans-serif, system-ui, "Segoe UI", Arial, sans-serif`;
    this.scale(first, end);
    const shade = (value) => Math.max(0, Math.min(1, (value - this.low) / (this.high - this.low)));
    const [features, dx, dh, scores] = panels, unit = 2 ** -this.info.fraction;
    this.tint(draw, features, "--blue", (frame, row) => shade(frame.features[row] * unit));
    this.tint(draw, dx, "--warm", (frame, row) => frame.events[this.inputs[row]]);
    this.tint(draw, dh, "--green", (frame, row) => frame.events[this.units[row]]);
    this.drawScores(draw, scores);
    for (const panel of panels) {
      context.strokeStyle = colour("--line");
      context.lineWidth = ratio;
      context.strokeRect(left - ratio / 2, panel.top - ratio / 2, width + ratio, panel.height + ratio);
      context.save();
      context.translate(16 * ratio, panel.top + panel.height / 2);
      context.rotate(-Math.PI / 2);
      context.fillStyle = colour("--soft");
      context.textAlign = "center";
      context.fillText(panel.name, 0, 0);
      context.restore();
    }
    this.drawTimes(draw);
  }

  /** The levels that are drawn lightest and darkest, led slowly along: 2 % of those in view are lighter, 0.5 % darker. */
  scale(first, end) {
    const values = [];
    for (let number = first; number < end; number += 8) {
      const frame = this.log.at(number);
      if (frame) values.push(...frame.features);
    }
    if (!values.length) return;
    const sorted = Int16Array.from(values).sort(), unit = 2 ** -this.info.fraction;
    const low = sorted[Math.floor(0.02 * sorted.length)] * unit, high = sorted[Math.floor(0.995 * sorted.length)] * unit;
    this.low += 0.15 * (low - this.low);
    this.high += 0.15 * (Math.max(high, low + 1) - this.high);
  }

  /** A panel of cells, rows from the bottom up, as opaque as `value(frame, row)` says. */
  tint({ context, colour, layout, first, x }, panel, name, value) {
    const { column, shown } = layout, [red, green, blue] = channels(colour(name));
    const image = new ImageData(shown, panel.rows);
    for (let i = 0; i < shown; ++i) {
      const frame = this.log.at(first + i);
      if (!frame) continue;
      for (let row = 0; row < panel.rows; ++row) {
        const opacity = value(frame, row), at = 4 * ((panel.rows - 1 - row) * shown + i);
        image.data[at] = red;
        image.data[at + 1] = green;
        image.data[at + 2] = blue;
        image.data[at + 3] = 255 * opacity;
      }
    }
    this.cells.width = shown;
    this.cells.height = panel.rows;
    this.cells.getContext("2d").putImageData(image, 0, 0);
    context.drawImage(this.cells, x(first), panel.top, shown * column, panel.height);
    if (panel.row < 4) return;
    context.fillStyle = colour("--card"); // a thin line between rows
    for (let row = 1; row < panel.rows; ++row) context.fillRect(x(first), panel.top + row * panel.row, shown * column, 1);
  }

  /** Every keyword's score, the largest one dark; the threshold; a dot with its word for each detection. */
  drawScores({ context, colour, layout, first, end, x }, panel) {
    const { ratio, left, width } = layout, { limit, threshold, keywords } = this.info, room = 18 * ratio;
    const y = (score) => panel.top + room + (panel.height - room - 4 * ratio) * (1 - (score + limit) / (2 * limit));
    const line = (pick, stroke, thick) => {
      context.strokeStyle = stroke;
      context.lineWidth = thick * ratio;
      context.beginPath();
      for (let number = Math.max(first, 0); number < end; ++number) {
        const frame = this.log.at(number);
        if (frame) context.lineTo(x(number + 0.5), y(pick(frame.scores)));
      }
      context.stroke();
    };
    const rule = (from, to, height) => {
      context.setLineDash([5 * ratio, 4 * ratio]);
      context.strokeStyle = colour("--red");
      context.lineWidth = ratio;
      context.beginPath();
      context.moveTo(from, height);
      context.lineTo(to, height);
      context.stroke();
      context.setLineDash([]);
    };
    rule(left, left + width, y(threshold));
    rule(left + 8 * ratio, left + 30 * ratio, panel.top + 12 * ratio);
    context.fillStyle = colour("--soft");
    context.textAlign = "left";
    context.fillText("threshold", left + 36 * ratio, panel.top + 16 * ratio);
    context.lineJoin = "round";
    context.globalAlpha = 0.4;
    keywords.forEach((_, k) => line((scores) => scores[k], colour("--grey"), 1));
    context.globalAlpha = 1;
    line((scores) => Math.max(...scores), colour("--blue"), 1.6);
    context.save();
    context.beginPath();
    context.rect(left, panel.top, width, panel.height);
    context.clip();
    for (const { word, time, score } of this.log.detections) {
      const at = x((time - this.info.length / this.info.rate) / this.stride + 0.5);
      if (at < left - 90 * ratio || at > left + width) continue;
      context.fillStyle = colour("--green");
      context.beginPath();
      context.arc(at, y(score), 4 * ratio, 0, 7);
      context.fill();
      context.font = `600 ${13 * ratio}px ui-sans-serif, system-ui, "Segoe UI", Arial, sans-serif`;
      context.fillText(word, at + 7 * ratio, y(score) - 3 * ratio);
    }
    context.restore();
  }

  drawTimes({ context, colour, layout, first, end, x }) {
    const { ratio, height, left, width } = layout;
    context.font = `${12 * ratio}px ui-sans-serif, system-ui, "Segoe UI", Arial, sans-serif`;
    context.fillStyle = colour("--soft");
    context.textAlign = "center";
    for (let second = Math.max(0, Math.ceil(first * this.stride)); second <= end * this.stride; ++second) {
      const at = x(second / this.stride);
      if (at >= left + 8 * ratio && at <= left + width - 10 * ratio) context.fillText(`${second} s`, at, height - 2 * ratio);
    }
  }
}

/** Red, green and blue of a colour "#rrggbb" or "#rgb". */
function channels(text) {
  const digits = text.length === 4 ? [...text.slice(1)].map((digit) => digit + digit).join("") : text.slice(1);
  return [0, 2, 4].map((at) => parseInt(digits.slice(at, at + 2), 16));
}
