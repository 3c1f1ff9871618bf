// Displays the classes as bars with their thresholds.

import { $, decimal, make } from "./dom.js";

/** Number of bars in the short list. */
const FEW = 8;

/** Returns the classes by descending probability. */
const sorted = (classes) => [...classes].sort((a, b) => b.probability - a.probability);

/** Returns the prediction as a sentence. */
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

function row(entry, description, isChosen, choose) {
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
    const text = description ? `${description} ` : "";
    const relation = present ? "The probability reaches" : "The probability is below";
    const comparison = `${relation} the threshold of ${decimal(threshold)}.`;
    item.append(make("p", { className: "about" }, text, make("span", {}, comparison)));
  }
  return item;
}

/**
 * Shows the bars of all classes, or of the predicted and the most probable ones. `descriptions` has
 * a text per class; `choose` is called with the index of the clicked class.
 */
export function show(classes, descriptions, { chosen, all }, choose) {
  const list = sorted(classes);
  const isShown = (entry, place) => all || place < FEW || entry.present || entry.index === chosen;
  const shown = list.filter(isShown);
  const focused = document.activeElement?.dataset?.index;
  $("bars").replaceChildren(
    ...shown.map((entry) => row(entry, descriptions[entry.index], entry.index === chosen, choose)),
  );
  // Restore the keyboard focus, because the rows were recreated.
  if (focused !== undefined) $("bars").querySelector(`[data-index="${focused}"]`)?.focus();
  const more = $("more");
  more.hidden = list.length <= FEW;
  more.textContent = all ? "Show fewer" : `Show all ${list.length} classes`;
  more.setAttribute("aria-expanded", String(all));
}

/** Returns the index of the most probable class, which is selected by default. */
export const first = (classes) => sorted(classes)[0].index;
