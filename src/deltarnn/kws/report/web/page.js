// The page: a microphone or a recording to the spotter, and what comes of it onto the screen.
"use strict";
const element = (id) => document.getElementById(id);
const info = JSON.parse(element("info").textContent);
const bytes = Uint8Array.from(atob(element("module").textContent), (c) => c.charCodeAt(0));
const log = new FrameLog(Math.ceil((600 * info.rate) / info.hop)); // ten minutes
const strip = new Strip(element("strip"), info, log);
const frameSeconds = info.hop / info.rate;
const dense = info.columns.reduce((sum, { count, rows }) => sum + count * rows, info.headMacs);
const columnCount = info.columns.reduce((sum, { count }) => sum + count, 0);
const rowsOf = info.columns.flatMap(({ count, rows }) => new Array(count).fill(rows));

let running = null; // what is being listened to: { stop }, or null
let begun = 0; // how often something was begun: what opens slowly gives way to the last
let totals, dirty = true;
let idle = null, busySeconds = null; // seconds of audio and of computing them: of a noise at the start; of what was heard

const number = (value) => value >= 999_500 ? `${(value / 1e6).toFixed(2)} M` : `${Math.round(value / 1e3)} k`;
const percent = (share) => `${(100 * share).toFixed(share > 0.995 || share < 0.1 ? 2 : 1)} %`;
const clock = (seconds) => `${Math.floor(seconds / 60)}:${(seconds % 60).toFixed(2).padStart(5, "0")}`;
const found = () => `${log.detections.length} ${log.detections.length === 1 ? "detection" : "detections"}`;
const say = (text, wrong = false) => {
  element("status").textContent = text;
  element("status").className = wrong ? "wrong" : "";
};

function clear() {
  log.clear();
  strip.end = null;
  totals = { frames: 0, fired: 0, macs: 0, recent: [] };
  busySeconds = idle;
  element("detections").replaceChildren();
  element("heard").textContent = "–";
  element("when").textContent = "the last word heard";
  dirty = true;
}

function add(frames) {
  for (const frame of frames) {
    let fired = 0, macs = info.headMacs;
    frame.events.forEach((event, column) => {
      fired += event;
      macs += event * rowsOf[column];
    });
    totals.frames += 1;
    totals.fired += fired;
    totals.macs += macs;
    totals.recent.push(macs);
    if (totals.recent.length * frameSeconds > 1) totals.recent.shift();
    log.add(frame);
    if (frame.detection) show(frame.detection);
  }
  dirty = true;
}

/** A detection as a word, in the tile and on top of the list. */
function show({ word, time, score }) {
  element("heard").textContent = word;
  element("when").textContent = `heard at ${clock(time)}, score ${score.toFixed(2)}`;
  element("heard").animate?.([{ color: "var(--green)", transform: "scale(1.08)" }, {}], 900);
  const row = document.createElement("tr"), jump = document.createElement("button");
  jump.textContent = clock(time);
  jump.onclick = () => look(Math.round(time / frameSeconds) + Math.floor(strip.layout().shown / 2));
  for (const part of [jump, word, score.toFixed(2)]) row.insertCell().append(part);
  element("detections").prepend(row);
  while (element("detections").rows.length > 200) element("detections").lastChild.remove();
}

/** Let the strip end at a frame; at the last one it follows what comes. */
function look(end) {
  const { shown } = strip.layout(), oldest = Math.max(0, log.length - log.capacity);
  end = Math.max(end, Math.min(oldest + shown, log.length));
  strip.end = end >= log.length ? null : Math.round(end);
  dirty = true;
}

function tiles() {
  const { frames, fired, macs, recent } = totals;
  if (frames) {
    const now = recent.reduce((sum, value) => sum + value, 0) / recent.length / frameSeconds;
    element("skipped").textContent = percent(1 - fired / (frames * columnCount));
    element("macs").textContent = number(now);
    element("macs-note").textContent = `multiply-accumulates a second just now; the dense network ${number(dense / frameSeconds)}`;
    element("share").textContent = percent(1 - macs / (frames * dense));
  } else {
    for (const id of ["skipped", "macs", "share"]) element(id).textContent = "–";
  }
  if (busySeconds) {
    const factor = busySeconds.audio / busySeconds.computing;
    element("speed").textContent = `${factor < 9.5 ? factor.toFixed(1) : Math.round(factor)}×`;
    element("speed-note").textContent = `faster than real time: ${percent(1 / factor)} of one core`;
  }
  const meters = element("meters").children, last = log.at((strip.end ?? log.length) - 1);
  info.keywords.forEach((_, k) => {
    const score = last ? last.scores[k] : -info.limit, share = (score + info.limit) / (2 * info.limit);
    const bar = meters[k].querySelector("i");
    bar.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
    bar.className = score > info.threshold ? "over" : "";
    meters[k].querySelector("b").textContent = last ? score.toFixed(1) : "–";
  });
  element("none").hidden = log.detections.length > 0;
  element("hint").hidden = frames > 0;
}

/** Draw what has changed, at most 30 times a second. */
function refresh(now, last = -Infinity) {
  if (dirty && now - last > 30) {
    dirty = false;
    last = now;
    strip.draw();
    tiles();
  }
  requestAnimationFrame((then) => refresh(then, last));
}

/** What is being listened to from now on, or null. */
function run(what) {
  running = what;
  element("listen").textContent = what ? "Stop" : "Listen";
}

/** Begin something: tells later whether it is still the last that was begun. */
function begin() {
  const mine = ++begun;
  return () => mine === begun;
}

async function stop() {
  const was = running;
  run(null);
  await was?.stop();
}

/** An audio context whose nodes can be listened to. Error with one sentence where the browser cannot. */
async function openAudio(rate) {
  const context = new AudioContext(rate ? { sampleRate: rate } : {});
  if (!context.audioWorklet) throw new Sentence("This browser has no AudioWorklet here: open the page in a current Chrome, Edge, Firefox or Safari.");
  const code = [element("spotter-code"), element("listener-code")].map((script) => script.textContent).join("\n");
  try { // in a file Chrome takes no blob: as the code of its audio thread
    await context.audioWorklet.addModule(`data:text/javascript,${encodeURIComponent(code)}`);
  } catch {
    const address = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    await context.audioWorklet.addModule(address);
    URL.revokeObjectURL(address);
  }
  return context;
}

/** A node that gives the page the frames of what is connected to it, or of a recording, which it plays. */
function listener(context, recording = null, ended = null) {
  const node = new AudioWorkletNode(context, "listener", {
    numberOfInputs: recording ? 0 : 1, numberOfOutputs: recording ? 1 : 0, channelCount: 1, channelCountMode: "explicit",
    processorOptions: { info, bytes, recording },
  });
  node.onprocessorerror = () => say("The spotter stopped in the audio thread: load the page again.", true);
  node.port.onmessage = ({ data }) => {
    add(data.frames);
    if (data.busy >= 20) busySeconds = { computing: data.busy / 1000, audio: log.length * frameSeconds };
    if (data.ended) ended();
  };
  return node;
}

class Sentence extends Error {}

const refusals = {
  NotAllowedError: "The microphone is not allowed: permit it for this page in the browser's address bar, then press Listen.",
  NotFoundError: "No microphone was found: connect one, or drop a recording on this page.",
  NotReadableError: "The microphone cannot be read: another program may be using it.",
};

async function listen() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Sentence("This browser gives a page no microphone here: open it as a file or over https.");
  const latest = begin(), sound = { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: sound });
  let context = null;
  const close = async () => {
    stream.getTracks().forEach((track) => track.stop());
    await context?.close();
  };
  try {
    let source;
    context = await openAudio(info.rate);
    try {
      source = context.createMediaStreamSource(stream);
    } catch { // Firefox connects a microphone only at the rate that it has
      await context.close();
      context = await openAudio();
      source = context.createMediaStreamSource(stream);
    }
    await context.resume();
    if (!latest()) return await close();
    clear();
    source.connect(listener(context));
    const rate = context.sampleRate === info.rate ? "" : `, resampled from ${context.sampleRate} Hz`;
    say(`Listening to the microphone${rate}. Nothing leaves this page.`);
  } catch (error) {
    await close();
    throw error;
  }
  run({ stop: async () => { await close(); say(`Stopped after ${clock(log.length * frameSeconds)}.`); } });
}

/** 16-bit samples at the spotter's rate of an audio file. */
async function decode(file) {
  const content = await file.arrayBuffer();
  let sound = readWav(content);
  if (!sound) {
    try {
      const buffer = await new OfflineAudioContext(1, 1, info.rate).decodeAudioData(content);
      const channels = Array.from({ length: buffer.numberOfChannels }, (_, c) => buffer.getChannelData(c));
      const mean = (n) => channels.reduce((sum, channel) => sum + channel[n], 0) / channels.length;
      sound = { rate: buffer.sampleRate, samples: Float32Array.from({ length: buffer.length }, (_, n) => mean(n)) };
    } catch {
      throw new Sentence(`${file.name}: the browser cannot decode it; a WAV file always works.`);
    }
  }
  if (!sound.samples.length) throw new Sentence(`${file.name}: holds no samples.`);
  if (sound.rate === info.rate) return toInt16(sound.samples);
  const resampler = new Resampler(sound.rate, info.rate);
  return toInt16([...resampler.push(sound.samples), ...resampler.flush()]);
}

/** A whole recording as fast as it goes, with time for the screen in between. */
async function compute(file, samples, latest) {
  const { instance } = await WebAssembly.instantiate(bytes), spotter = new Spotter(instance, info);
  const mine = { stop: async () => say(`${file.name}: stopped after ${clock(log.length * frameSeconds)}.`) };
  let computing = 0;
  if (!latest()) return;
  clear();
  run(mine);
  for (let start = 0; start < samples.length && running === mine; start += 2 * info.rate) {
    const before = performance.now(), frames = spotter.push(samples.subarray(start, start + 2 * info.rate));
    computing += (performance.now() - before) / 1000;
    add(frames);
    await new Promise((resume) => setTimeout(resume));
  }
  if (running !== mine) return;
  if (computing > 0.005) busySeconds = { computing, audio: samples.length / info.rate };
  const speed = computing ? `, ${Math.round(samples.length / info.rate / computing)} × real time` : "";
  say(`${file.name}: ${clock(samples.length / info.rate)} heard in ${computing.toFixed(3)} s${speed}; ${found()}.`);
  run(null);
  dirty = true;
}

/** A recording over the loudspeaker, heard as it is played. */
async function play(file, samples, latest) {
  const context = await openAudio(info.rate);
  await context.resume();
  if (!latest()) return context.close();
  const mine = { stop: async () => { await context.close(); say(`${file.name}: ${clock(log.length * frameSeconds)} played; ${found()}.`); } };
  clear();
  run(mine);
  listener(context, samples, guarded(async () => { if (running === mine) await stop(); })).connect(context.destination);
  say(`Playing ${file.name}.`);
}

async function open(file) {
  if (!file) return;
  await stop();
  const latest = begin();
  say(`Reading ${file.name} …`);
  const samples = await decode(file);
  if (latest()) await (element("aloud").checked ? play : compute)(file, samples, latest);
}

/** Run an action; what goes wrong is said in one sentence. */
const guarded = (action) => async (...given) => {
  try {
    await action(...given);
  } catch (error) {
    await stop();
    say(error instanceof Sentence ? error.message : refusals[error.name] ?? `That did not work: ${error.message || error.name}.`, true);
  }
};

/** How fast this machine is, on a noise in which much fires: before anything is heard. */
async function measure() {
  const { instance } = await WebAssembly.instantiate(bytes), spotter = new Spotter(instance, info);
  const noise = Int16Array.from({ length: info.rate / 2 }, () => 6000 * (Math.random() - 0.5));
  spotter.push(noise); // the browser compiles
  const start = performance.now();
  let audio = 0;
  while (performance.now() - start < 25) {
    spotter.push(noise);
    audio += 0.5;
  }
  idle = { computing: (performance.now() - start) / 1000, audio };
  busySeconds ??= idle;
  dirty = true;
}

element("listen").onclick = guarded(async () => {
  if (running) return stop();
  say("Asking for the microphone …");
  return listen();
});
element("choose").onclick = () => element("file").click();
element("file").onchange = guarded(async ({ target }) => {
  const [file] = target.files;
  target.value = "";
  await open(file);
});
document.addEventListener("dragover", (event) => event.preventDefault());
document.addEventListener("drop", guarded(async (event) => {
  event.preventDefault();
  await open(event.dataTransfer.files[0]);
}));
element("strip").addEventListener("pointermove", ({ buttons, movementX }) => {
  const { ratio, column } = strip.layout();
  if (buttons) look((strip.end ?? log.length) - (movementX * ratio) / column);
});
element("strip").addEventListener("keydown", (event) => {
  const step = { ArrowLeft: -0.25, ArrowRight: 0.25, PageUp: -1, PageDown: 1 }[event.key];
  if (step === undefined) return;
  look((strip.end ?? log.length) + step * strip.layout().shown);
  event.preventDefault();
});
addEventListener("resize", () => { dirty = true; });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => { dirty = true; });

for (const keyword of info.keywords) {
  const row = document.createElement("div"), track = document.createElement("u"), mark = document.createElement("s");
  track.append(document.createElement("i"), mark);
  mark.style.left = `${(50 * (info.threshold + info.limit)) / info.limit}%`;
  row.append(Object.assign(document.createElement("span"), { textContent: keyword }), track, document.createElement("b"));
  element("meters").append(row);
}
clear();
refresh(0);
setTimeout(guarded(measure), 50);
