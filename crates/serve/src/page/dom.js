// Small helpers for the page's elements.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** Creates an element with properties and children. Strings become text nodes, never markup. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** Formats a message as a sentence: with a capital letter and a full stop. */
export function sentence(text) {
  const whole = text.trim();
  const first = whole.charAt(0).toUpperCase() + whole.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

/** Formats a number of bytes. */
export const megabytes = (bytes) => `${Math.floor(bytes / 2 ** 20).toLocaleString("en")} MiB`;

/** Formats a probability. */
export const decimal = (value) => value.toFixed(value !== 0 && Math.abs(value) < 0.01 ? 3 : 2);
