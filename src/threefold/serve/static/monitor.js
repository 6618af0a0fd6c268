// The page at /monitor: what the watch has counted, asked for every two seconds.

import { askEvents } from "./api.js";
import { STATES, chart, filled, legend } from "./chart.js";
import { icon, setIcon } from "./icons.js";
import { make, number, percent, say } from "./lang.js";
import { hush, notify, open, withKey } from "./shell.js";

const EVERY_S = 2;
const HOURS = 24;
const RECENT = 50;
const ICONS = {
  running: "worn", stopped: "incorrect", unknown: "indeterminate", gone: "none", off: "none", error: "none",
  locked: "lock",
};
const $ = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
let last = null; // the last answer, for another language
let drawn = ""; // what the chart and tables show: they are rebuilt on a change only

function pulse(state) {
  $("pulse").dataset.state = state;
  setIcon($("pulse-icon"), ICONS[state]);
  say($("pulse-text"), `monitor.${state}`);
}

function plain(text, names = "") {
  const element = make("td", names);
  element.textContent = text;
  return element;
}

function maskCell(mask) {
  const cell = make("td", "mask");
  cell.dataset.mask = mask;
  cell.append(icon(mask), make("span", "", `mask.${mask}`));
  return cell;
}

function hourRow(hour) {
  const row = make("tr");
  const head = make("th");
  head.scope = "row";
  head.textContent = hour.hour.replace("T", " ").slice(5, 16);
  row.append(head, ...STATES.map((state) => plain(number(hour[state]), "number")));
  return row;
}

function eventRow(event, parts) {
  const row = make("tr");
  const head = make("th");
  head.scope = "row";
  head.textContent = event.time.slice(11, 19);
  head.title = event.time;
  const more = parts.map((part) => make("td", "", `${part}.${event[part] ?? "indeterminate"}`));
  const seconds = make("td", "number", "unit.seconds", { value: () => number(event.seconds, 1) });
  const mask = maskCell(event.mask);
  if (event.kind === "changed") mask.append(" ", make("span", "small", "monitor.changed"));
  row.append(head, mask, ...more, plain(percent(event.confidence), "number"), seconds);
  return row;
}

function showRecent(events) {
  const parts = ["gender", "age_group"].filter((part) => events.some((event) => part in event));
  for (const cell of document.querySelectorAll("#recent th[data-attribute]")) {
    cell.hidden = !parts.includes(cell.dataset.attribute); // a mask-only watch has no such columns
  }
  $("recent").tBodies[0].replaceChildren(...events.map((event) => eventRow(event, parts)));
  $("recent").hidden = events.length === 0;
  $("recent-none").hidden = events.length > 0;
}

function showCounts(answer) {
  const now = JSON.stringify([document.documentElement.lang, answer.hours, answer.total, answer.recent]);
  if (now === drawn) return; // rebuilding would close tooltips and lose the place on the page
  drawn = now;
  for (const state of STATES) $(`total-${state}`).textContent = number(answer.total[state]);
  const empty = STATES.every((state) => answer.total[state] === 0) && answer.recent.length === 0;
  $("empty").hidden = !empty;
  $("chart-box").hidden = answer.hours.length === 0;
  if (answer.hours.length > 0) {
    $("chart").replaceChildren(chart(answer.hours, $("chart").clientWidth));
    $("chart").scrollLeft = $("chart").scrollWidth; // the newest hour is at the right end
    $("hours").tBodies[0].replaceChildren(...filled(answer.hours).reverse().map(hourRow));
  }
  showRecent(answer.recent);
}

function showState({ source, state }) {
  $("source").textContent = source ?? "";
  $("source").hidden = !source;
  const shown = (value, digits = 0) => (typeof value === "number" ? number(value, digits) : "-");
  $("fact-fps").textContent = shown(state?.fps, 1);
  $("fact-frames").textContent = shown(state?.frames);
  $("fact-dropped").textContent = shown(state?.dropped);
  $("fact-since").textContent = state?.since ? state.since.replace("T", " ").slice(0, 16) : "-";
  say($("fact-running"), state ? (state.running ? "fact.yes" : "fact.no") : "fact.unknown");
}

function show(answer) {
  last = answer;
  showCounts(answer);
  showState(answer);
  if (answer.state?.running) {
    pulse("running");
    hush();
  } else if (answer.state) {
    pulse("stopped");
    notify("monitor.stopped.help");
  } else {
    pulse("unknown"); // an events file does not say whether someone still writes to it
    hush();
  }
}

function fault(error) {
  if (error.kind === "down" || error.kind === "slow") {
    pulse("gone");
    notify("monitor.gone.help", { seconds: EVERY_S });
  } else if (error.kind === "missing") {
    pulse("off");
    notify("monitor.off.help");
  } else if (error.kind === "unauthorised") {
    pulse("locked");
    notify("error.unauthorised", {}, { key: "action.key", press: poll });
  } else {
    pulse("error");
    notify(error.passing ? `error.${error.kind}` : "error.failed", { seconds: error.retry ?? EVERY_S });
  }
}

/** Ask until the key is refused; a page that is not seen does not ask. */
async function poll() {
  for (;;) {
    let wait = EVERY_S;
    try {
      if (!document.hidden) show(await withKey(() => askEvents(HOURS, RECENT)));
    } catch (error) {
      if (!error.kind) throw error;
      fault(error);
      if (error.kind === "unauthorised") return;
      wait = Math.max(EVERY_S, error.retry ?? 0);
    }
    await pause(1000 * wait);
  }
}

open();
$("chart").before(legend());
window.addEventListener("resize", () => {
  drawn = "";
  if (last) showCounts(last);
});
document.addEventListener("language", () => last && show(last));
poll();
