// The language of the page. Elements carry the key of their text, so a switch changes what stands there in place.

import { STRINGS } from "./strings.js";

const STORE = "threefold.language";
const texts = new WeakMap(); // element -> values of its text; functions are asked at each switch
let language = preferred();

function preferred() {
  const asked = new URLSearchParams(location.search).get("lang");
  if (asked in STRINGS) return asked;
  const remembered = stored();
  if (remembered in STRINGS) return remembered;
  return navigator.language.toLowerCase().startsWith("ko") ? "ko" : "en";
}

function stored() {
  try {
    return localStorage.getItem(STORE);
  } catch {
    return null; // storage may be forbidden; the page works without
  }
}

/** "ko" or "en". */
export const current = () => language;

/** The text of a key in the language of the page, `{name}` filled from values (functions are called). */
export function t(key, values = {}) {
  const text = STRINGS[language][key];
  if (text === undefined) throw new Error(`no text of the name ${key}`);
  return text.replace(/\{(\w+)\}/g, (_, name) => {
    const value = values[name];
    return String(typeof value === "function" ? value() : value);
  });
}

/** Give an element a text that follows the language. */
export function say(element, key, values = {}) {
  element.dataset.t = key;
  texts.set(element, values);
  const text = t(key, values);
  if (element.textContent !== text) element.textContent = text;
  return element;
}

/** A new element with class names and, where a key is given, a text that follows the language. */
export function make(tag, names = "", key = null, values = {}) {
  const element = document.createElement(tag);
  if (names) element.className = names;
  return key === null ? element : say(element, key, values);
}

/** Write every text of the page in the language of the page. */
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-t]")) say(element, element.dataset.t, texts.get(element));
  for (const element of document.querySelectorAll("[data-t-label]")) {
    element.setAttribute("aria-label", t(element.dataset.tLabel));
  }
  for (const button of document.querySelectorAll("[data-language]")) {
    button.setAttribute("aria-pressed", String(button.dataset.language === language));
  }
}

/** Change the language, remember it, and tell the page by a `language` event on the document. */
export function choose(next) {
  language = next;
  try {
    localStorage.setItem(STORE, next);
  } catch {
    // not remembered, then
  }
  const address = new URL(location.href);
  if (address.searchParams.has("lang")) {
    address.searchParams.delete("lang"); // or the next visit would undo the choice
    history.replaceState(null, "", address);
  }
  translate();
  document.dispatchEvent(new Event("language"));
}

/** A share 0..1 as people write it: 81 %. */
export function percent(share) {
  return new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 0 }).format(share);
}

/** A number with the separators of the language and `digits` decimals. */
export function number(value, digits = 0) {
  const form = { maximumFractionDigits: digits, minimumFractionDigits: digits };
  return new Intl.NumberFormat(language, form).format(value);
}
