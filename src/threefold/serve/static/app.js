// The page at /: what the server serves decides what is shown; two tabs, photos and camera.

import { askModel } from "./api.js";
import { openCameraHalf, stop, useRate } from "./camera.js";
import { PARTS } from "./face.js";
import { say, t } from "./lang.js";
import { hush, notify, open, withKey } from "./shell.js";
import { openPhotos, useLimits } from "./upload.js";

const $ = (id) => document.getElementById(id);
const TABS = ["photos", "camera"];

function select(name, focus = false) {
  for (const tab of TABS) {
    const button = $(`tab-${tab}`);
    const on = tab === name;
    button.setAttribute("aria-selected", String(on));
    button.tabIndex = on ? 0 : -1;
    $(tab).hidden = !on;
    if (on && focus) button.focus();
  }
  document.body.dataset.tab = name;
  if (name !== "camera") stop(); // nothing is sent from a picture that is not seen
  history.replaceState(null, "", name === "camera" ? "#camera" : location.pathname + location.search);
}

function connectTabs() {
  const step = { ArrowRight: 1, ArrowLeft: -1 };
  for (const tab of TABS) {
    $(`tab-${tab}`).addEventListener("click", () => select(tab));
    $(`tab-${tab}`).addEventListener("keydown", (event) => {
      const next = TABS.indexOf(tab) + (step[event.key] ?? 0);
      if (event.key in step) select(TABS[(next + TABS.length) % TABS.length], true);
    });
  }
  window.addEventListener("hashchange", () => location.hash === "#camera" && select("camera"));
  select(location.hash === "#camera" ? "camera" : "photos");
}

function showModel(model) {
  $("model").textContent = `${model.name} ${model.version}`;
  $("model").hidden = false;
  $("monitor-link").hidden = model.events !== true;
  const parts = model.attributes;
  const key = parts.length === PARTS.length ? "heading" : parts.join() === "mask" ? "heading.mask" : "heading.some";
  say($("heading"), key, { parts: () => parts.map((part) => t(`attribute.${part}`)).join(", ") });
  useLimits(model.limits ?? {});
  useRate(model.limits?.requests_per_second ?? null);
}

async function meet() {
  try {
    showModel(await withKey(askModel));
    hush();
  } catch (error) {
    if (!error.kind) throw error;
    const action = error.kind === "unauthorised" ? "action.key" : "action.again";
    const kind = error.passing ? "still" : error.kind;
    notify(`error.${kind}`, {}, { key: action, press: meet });
  }
}

open();
openPhotos();
openCameraHalf();
connectTabs();
meet();
