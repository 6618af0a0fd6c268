// People over frames, so that each is counted once. Pure functions on plain objects; times in milliseconds.
//
// A face continues the track whose last box it overlaps most (greedy intersection over union, as in SORT without its
// motion model: Bewley et al. 2016). Each reading votes with its confidence, and older votes fade, so that someone who
// puts a mask on is seen to. What is not sure does not vote.

export const STATES = ["worn", "incorrect", "none"];
const OVERLAP = 0.25; // the least that continues a track: readings may be 300 ms apart
const GONE_MS = 1500;
const FADE = 0.85;
const VOTES = 3; // readings before a person counts
const SHARE = 0.6; // of the votes, for a state to be said

/** Nobody seen, nobody counted. */
export const nobody = () => ({ tracks: [], counted: { worn: 0, incorrect: 0, none: 0 }, next: 1 });

/** Intersection over union of two boxes [left, top, right, bottom]. */
export function overlap(a, b) {
  const width = Math.min(a[2], b[2]) - Math.max(a[0], b[0]);
  const height = Math.min(a[3], b[3]) - Math.max(a[1], b[1]);
  if (width <= 0 || height <= 0) return 0;
  const shared = width * height;
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  return shared / (area(a) + area(b) - shared);
}

function pairs(tracks, answers) {
  const pairs = [];
  tracks.forEach((track, i) => answers.forEach((answer, j) => {
    const share = overlap(track.box, answer.box);
    if (share >= OVERLAP) pairs.push([share, i, j]);
  }));
  pairs.sort((a, b) => b[0] - a[0]);
  const match = new Map();
  const taken = new Set();
  for (const [, i, j] of pairs) {
    if (taken.has(i) || match.has(j)) continue;
    taken.add(i);
    match.set(j, i);
  }
  return match;
}

function voted(track, answer, now) {
  const sure = STATES.includes(answer.mask);
  const votes = { ...track.votes };
  if (sure) for (const state of STATES) votes[state] *= FADE;
  if (sure) votes[answer.mask] += answer.confidences?.mask ?? answer.confidence;
  const seen = track.seen + (sure ? 1 : 0);
  const total = STATES.reduce((sum, state) => sum + votes[state], 0);
  const best = STATES.reduce((a, b) => (votes[b] > votes[a] ? b : a));
  const clear = seen >= VOTES && votes[best] >= SHARE * total;
  return { ...track, box: answer.box, answer, last: now, votes, seen, state: clear ? best : track.state };
}

/** The faces of one frame -> the new state; faces without a box cannot be followed and are left out. */
export function advance(before, answers, now) {
  const boxed = answers.filter((answer) => answer.box);
  const match = pairs(before.tracks, boxed);
  let next = before.next;
  const present = boxed.map((answer, j) => {
    const old = match.has(j)
      ? before.tracks[match.get(j)]
      : { id: next++, seen: 0, state: null, votes: { worn: 0, incorrect: 0, none: 0 } };
    return voted(old, answer, now);
  });
  const matched = new Set(match.values());
  const missing = before.tracks.filter((_, i) => !matched.has(i));
  const counted = { ...before.counted };
  for (const track of missing) if (track.state && now - track.last > GONE_MS) counted[track.state] += 1;
  const waiting = missing.filter((track) => now - track.last <= GONE_MS);
  return { tracks: [...present, ...waiting], counted, next };
}

/** People per state: those who left, and those in view whose state is clear. */
export function counts(state) {
  const sum = { ...state.counted };
  for (const track of state.tracks) if (track.state) sum[track.state] += 1;
  return sum;
}

/** Start the count afresh; people in view are counted again. */
export const reset = (state) => ({ ...nobody(), next: state.next });

/** What the signal shows for those in this frame: the worst state, "indeterminate" until one is clear, "nobody". */
export function signal(state, now) {
  const present = state.tracks.filter((track) => track.last === now);
  if (present.length === 0) return "nobody";
  for (const worst of ["none", "incorrect"]) if (present.some((track) => track.state === worst)) return worst;
  return present.every((track) => track.state === "worn") ? "worn" : "indeterminate";
}
