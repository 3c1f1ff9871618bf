// The classes as bars against their thresholds.

import { $, decimal, make } from "./dom.js";

/** How many bars are there before all are asked for. */
const FEW = 8;

/** The classes, the most probable first. */
const sorted = (classes) => [...classes].sort((a, b) => b.probability - a.probability);

/** In a sentence what was found. */
export function summary({ predicted, classes }) {
  if (predicted.length === 0) {
    return `None of the ${classes.length} classes reaches its threshold.`;
  }
  const names = sorted(classes.filter(({ present }) => present)).map(({ name }) => name);
  return `Predicted: ${names.join(", ")}.`;
}

function bar({ probability, threshold }) {
  const fill = make("i", { className: "fill" });
  fill.style.width = `${probability * 100}%`;
  const tick = make("i", { className: "tick" });
  tick.style.left = `${threshold * 100}%`;
  return make("span", { className: "bar", ariaHidden: "true" }, fill, tick);
}

function row(entry, about, isChosen, choose) {
  const { index, name, probability, threshold, present } = entry;
  const numbers = `probability ${decimal(probability)}, threshold ${decimal(threshold)}`;
  const button = make(
    "button",
    { type: "button", className: "class", onclick: () => choose(index) },
    make("span", { className: "check", ariaHidden: "true" }, present ? "✓" : ""),
    make("span", { className: "name" }, name),
    bar(entry),
    make("span", { className: "number", ariaHidden: "true" }, decimal(probability)),
    make("span", { className: "unseen" }, `, ${numbers}, ${present ? "predicted" : "not predicted"}`),
  );
  button.setAttribute("aria-expanded", String(isChosen));
  button.dataset.index = index;
  const item = make("li", { className: present ? "present" : "absent" }, button);
  if (isChosen) {
    const text = about ? `${about} ` : "";
    const gap = present ? "It reaches its threshold" : "It stays below its threshold";
    item.append(
      make("p", { className: "about" }, text, make("span", {}, `${gap} of ${decimal(threshold)}.`)),
    );
  }
  return item;
}

/**
 * Shows the bars: those predicted and the most probable ones, or all. `abouts` says what each
 * class is; `choose` hears which one was clicked.
 */
export function show(classes, abouts, { chosen, all }, choose) {
  const list = sorted(classes);
  const isShown = (entry, place) => all || place < FEW || entry.present || entry.index === chosen;
  const shown = list.filter(isShown);
  const focused = document.activeElement?.dataset?.index;
  $("bars").replaceChildren(
    ...shown.map((entry) => row(entry, abouts[entry.index], entry.index === chosen, choose)),
  );
  // The rows are new; who uses the keyboard stays where they were.
  if (focused !== undefined) $("bars").querySelector(`[data-index="${focused}"]`)?.focus();
  const more = $("more");
  more.hidden = list.length <= FEW;
  more.textContent = all ? "Show fewer" : `Show all ${list.length} classes`;
  more.setAttribute("aria-expanded", String(all));
}

/** The class that is chosen where nobody chose: the most probable one. */
export const first = (classes) => sorted(classes)[0].index;
