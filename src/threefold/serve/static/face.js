// One reading in words: the verdict, what it is sure of and how much, and why something is not said.

import { icon } from "./icons.js";
import { make, percent, say, t } from "./lang.js";

export const PARTS = ["mask", "gender", "age_group"];
const VALUES = {
  mask: ["worn", "incorrect", "none"], gender: ["male", "female"], age_group: ["<30", "30-59", ">=60"],
};

/** The parts of an answer that are served and not said. */
export const unsure = (answer) => PARTS.filter((part) => answer[part] === "indeterminate");

function bar(share, tone = "") {
  const track = make("span", "bar");
  track.setAttribute("aria-hidden", "true"); // the number beside it says the same
  const fill = make("span", "fill");
  fill.style.width = `${Math.round(100 * share)}%`;
  if (tone) fill.dataset.mask = tone;
  track.append(fill);
  return track;
}

function row(label, value, share, tone) {
  const line = make("div", "reading");
  const cell = make("dd", "");
  cell.append(make("span", "value", value.key, value.values));
  if (share !== null) {
    const number = make("span", "share", "bars.sure", { share: () => percent(share) });
    cell.append(bar(share, tone), number);
  }
  line.append(make("dt", "", label), cell);
  return line;
}

/** Rows of the parts that are served, and of the age where the model has one. */
function rows(answer) {
  const list = make("dl", "readings");
  for (const part of PARTS.filter((name) => name in answer)) {
    // a face that is too small or blurred is not read: a number would say that it was
    const share = answer.quality === "ok" ? (answer.confidences?.[part] ?? answer.confidence) : null;
    const tone = part === "mask" || answer[part] === "indeterminate" ? answer[part] : "";
    list.append(row(`attribute.${part}`, { key: `${part}.${answer[part]}` }, share, tone));
  }
  if (typeof answer.age === "number" && answer.quality === "ok") {
    const years = Math.round(answer.age);
    list.append(row("attribute.age", { key: "age.years", values: { years } }, null, ""));
  }
  return list;
}

function every(answer) {
  const box = make("details", "all");
  const list = make("dl", "readings small-rows");
  for (const part of PARTS.filter((name) => answer.probabilities?.[name])) {
    for (const value of VALUES[part]) {
      const share = answer.probabilities[part][value];
      const line = make("div", "reading");
      const cell = make("dd", "");
      const number = make("span", "share");
      const shown = make("span", "");
      shown.append(make("span", "value", `${part}.${value}`));
      say(number, "bars.share", { share: () => percent(share) });
      cell.append(bar(share, part === "mask" ? value : ""), number);
      const term = make("dt", "");
      term.append(make("span", "unseen", `attribute.${part}`), shown);
      line.append(term, cell);
      list.append(line);
    }
  }
  box.append(make("summary", "", "bars.all"), list);
  return box;
}

/** Why parts are not said, or null when all are. */
export function reason(answer) {
  if (answer.quality !== "ok") return make("p", "why", `why.${answer.quality}`);
  const parts = unsure(answer);
  if (parts.length === 0) return null;
  return make("p", "why", "why.unsure", { what: () => parts.map((part) => t(`attribute.${part}`)).join(", ") });
}

/** The reading of one face as a list item; `numbered` when the photo has several. */
export function faceItem(answer, numbered) {
  const item = make("li", "face");
  item.dataset.mask = answer.mask;
  item.dataset.face = String(answer.face);
  const title = make("h4", "verdict");
  const badge = make("span", "badge");
  badge.append(icon(answer.mask));
  title.append(badge);
  if (numbered) title.append(make("span", "number", "face.number", { number: answer.face + 1 }));
  title.append(make("span", "said", `verdict.${answer.mask}`));
  item.append(title);
  const why = reason(answer);
  if (why) item.append(why);
  item.append(rows(answer));
  if (typeof answer.age === "number" && answer.age < 18) item.append(make("p", "why", "age.minor"));
  if (answer.probabilities && answer.quality === "ok") item.append(every(answer));
  return item;
}

/** One line about a face in view of the camera. */
export function nowItem(answer) {
  const item = make("li", "now-face");
  item.dataset.mask = answer.mask;
  const badge = make("span", "badge");
  badge.append(icon(answer.mask));
  const words = make("span", "now-words");
  words.append(make("strong", "", `verdict.${answer.mask}`));
  const more = PARTS.slice(1).filter((part) => part in answer && answer[part] !== "indeterminate");
  if (more.length) {
    const detail = () => more.map((part) => t(`${part}.${answer[part]}`)).join(", ");
    words.append(make("span", "small", "plain", { text: detail }));
  } else if (answer.mask === "indeterminate" && answer.quality !== "ok") {
    words.append(make("span", "small", `why.${answer.quality}`));
  }
  item.append(badge, words);
  return item;
}
