// From samples to frames and detections: the WebAssembly module, a resampler, WAV files. Runs in the page and its audio thread.
"use strict";

/** The keyword spotter of `info` over an instance of its module. */
class Spotter {
  constructor(instance, info) {
    const module = instance.exports, memory = module.memory.buffer;
    const Activation = info.activationBytes === 1 ? Int8Array : Int16Array;
    this.info = info;
    this.module = module;
    this.buffer = new Int16Array(memory, module.buffer(), info.hop);
    this.features = new Activation(memory, module.features(), info.features);
    this.sums = new Int32Array(memory, module.sums(), info.keywords.length);
    this.events = new Uint8Array(memory, module.events(), info.columns.reduce((sum, group) => sum + group.count, 0));
    this.reset();
  }

  reset() {
    this.module.reset();
    this.frames = 0;
  }

  /** Take samples (Int16Array, any number); the frames that they complete, each with what it decided. */
  push(samples) {
    const { module, info } = this, frames = [];
    for (let start = 0; start < samples.length; start += info.hop) {
      const piece = samples.subarray(start, start + info.hop);
      this.buffer.set(piece);
      for (let taken = 0; taken < piece.length;) {
        taken += module.push(taken, piece.length - taken);
        if (module.frames() === this.frames) continue;
        this.frames = module.frames();
        const word = module.word();
        frames.push({
          features: this.features.slice(),
          scores: Float32Array.from(this.sums, (sum) => (sum - info.scoreOffset) / info.scoreUnit),
          events: this.events.slice(),
          detection: word < 0 ? null : {
            word: info.keywords[word - info.others], time: module.time() / info.rate, score: module.score() / info.scoreUnit,
          },
        });
      }
    }
    return frames;
  }
}

/** Samples at `from` Hz to samples at `to` Hz, piece by piece: a windowed sinc, Kaiser's window, 24 zero crossings a side. */
class Resampler {
  constructor(from, to) {
    const gcd = (a, b) => (b ? gcd(b, a % b) : a), common = gcd(from, to);
    this.up = to / common;
    this.down = from / common;
    const cutoff = 0.94 * Math.min(1, to / from), beta = 9, half = Math.ceil(24 / cutoff);
    const bessel = (x) => {
      let sum = 1, term = 1;
      for (let k = 1; term > 1e-12 * sum; ++k) sum += term *= (x / (2 * k)) ** 2;
      return sum;
    };
    // One row of taps for each place that an output may have between two inputs.
    this.taps = 2 * half;
    this.rows = Array.from({ length: this.up }, (_, phase) => Float64Array.from({ length: this.taps }, (_, tap) => {
      const t = tap - half + 1 - phase / this.up, angle = Math.PI * cutoff * t, place = t / half;
      const window = Math.abs(place) >= 1 ? 0 : bessel(beta * Math.sqrt(1 - place * place)) / bessel(beta);
      return (angle === 0 ? 1 : Math.sin(angle) / angle) * cutoff * window;
    }));
    this.held = new Float64Array(half - 1); // silence before the first sample
    this.position = 0; // of the next output, in 1/up samples from the first tap's place
  }

  push(samples) {
    const signal = new Float64Array(this.held.length + samples.length), out = [];
    signal.set(this.held);
    signal.set(samples, this.held.length);
    let start = Math.floor(this.position / this.up);
    while (start + this.taps <= signal.length) {
      const row = this.rows[this.position % this.up];
      let sum = 0;
      for (let tap = 0; tap < this.taps; ++tap) sum += row[tap] * signal[start + tap];
      out.push(sum);
      this.position += this.down;
      start = Math.floor(this.position / this.up);
    }
    const dropped = Math.min(start, signal.length);
    this.held = signal.slice(dropped);
    this.position -= dropped * this.up;
    return Float64Array.from(out);
  }

  /** The rest, as if silence followed. */
  flush() {
    return this.push(new Float64Array(this.taps / 2));
  }
}

/** Samples from -1 to 1 as 16-bit ones, clipped. */
function toInt16(samples) {
  return Int16Array.from(samples, (value) => Math.max(-32768, Math.min(32767, Math.round(value * 32768))));
}

/** The rate and the samples (mean of the channels, -1 to 1) of a WAV file of 16-bit integers; null for any other file. */
function readWav(content) {
  const view = new DataView(content), text = (at) => String.fromCharCode(...new Uint8Array(content, at, 4));
  if (content.byteLength < 44 || text(0) !== "RIFF" || text(8) !== "WAVE") return null;
  let rate = 0, channels = 0;
  for (let at = 12; at + 8 <= content.byteLength;) {
    const size = view.getUint32(at + 4, true), begin = at + 8;
    if (text(at) === "fmt ") {
      if (view.getUint16(begin, true) !== 1 || view.getUint16(begin + 14, true) !== 16) return null;
      channels = view.getUint16(begin + 2, true);
      rate = view.getUint32(begin + 4, true);
      if (!channels || !rate) return null;
    } else if (text(at) === "data" && channels) {
      const count = Math.floor(Math.min(size, content.byteLength - begin) / (2 * channels));
      return { rate, samples: Float32Array.from({ length: count }, (_, n) => {
        let sum = 0;
        for (let c = 0; c < channels; ++c) sum += view.getInt16(begin + 2 * (n * channels + c), true);
        return sum / channels / 32768;
      }) };
    }
    at = begin + size + (size % 2);
  }
  return null;
}
