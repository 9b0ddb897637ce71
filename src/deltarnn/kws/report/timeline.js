// A long stream to look along: the largest score of every moment, its words and detections; drag to move, wheel to zoom.
"use strict";
const view = document.getElementById("timeline"), data = JSON.parse(document.getElementById("timeline-data").textContent);
const context = view.getContext("2d"), note = document.getElementById("timeline-note");
const scores = Uint8Array.from(atob(data.scores), (c) => c.charCodeAt(0));
// At first 16 pixels a second, and below 10 no words: they would lie over each other.
let from = 0, span = Math.min(view.clientWidth / 16 || 60, data.seconds);
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name);
const level = (byte) => data.low + (byte / 255) * (data.high - data.low);

function draw() {
  const ratio = window.devicePixelRatio || 1, width = view.clientWidth, height = view.clientHeight;
  view.width = width * ratio;
  view.height = height * ratio;
  context.setTransform(ratio, 0, 0, ratio, 0, 0);
  context.font = "11px ui-sans-serif, system-ui, sans-serif";
  const x = (time) => ((time - from) / span) * width;
  const y = (score) => 36 + (height - 60) * (1 - (score - data.low) / (data.high - data.low));
  const shown = (begin, end) => end >= from && begin <= from + span;
  for (const section of data.sections) {
    if (!shown(section.start, section.end)) continue;
    context.fillStyle = colour("--soft");
    context.fillText(section.kind, Math.max(4, x(section.start) + 4), height - 6);
    context.fillStyle = colour("--line");
    context.fillRect(x(section.start), 26, 1, height - 42);
  }
  const taken = [-Infinity, -Infinity];  // two rows of words, and where each ends so far
  for (const word of data.words) {
    if (!shown(word.start, word.end)) continue;
    context.globalAlpha = 0.25;
    context.fillStyle = colour(word.hit ? "--green" : "--red");
    context.fillRect(x(word.start), 26, Math.max(1, x(word.end) - x(word.start)), height - 46);
    context.globalAlpha = 1;
    const row = taken.findIndex((end) => end < x(word.start));
    if (width <= 10 * span || row < 0) continue;
    context.fillText(word.word, x(word.start), 11 + 11 * row);
    taken[row] = x(word.start) + context.measureText(word.word).width + 3;
  }
  context.strokeStyle = colour("--grey");
  context.setLineDash([4, 4]);
  context.beginPath();
  context.moveTo(0, y(data.threshold));
  context.lineTo(width, y(data.threshold));
  context.stroke();
  context.setLineDash([]);
  context.strokeStyle = colour("--blue");
  context.beginPath();
  // One vertical stroke per pixel, over what lies within it: no peak is lost at any zoom.
  for (let pixel = 0; pixel < width; ++pixel) {
    const first = Math.floor((from + (pixel / width) * span) / data.stride);
    const last = Math.max(first + 1, Math.floor((from + ((pixel + 1) / width) * span) / data.stride));
    let low = 255, high = 0;
    for (let i = first; i < Math.min(last, scores.length); ++i) {
      low = Math.min(low, scores[i]);
      high = Math.max(high, scores[i]);
    }
    if (high < low) break;
    context.lineTo(pixel, y(level(low)));
    context.lineTo(pixel, y(level(high)));
  }
  context.stroke();
  for (const event of data.events) {
    if (!shown(event.time, event.time)) continue;
    context.fillStyle = colour(event.right ? "--green" : "--red");
    context.beginPath();
    context.arc(x(event.time), y(event.score), 4, 0, 7);
    context.fill();
    if (width > 10 * span && !event.right) context.fillText(event.word, x(event.time) + 6, y(event.score));
  }
  note.textContent = `${from.toFixed(1)} to ${(from + span).toFixed(1)} s of ${data.seconds.toFixed(0)} s`;
}

function show(start, length) {
  span = Math.min(data.seconds, Math.max(2, length));
  from = Math.min(data.seconds - span, Math.max(0, start));
  draw();
}

view.addEventListener("wheel", (event) => {
  event.preventDefault();
  const share = event.offsetX / view.clientWidth, factor = event.deltaY > 0 ? 1.25 : 0.8, at = from + share * span;
  const length = Math.min(data.seconds, Math.max(2, span * factor));
  show(at - share * length, length);
}, { passive: false });
view.addEventListener("pointermove", (event) => {
  if (event.buttons) show(from - (event.movementX / view.clientWidth) * span, span);
});
view.addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.25, ArrowRight: 0.25, PageUp: -1, PageDown: 1 }[event.key];
  if (step !== undefined) show(from + step * span, span);
  else if (event.key === "+") show(from + span * 0.1, span * 0.8);
  else if (event.key === "-") show(from - span * 0.125, span * 1.25);
  else return;
  event.preventDefault();
});
for (const link of document.querySelectorAll("[data-time]")) {
  link.addEventListener("click", () => {
    show(Number(link.dataset.time) - 5, 10);
    view.scrollIntoView({ block: "center" });
  });
}
window.addEventListener("resize", draw);
draw();
