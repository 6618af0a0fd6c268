// Photos: chosen or dropped, checked here, sent in batches, each shown as a card with its readings.

import { kindOf, readPhotos } from "./api.js";
import { drawBoxes } from "./boxes.js";
import { faceItem } from "./face.js";
import { make, number, say } from "./lang.js";
import { askKey, hush, notify, withKey } from "./shell.js";

const MIB = 2 ** 20;
const TYPES = new Set(["image/jpeg", "image/png", "image/webp"]);
const limits = { photos: 16, bytes: 10 * MIB };
const TRIES = 4; // a busy server is asked again by itself so often, then on a press
const WAIT_S = 3;
const $ = (id) => document.getElementById(id);

let cards = []; // {file, element, state: "waiting" | "reading" | "done" | "failed"}
let working = false;
let stopWaiting = null;

function check(file) {
  const values = { name: file.name, size: () => number(file.size / MIB, 1), limit: () => number(limits.bytes / MIB) };
  if (!TYPES.has(file.type)) return { key: "refused.type", values };
  if (file.size === 0) return { key: "refused.empty", values };
  if (file.size > limits.bytes) return { key: "refused.size", values };
  return null;
}

function newCard(file) {
  const element = make("article", "card");
  const title = make("h3", "card-title");
  title.textContent = file.name;
  const stage = make("div", "stage photo");
  const picture = make("img");
  picture.alt = "";
  picture.src = URL.createObjectURL(file);
  stage.append(picture, make("div", "layer"));
  stage.lastChild.setAttribute("aria-hidden", "true"); // the list beside it says the same in words
  const frame = make("div", "frame");
  frame.append(stage);
  const body = make("div", "card-body");
  const state = make("p", "card-state", "card.waiting");
  body.append(title, state);
  element.append(frame, body);
  element.dataset.state = "waiting";
  return { file, element, picture, stage, body, state: "waiting" };
}

function setState(card, state, key, values = {}) {
  card.state = card.element.dataset.state = state;
  say(card.body.querySelector(".card-state"), key, values);
}

function showFaces(card, photo) {
  const { faces } = photo;
  drawBoxes(card.stage.querySelector(".layer"), photo.width, photo.height, faces);
  card.body.querySelector(".faces, .why")?.remove();
  if (faces.length === 0) {
    setState(card, "done", "card.none");
    card.body.append(make("p", "why", "card.none.help"));
    return;
  }
  setState(card, "done", faces.length === 1 ? "card.face" : "card.faces", { count: faces.length });
  const list = make("ol", "faces");
  list.append(...faces.map((answer) => faceItem(answer, faces.length > 1)));
  card.body.append(list);
}

function showFault(card, kind) {
  setState(card, "failed", "card.broken");
  card.body.querySelector(".faces, .why")?.remove();
  card.body.append(make("p", "why", `error.${kind}`));
}

/** The next photos that wait: at most 16, and together no larger than one photo may be, so that no limit is met. */
function nextBatch() {
  const batch = [];
  let bytes = 0;
  for (const card of cards.filter((one) => one.state === "waiting")) {
    bytes += card.file.size;
    if (batch.length === limits.photos || (batch.length > 0 && bytes > limits.bytes)) break;
    batch.push(card);
    if (card.alone) break;
  }
  return batch.length > 1 && batch.at(-1).alone ? batch.slice(0, -1) : batch;
}

function progress() {
  const done = cards.filter((card) => card.state === "done").length;
  const failed = cards.filter((card) => card.state === "failed").length;
  const all = cards.length;
  $("progress").hidden = all === 0;
  $("clear").disabled = working;
  const line = $("progress-text");
  if (done + failed < all) say(line, working ? "progress.busy" : "progress.stopped", { done: done + failed, all });
  else if (failed) say(line, "progress.failed", { all, failed });
  else say(line, all === 1 ? "progress.one" : "progress.done", { all });
}

/** Wait so many seconds, saying so; a press ends it at once. */
async function wait(seconds, key) {
  for (let left = Math.ceil(seconds); left > 0; left -= 1) {
    const first = left === Math.ceil(seconds); // later only the number changes
    notify(key, { seconds: left }, first ? { key: "action.now", press: () => stopWaiting?.() } : null);
    const pressed = await new Promise((resolve) => {
      const timer = setTimeout(resolve, 1000, false);
      stopWaiting = () => {
        clearTimeout(timer);
        resolve(true);
      };
    });
    if (pressed) break;
  }
  stopWaiting = null;
  hush();
}

async function send(batch) {
  const photos = batch.map((card) => ({ blob: card.file, name: card.file.name }));
  for (let tries = 1; ; tries += 1) {
    try {
      return await withKey(() => readPhotos(photos));
    } catch (error) {
      if (!error.passing || tries === TRIES) throw error;
      await wait(error.retry ?? WAIT_S, `error.${error.kind}`);
    }
  }
}

function spread(batch, answer) {
  batch.forEach((card, place) => {
    const photo = answer.photos[place];
    if (photo?.faces) showFaces(card, photo);
    else showFault(card, kindOf(photo?.error?.code, 422));
  });
}

/** False when nothing more can be sent for now. */
function blame(batch, error) {
  const ofPhotos = [413, 415, 422].includes(error.status);
  if (ofPhotos && batch.length === 1) {
    showFault(batch[0], error.kind);
    return true;
  }
  for (const card of batch) {
    card.alone = ofPhotos; // which of them it was shows when each is sent alone
    setState(card, "waiting", "card.waiting");
  }
  if (ofPhotos) return true;
  if (error.kind === "unauthorised") notify("error.unauthorised", {}, { key: "action.key", press: enterKey });
  else {
    const kind = error.passing ? "still" : error.kind;
    notify(`error.${kind}`, {}, { key: "action.again", press: work });
  }
  return false;
}

async function enterKey() {
  if (await askKey()) work();
}

async function work() {
  if (working) return;
  working = true;
  hush();
  for (let batch = nextBatch(); batch.length > 0; batch = nextBatch()) {
    for (const card of batch) setState(card, "reading", "card.reading");
    progress();
    try {
      spread(batch, await send(batch));
    } catch (error) {
      if (!error.kind) throw error;
      if (!blame(batch, error)) break;
    }
  }
  working = false;
  progress();
}

function take(files) {
  const refused = [];
  const fresh = [];
  for (const file of files) {
    const fault = check(file);
    if (fault) refused.push(make("li", "", fault.key, fault.values));
    else fresh.push(newCard(file));
  }
  $("refused").replaceChildren(...refused);
  $("refused").hidden = refused.length === 0;
  cards = [...cards, ...fresh];
  $("cards").append(...fresh.map((card) => card.element));
  progress();
  if (fresh.length) work();
}

function clear() {
  for (const card of cards) URL.revokeObjectURL(card.picture.src);
  cards = [];
  $("cards").replaceChildren();
  $("refused").hidden = true;
  progress();
  $("files").focus();
}

function connectDrop() {
  const zone = $("drop");
  let depth = 0; // dragenter and dragleave come for every element inside
  const mark = (change) => {
    depth = change === 0 ? 0 : depth + change;
    zone.dataset.over = String(depth > 0);
  };
  zone.addEventListener("dragenter", () => mark(1));
  zone.addEventListener("dragleave", () => mark(-1));
  for (const name of ["dragover", "drop"]) {
    // also beside the zone: a photo that is dropped there must not replace the page
    document.addEventListener(name, (event) => event.preventDefault());
  }
  zone.addEventListener("drop", (event) => {
    mark(0);
    take([...event.dataTransfer.files]);
  });
}

/** Take over what the server says of its limits: {photos, photo_bytes}, where given. */
export function useLimits(served) {
  limits.photos = served.photos ?? limits.photos;
  limits.bytes = served.photo_bytes ?? limits.bytes;
  say($("drop-limits"), "drop.limits", { size: () => number(limits.bytes / MIB) });
}

/** Connect the photo half of the page. */
export function openPhotos() {
  useLimits({});
  connectDrop();
  $("files").addEventListener("change", () => {
    take([...$("files").files]);
    $("files").value = ""; // the same photo may be chosen again
  });
  $("clear").addEventListener("click", clear);
}
