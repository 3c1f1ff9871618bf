// Small helpers for the page's elements.

/** The element with this id. */
export const $ = (id) => document.getElementById(id);

/** A new element with properties and children; text is always text, never markup. */
export function make(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** A message as a sentence: a capital first, a full stop last. */
export function sentence(text) {
  const whole = text.trim();
  const first = whole.charAt(0).toUpperCase() + whole.slice(1);
  return /[.!?…]$/.test(first) ? first : `${first}.`;
}

/** A number of bytes for people. */
export const megabytes = (bytes) => `${Math.floor(bytes / 2 ** 20).toLocaleString("en")} MiB`;

/** A probability for people. */
export const decimal = (value) => value.toFixed(value !== 0 && Math.abs(value) < 0.01 ? 3 : 2);
