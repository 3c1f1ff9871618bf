// Tests reports (`report.html`) in Chromium: they load nothing from a network, and nothing is wider
// than the screen.
//
//     NODE_PATH=…/node_modules node tests/clients/reports.mjs FILE.html... [--shots DIR]
//
// chromium.mjs lists the requirements; `--check` only tests whether they are installed.

import assert from "node:assert/strict";
import { basename, dirname, join, resolve } from "node:path";
import { pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

import { launch } from "./chromium.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { check: { type: "boolean" }, shots: { type: "string" } },
});

const browser = await launch(options);

async function check(file, width, colorScheme) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme });
  const page = await context.newPage();
  const own = pathToFileURL(resolve(file)).href;
  const faults = [];
  page.on("request", (request) => {
    const url = request.url();
    if (url !== own && !url.startsWith("data:")) faults.push(`request to ${url}`);
  });
  page.on("console", (message) => faults.push(message.text()));
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(own);
  const seen = await page.evaluate(() => {
    const root = document.documentElement;
    const wide = [...document.querySelectorAll("main *")].filter((element) => {
      // Elements inside a scrolling box do not widen the page.
      if (element.closest(".scroll, pre, svg")) return false;
      return element.getBoundingClientRect().right > root.clientWidth + 0.5;
    });
    const labels = [...document.querySelectorAll("svg.chart text")];
    const size = (label) => label.getBoundingClientRect().height;
    // A clipped label extends beyond its drawing.
    const cut = labels.filter((label) => {
      const [inner, outer] = [label, label.closest("svg")].map((e) => e.getBoundingClientRect());
      return inner.left < outer.left - 1 || inner.right > outer.right + 1;
    });
    return {
      overflows: root.scrollWidth > root.clientWidth,
      wide: wide.map((element) => element.outerHTML.slice(0, 80)),
      cut: cut.map((label) => label.textContent),
      labels: labels.length,
      smallest: Math.min(...labels.map(size).filter((height) => height > 0)),
      broken: [...document.images].filter((image) => image.naturalWidth === 0).length,
    };
  });
  if (options.shots) {
    const name = `${basename(dirname(resolve(file)))}-${width}-${colorScheme}.png`;
    await page.screenshot({ path: join(options.shots, name), fullPage: true });
  }
  assert.deepEqual(faults, []);
  assert.equal(seen.overflows, false, "the page scrolls sideways");
  assert.deepEqual(seen.wide, []);
  assert.deepEqual(seen.cut, [], "labels are clipped");
  assert.equal(seen.broken, 0, "images are broken");
  assert.ok(seen.labels > 10, "charts have labels");
  assert.ok(seen.smallest > 8, `the smallest label is ${seen.smallest} pixels high`);
  const toggles = page.locator(".card input");
  if ((await toggles.count()) > 0) {
    const overlay = page.locator(".card .overlay").first();
    assert.equal(await overlay.isVisible(), true);
    await page.locator(".card label").first().click();
    assert.equal(await overlay.isVisible(), false, "the overlay can be hidden");
  }
  await context.close();
}

try {
  for (const file of positionals) {
    for (const [width, scheme] of [[1280, "light"], [1280, "dark"], [390, "light"], [390, "dark"]]) {
      await check(file, width, scheme);
      console.log(`${file} at ${width}, ${scheme}: ok`);
    }
  }
} finally {
  await browser.close();
}
