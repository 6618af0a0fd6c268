// What both pages share: the language buttons, the notice at the top, and the dialog that asks for the key.

import { setKey } from "./api.js";
import { drawIcons } from "./icons.js";
import { choose, make, say, translate } from "./lang.js";

const $ = (id) => document.getElementById(id);
let asking = null;
let refusedBefore = false;

/** Fill icons and texts, and connect the language buttons. */
export function open() {
  drawIcons();
  translate();
  for (const button of document.querySelectorAll("[data-language]")) {
    button.addEventListener("click", () => choose(button.dataset.language));
  }
}

/** Say something at the top of the page: `error.KIND`, and a button when there is something to press. */
export function notify(key, values = {}, action = null) {
  const box = $("notice");
  const same = box.dataset.key === key && !box.hidden && !action && box.firstElementChild;
  if (same) {
    say(box.firstElementChild, key, values); // a countdown: the words change, the alert is not read again
    return;
  }
  box.dataset.key = key;
  const parts = [make("p", "", key, values)];
  if (action) {
    const button = make("button", "quiet", action.key);
    button.type = "button";
    button.addEventListener("click", action.press);
    parts.push(button);
  }
  box.replaceChildren(...parts);
  box.hidden = false;
}

/** Take the notice away. */
export function hush() {
  $("notice").hidden = true;
  $("notice").dataset.key = "";
}

/** Ask for the key; resolves to false when it is not given. Asked again while open, it is the same question. */
export function askKey() {
  if (asking) return asking;
  const dialog = $("key-dialog");
  $("key-wrong").hidden = !refusedBefore;
  $("key").value = "";
  asking = new Promise((resolve) => {
    const finish = (submitted) => {
      asking = null;
      refusedBefore = submitted;
      if (submitted) setKey($("key").value.trim());
      $("key").value = "";
      $("key-form").onsubmit = $("key-cancel").onclick = dialog.oncancel = null;
      dialog.close();
      resolve(submitted);
    };
    $("key-form").onsubmit = (event) => {
      event.preventDefault();
      finish(true);
    };
    $("key-cancel").onclick = () => finish(false);
    dialog.oncancel = () => finish(false);
    dialog.showModal();
    $("key").focus();
  });
  return asking;
}

/** The key was accepted: the next question is a first one again. */
export function accepted() {
  refusedBefore = false;
}

/** Run `question`; when the service wants a key, ask for it and run it again. Without a key its error is thrown. */
export async function withKey(question) {
  for (;;) {
    try {
      const answer = await question();
      accepted();
      return answer;
    } catch (error) {
      if (error.kind !== "unauthorised" || !(await askKey())) throw error;
    }
  }
}
