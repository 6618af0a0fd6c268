// The camera half of the page: one frame at a time to the service, people followed over frames, and a signal.

import { readPhotos } from "./api.js";
import { drawBoxes } from "./boxes.js";
import { CameraError, describe, grab, listCameras, openCamera } from "./device.js";
import { nowItem } from "./face.js";
import { setIcon } from "./icons.js";
import { number, say, t } from "./lang.js";
import { askKey, hush, notify, withKey } from "./shell.js";
import { allowSound, play } from "./sound.js";
import { STATES, advance, counts, nobody, reset, signal } from "./tracks.js";

const SPEAK_MS = 3000; // the least between two sentences of the live region
const LEAST_MS = 60; // between two frames: more than 16 a second tell nothing new
const RETRY_S = 3;
const ICONS = { off: "camera", paused: "wait", waiting: "wait" };
const $ = (id) => document.getElementById(id);
const canvas = document.createElement("canvas");
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let session = null; // {stream}: one per start; a loop whose session is no longer this one ends
let people = nobody();
let times = []; // when the last answers came, ms
let spoken = { state: "off", at: -SPEAK_MS, timer: 0 };
let facing = true;
let between = LEAST_MS;

function speak(state) {
  clearTimeout(spoken.timer);
  if (state === spoken.state) return;
  const rest = spoken.at + SPEAK_MS - performance.now();
  if (rest > 0) {
    spoken.timer = setTimeout(speak, rest, state); // what holds by then is said, what has passed is not
    return;
  }
  spoken = { state, at: performance.now(), timer: 0 };
  say($("live"), `signal.${state}`);
}

function show(state) {
  const band = $("signal");
  if (band.dataset.state === state) return;
  band.dataset.state = state;
  setIcon($("signal-icon"), ICONS[state] ?? state);
  say($("signal-word"), `signal.${state}`);
  if ($("sound").checked) play(state);
  speak(state);
}

function showCounts() {
  const now = counts(people);
  for (const state of STATES) $(`count-${state}`).textContent = number(now[state]);
}

function showSpeed(latency) {
  const now = performance.now();
  times = [...times, now].filter((time) => now - time < 3000);
  const rate = times.length > 1 ? (1000 * (times.length - 1)) / (now - times[0]) : 0;
  $("speed").hidden = times.length < 2;
  say($("speed"), "camera.speed", { rate: () => number(rate, 1), latency: () => number(latency) });
}

function showFaces(width, height, now) {
  const present = people.tracks.filter((track) => track.last === now);
  // the word at a face is the voted one as soon as there is one: it does not flicker
  const answers = present.map((track, face) => ({ ...track.answer, face, mask: track.state ?? "indeterminate" }));
  drawBoxes($("layer"), width, height, answers, $("mirror").checked);
  $("now").replaceChildren(...answers.map(nowItem));
  $("now-none").hidden = answers.length > 0;
}

function clearView() {
  $("layer").replaceChildren();
  $("now").replaceChildren();
  $("now-none").hidden = false;
}

function take(photo) {
  const now = performance.now();
  people = advance(people, photo.faces ?? [], now);
  showFaces(photo.width, photo.height, now);
  showCounts();
  show(signal(people, now));
}

/** Say what is wrong and wait as long as the server asks; false when the camera should stop. */
async function recover(error, mine) {
  if (error.kind === "unauthorised") {
    notify("error.unauthorised", {}, { key: "action.key", press: async () => (await askKey()) && start() });
    return false;
  }
  if (!error.passing && !["down", "slow", "failed"].includes(error.kind)) {
    notify(`error.${error.kind}`);
    return false;
  }
  clearView();
  show("waiting");
  const key = error.passing ? `error.${error.kind}` : "error.again";
  for (let left = Math.ceil(error.retry ?? RETRY_S); left > 0 && session === mine; left -= 1) {
    notify(key, { seconds: left });
    await pause(1000);
  }
  return true;
}

async function once(mine) {
  const frame = await grab($("video"), canvas);
  if (!frame.blob) return;
  const began = performance.now();
  const answer = await withKey(() => readPhotos([{ blob: frame.blob, name: "frame.jpg" }]));
  if (session !== mine || document.hidden) return;
  hush();
  showSpeed(performance.now() - began);
  const [photo] = answer.photos;
  if (photo.faces) take({ ...photo, width: frame.width, height: frame.height });
}

const visible = () => new Promise((resolve) => {
  document.addEventListener("visibilitychange", resolve, { once: true });
});

async function loop(mine) {
  while (session === mine) {
    if (document.hidden) {
      clearView();
      show("paused");
      await visible();
      continue;
    }
    const began = performance.now();
    try {
      await once(mine);
    } catch (error) {
      if (!error.kind) throw error;
      if (session !== mine) return;
      if (!(await recover(error, mine))) return void stop();
    }
    await pause(Math.max(0, began + between - performance.now()));
  }
}

async function fillCameras(current) {
  const cameras = await listCameras();
  $("device").replaceChildren(...cameras.map((camera, place) => {
    const option = new Option(camera.label || t("camera.numbered", { number: place + 1 }), camera.deviceId);
    option.selected = camera.deviceId === current;
    return option;
  }));
  $("choose-camera").hidden = cameras.length < 2;
}

function turn() {
  $("video").classList.toggle("mirrored", $("mirror").checked);
}

function buttons(on, starting = false) {
  $("start").hidden = on;
  $("start").disabled = starting;
  $("stop").hidden = !on;
  $("stage").dataset.on = String(on);
  say($("start").lastElementChild, starting ? "camera.starting" : "camera.start");
}

async function start() {
  stop();
  hush();
  buttons(false, true);
  const mine = (session = { stream: null });
  try {
    mine.stream = await openCamera($("device").value);
    if (session !== mine) return end(mine);
    const { track, id, front } = describe(mine.stream);
    track.addEventListener("ended", () => session === mine && lose());
    if (facing !== front || !$("mirror").dataset.chosen) $("mirror").checked = front;
    facing = front;
    turn();
    $("video").srcObject = mine.stream;
    await $("video").play();
    await fillCameras(id);
  } catch (error) {
    end(mine);
    if (session !== mine) return;
    stop();
    notify(`camera.${error instanceof CameraError ? error.kind : "failed"}`);
    return;
  }
  if (session !== mine) return;
  buttons(true);
  $("stop").focus();
  show("nobody");
  loop(mine);
}

function end(mine) {
  for (const track of mine.stream?.getTracks() ?? []) track.stop();
}

function lose() {
  stop();
  notify("camera.lost");
}

/** Turn the camera off; what was counted stays until it is reset. */
export function stop() {
  const before = session;
  session = null;
  if (before) end(before);
  const here = document.activeElement === $("stop");
  $("video").srcObject = null;
  $("speed").hidden = true;
  times = [];
  people = { ...nobody(), counted: counts(people), next: people.next }; // nobody in view, nobody forgotten
  clearView();
  buttons(false);
  if (here) $("start").focus();
  show("off");
}

/** Keep below the requests per second that the server takes of one client; null: any number. */
export function useRate(rate) {
  between = Math.max(LEAST_MS, rate ? 1100 / rate : 0); // a tenth of room for what else the page asks
}

/** Connect the camera half of the page. */
export function openCameraHalf() {
  $("start").addEventListener("click", start);
  $("stop").addEventListener("click", stop);
  $("device").addEventListener("change", start);
  $("sound").addEventListener("change", () => $("sound").checked && allowSound());
  $("mirror").addEventListener("change", () => {
    $("mirror").dataset.chosen = "true";
    turn();
  });
  $("reset").addEventListener("click", () => {
    people = reset(people);
    showCounts();
  });
  document.addEventListener("language", showCounts);
  window.addEventListener("pagehide", stop);
  showCounts();
}
