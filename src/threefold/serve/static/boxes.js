// Boxes over a picture: elements placed in percent, so that they stay right at every size of the picture.

import { icon } from "./icons.js";
import { make } from "./lang.js";

const ICONS = { worn: "worn", incorrect: "incorrect", none: "none", indeterminate: "indeterminate" };
const ROOM_FOR_TAG = 0.1; // share of the height above a box from which its tag fits there

/** Draw answers with a box over a picture of width x height pixels; `mirrored` flips left and right, not the words. */
export function drawBoxes(layer, width, height, answers, mirrored = false) {
  const boxes = answers.filter((answer) => answer.box).map((answer) => {
    const [left, top, right, bottom] = answer.box;
    const start = mirrored ? width - right : left;
    const box = make("div", "box");
    box.dataset.mask = answer.mask;
    box.dataset.face = String(answer.face);
    box.style.left = `${(100 * start) / width}%`;
    box.style.top = `${(100 * top) / height}%`;
    box.style.width = `${(100 * (right - left)) / width}%`;
    box.style.height = `${(100 * (bottom - top)) / height}%`;
    const tag = make("span", top / height < ROOM_FOR_TAG ? "tag inside" : "tag");
    if (start / width > 0.6) tag.classList.add("from-right"); // grows to the left, or it leaves the picture
    if (answers.length > 1) {
      const place = make("span", "place");
      place.textContent = String(answer.face + 1);
      tag.append(place);
    }
    tag.append(icon(ICONS[answer.mask]), make("span", "", `mask.${answer.mask}`));
    box.append(tag);
    return box;
  });
  layer.replaceChildren(...boxes);
}
