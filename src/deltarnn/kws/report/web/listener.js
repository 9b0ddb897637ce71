// In the audio thread: the microphone's sound, or a recording that is played, goes through the spotter; frames go to the page.
class Listener extends AudioWorkletProcessor {
  constructor({ processorOptions: { info, bytes, recording } }) {
    super();
    this.spotter = new Spotter(new WebAssembly.Instance(new WebAssembly.Module(bytes)), info);
    this.resampler = sampleRate === info.rate ? null : new Resampler(sampleRate, info.rate);
    this.recording = recording; // 16-bit samples at info.rate, which must be the context's, or null
    this.played = 0;
    this.busy = 0;
    this.running = true;
    this.port.onmessage = () => { this.running = false; };
  }

  process([input], [output]) {
    if (!this.running) return false;
    const sound = input?.[0];
    if (this.recording) this.running = this.play(output[0]);
    else if (sound) this.hear(toInt16(this.resampler ? this.resampler.push(sound) : sound));
    return this.running;
  }

  /** The next samples of the recording to the loudspeaker and the spotter; false after the last. */
  play(output) {
    const samples = this.recording.subarray(this.played, this.played + output.length);
    samples.forEach((value, n) => { output[n] = value / 32768; });
    this.played += samples.length;
    this.hear(samples);
    if (samples.length === output.length) return true;
    this.port.postMessage({ frames: [], busy: this.busy, ended: true });
    return false;
  }

  hear(samples) {
    const start = Date.now(); // the only clock here: whole milliseconds, which are right in the mean
    const frames = this.spotter.push(samples);
    this.busy += Date.now() - start;
    if (frames.length) this.port.postMessage({ frames, busy: this.busy });
  }
}
registerProcessor("listener", Listener);
