// Icons drawn as strokes on a 24 x 24 grid. Shapes differ, so that a state is told without its colour.

const SHAPES = {
  worn: "M12 3l7.5 3v5.5c0 4.6-3.2 7.9-7.5 9.5-4.3-1.6-7.5-4.9-7.5-9.5V6zM8.3 11.8l2.7 2.7 4.8-5",
  incorrect: "M12 3.5L22 20.5H2zM12 10v4.5M12 17.3v.4",
  none: "M8 2.5h8l5.5 5.5v8L16 21.5H8L2.5 16V8zM8.5 8.5l7 7M15.5 8.5l-7 7",
  indeterminate:
    "M12 2.5a9.5 9.5 0 1 1 0 19a9.5 9.5 0 1 1 0-19M9.2 9.3a2.9 2.9 0 1 1 4.3 2.5c-1 .6-1.5 1.2-1.5 2.3M12 17v.4",
  nobody: "M12 4a4 4 0 1 1 0 8a4 4 0 1 1 0-8M4.5 20.5c.6-4 3.6-6 7.5-6s6.9 2 7.5 6",
  photo: "M4 5h16v14H4zM4 16l4.5-4.5 4 4 2.5-2.5 5 4.5M15.5 9v.2",
  camera: "M3 7h4l1.8-2.5h6.4L17 7h4v12H3zM12 9.2a3.6 3.6 0 1 1 0 7.2a3.6 3.6 0 1 1 0-7.2",
  play: "M7 4.5l12 7.5-12 7.5z",
  stop: "M6 6h12v12H6z",
  wait: "M12 2.5a9.5 9.5 0 1 1 0 19a9.5 9.5 0 1 1 0-19M12 7v5.3l3.4 2",
  lock: "M5.5 11h13v9.5h-13zM8 11V8a4 4 0 0 1 8 0v3M12 14.8v2.2",
  limit: "M12 2.5a9.5 9.5 0 1 1 0 19a9.5 9.5 0 1 1 0-19M5.4 5.4l13.2 13.2",
};

const NAMESPACE = "http://www.w3.org/2000/svg";

/** An SVG element of the named icon; decoration, hidden from screen readers: a word always stands beside it. */
export function icon(name) {
  const svg = document.createElementNS(NAMESPACE, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(NAMESPACE, "path");
  shape.setAttribute("d", SHAPES[name]);
  svg.append(shape);
  return svg;
}

/** Put the icon into an element that holds nothing else. */
export function setIcon(element, name) {
  if (element.dataset.drawn !== name) {
    element.dataset.drawn = name;
    element.replaceChildren(icon(name));
  }
}

/** Fill every `data-icon` of the page. */
export function drawIcons() {
  for (const element of document.querySelectorAll("[data-icon]")) setIcon(element, element.dataset.icon);
}
