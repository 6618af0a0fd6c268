// Stacked bars per hour as SVG. Each state has a pattern beside its colour; the page has the same as a table.

import { make, number, t } from "./lang.js";

export const STATES = ["worn", "incorrect", "none", "indeterminate"];
const NAMESPACE = "http://www.w3.org/2000/svg";
const BARS = [22, 78]; // pixels per hour, least and most
const SHOWN = 12; // hours at least: the ones before the first are empty
const GAP = 4;
const LEFT = 44;
const TOP = 12;
const HEIGHT = 200;
const BOTTOM = 30;

function draw(name, attributes, ...children) {
  const element = document.createElementNS(NAMESPACE, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, String(value));
  element.append(...children);
  return element;
}

function pattern(state, ...marks) {
  const ground = draw("rect", { width: 8, height: 8, class: `ground ${state}` });
  const size = { width: 8, height: 8, patternUnits: "userSpaceOnUse" };
  return draw("pattern", { id: `fill-${state}`, ...size }, ground, ...marks);
}

function patterns() {
  return draw(
    "defs", {},
    pattern("worn"),
    pattern("incorrect", draw("path", { d: "M-2 2l4-4M0 8l8-8M6 10l4-4", class: "mark incorrect" })),
    pattern("none", draw("circle", { cx: 4, cy: 4, r: 1.6, class: "dot none" })),
    pattern("indeterminate", draw("path", { d: "M0 4h8", class: "mark indeterminate" })),
  );
}

/** A round number at or above the largest bar, with its gridlines: [top, step]. */
export function scale(most) {
  const rough = Math.max(1, most) / 4;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = Math.max(1, [1, 2, 5, 10].find((factor) => factor * power >= rough) * power);
  return [Math.ceil(Math.max(1, most) / step) * step, step];
}

/** People in an hour, all states together. */
export const people = (hour) => STATES.reduce((sum, state) => sum + hour[state], 0);

/** Hours with those in which nobody passed put in between, so that the axis is even. */
export function filled(hours) {
  if (hours.length === 0) return [];
  const byHour = new Map(hours.map((hour) => [hour.hour.slice(0, 13), hour]));
  const times = [...byHour.keys()].sort();
  const clock = (hour) => Date.parse(`${hour}:00:00Z`); // as if UTC: no hour is missing or double
  const last = clock(times.at(-1));
  const all = [];
  for (let time = Math.min(clock(times[0]), last - (SHOWN - 1) * 3_600_000); time <= last; time += 3_600_000) {
    const hour = new Date(time).toISOString().slice(0, 13);
    all.push(byHour.get(hour) ?? { hour: `${hour}:00`, worn: 0, incorrect: 0, none: 0, indeterminate: 0 });
  }
  return all;
}

function grid(top, step, width) {
  const lines = [];
  for (let value = 0; value <= top; value += step) {
    const y = TOP + HEIGHT * (1 - value / top);
    const label = draw("text", { x: LEFT - 8, y: y + 4, "text-anchor": "end" }, number(value));
    lines.push(draw("line", { x1: LEFT, x2: width, y1: y, y2: y, class: value === 0 ? "axis" : "grid" }), label);
  }
  return lines;
}

function column(hour, place, top, bar) {
  const x = LEFT + place * bar + GAP;
  let y = TOP + HEIGHT;
  const group = draw("g", { class: "column", "data-hour": hour.hour });
  group.append(draw("title", {}, t("monitor.bar", { ...hour, hour: hour.hour.replace("T", " ") })));
  for (const state of STATES.filter((name) => hour[name] > 0)) {
    const height = (HEIGHT * hour[state]) / top;
    y -= height;
    const size = { x, y, width: bar - 2 * GAP, height, fill: `url(#fill-${state})`, "data-state": state };
    group.append(draw("rect", { ...size, class: `piece ${state}` }));
  }
  return group;
}

/** What the patterns of the chart mean, as a list; the patterns themselves are in the chart. */
export function legend() {
  const list = make("ul", "legend");
  list.append(...STATES.map((state) => {
    const look = { fill: `url(#fill-${state})`, class: `piece ${state}` };
    const box = draw("rect", { x: 1, y: 1, width: 22, height: 14, ...look });
    const item = make("li");
    item.append(draw("svg", { width: 24, height: 16, "aria-hidden": "true" }, box), make("span", "", `mask.${state}`));
    return item;
  }));
  return list;
}

/** Hours [{hour, worn, incorrect, none, indeterminate}] -> an SVG with a summary as its label, for `room` pixels. */
export function chart(hours, room) {
  const even = filled(hours);
  const most = even.reduce((best, hour) => (people(hour) > people(best) ? hour : best));
  const [top, step] = scale(people(most));
  const bar = Math.min(BARS[1], Math.max(BARS[0], Math.floor((room - LEFT - GAP) / even.length)));
  const width = LEFT + even.length * bar + GAP;
  const words = { people: number(even.reduce((sum, hour) => sum + people(hour), 0)), hours: even.length,
    most: number(people(most)), when: most.hour.slice(11, 16) };
  const svg = draw("svg", { viewBox: `0 0 ${width} ${TOP + HEIGHT + BOTTOM}`, width, height: TOP + HEIGHT + BOTTOM,
    class: "chart", role: "img", "aria-label": t("monitor.chart", words) });
  svg.append(patterns(), ...grid(top, step, width));
  even.forEach((hour, place) => {
    const middle = LEFT + place * bar + bar / 2;
    svg.append(column(hour, place, top, bar));
    svg.append(draw("text", { x: middle, y: TOP + HEIGHT + 20, "text-anchor": "middle" }, hour.hour.slice(11, 13)));
  });
  return svg;
}
