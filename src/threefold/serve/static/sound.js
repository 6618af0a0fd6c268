// Three short signals that differ in height and number, so that they are told apart without looking.

const TONES = { worn: [880], incorrect: [520, 520], none: [300, 300, 300] }; // hertz
const LENGTH_S = 0.14;
const GAP_S = 0.07;
const LOUD = 0.22;
let context = null;

/** Call from a press: browsers allow sound only then. */
export function allowSound() {
  context ??= new AudioContext();
  return context.resume();
}

/** Play the signal of a state, if it has one and sound was allowed; returns how many tones were started. */
export function play(state) {
  const tones = TONES[state] ?? [];
  if (!context || context.state !== "running") return 0;
  tones.forEach((height, place) => {
    const start = context.currentTime + place * (LENGTH_S + GAP_S);
    const tone = context.createOscillator();
    const volume = context.createGain();
    tone.frequency.value = height;
    volume.gain.setValueAtTime(0, start);
    volume.gain.linearRampToValueAtTime(LOUD, start + 0.02); // no click at either end
    volume.gain.linearRampToValueAtTime(0, start + LENGTH_S);
    tone.connect(volume).connect(context.destination);
    tone.start(start);
    tone.stop(start + LENGTH_S);
  });
  return tones.length;
}
