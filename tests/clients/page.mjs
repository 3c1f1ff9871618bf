// Tests the web page of `rgby serve` in Chromium, with the actions of a user.
//
//     NODE_PATH=…/node_modules node tests/clients/page.mjs http://127.0.0.1:8000 \
//         [--tiff FILE] [--locked URL --key KEY] [--shots DIR]
//
// chromium.mjs lists the requirements. --tiff is a file whose channels 0 to 3 are the stains of a
// model that depends only on the top right of the image. --locked is a server that requires --key.
// --shots is the folder for screenshots. `--check` only tests whether everything is installed.

import assert from "node:assert/strict";
import { join } from "node:path";
import { parseArgs } from "node:util";

import { launch } from "./chromium.mjs";

const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    check: { type: "boolean" },
    tiff: { type: "string" },
    locked: { type: "string" },
    key: { type: "string" },
    shots: { type: "string" },
  },
});

const browser = await launch(options);
const url = positionals[0];

/** Opens a page that records requests to other hosts, console errors and exceptions. */
async function open(address, settings = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...settings });
  const page = await context.newPage();
  page.setDefaultTimeout(60_000);
  const faults = [];
  page.on("request", (request) => {
    const target = new URL(request.url());
    if (target.protocol !== "blob:" && target.origin !== new URL(address).origin) {
      faults.push(`request to ${request.url()}`);
    }
  });
  page.on("console", (message) => {
    // Warnings come from this script, which reads pixels.
    if (message.type() === "error") faults.push(message.text());
  });
  page.on("pageerror", (error) => faults.push(String(error)));
  await page.goto(address);
  return { page, context, faults };
}

async function done({ context, faults }, expected = /^$/) {
  assert.deepEqual(faults.filter((fault) => !expected.test(fault)), []);
  await context.close();
}

async function shoot(page, name) {
  if (options.shots) await page.screenshot({ path: join(options.shots, `${name}.png`), fullPage: true });
}

/** Whether any element is wider than the page. */
const overflows = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);

/** Returns the sums of the red, green and blue values of the picture. */
const colours = (page) =>
  page.evaluate(() => {
    const canvas = document.getElementById("picture");
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const sums = [0, 0, 0];
    data.forEach((value, at) => at % 4 < 3 && (sums[at % 4] += value));
    return sums;
  });

const bars = (page) => page.locator("#bars .class");
const status = (page) => page.locator("#status");

async function useSample(page) {
  await page.locator("#use-sample").click();
  await page.waitForFunction(() => document.querySelectorAll("#bars .class").length > 0);
}

const checks = {
  async "classifies a sample with sorted, explained bars"() {
    const opened = await open(url);
    const { page } = opened;
    await page.locator("#stage .prompt").waitFor();
    assert.match(await page.locator("#limits").textContent(), /up to \d+ MiB/);
    await shoot(page, "empty-1280");
    await useSample(page);
    assert.match(await status(page).textContent(), /^(Predicted: |None of )/);
    assert.equal(await bars(page).count() >= 8, true);
    await page.locator("#more").click();
    assert.equal(await bars(page).count(), 28);
    const values = (await page.locator("#bars .number").allTextContents()).map(Number);
    assert.deepEqual(values, [...values].sort((a, b) => b - a));
    // Predictions are marked by a sign and by text for screen readers, not by color alone.
    for (const row of await page.locator("#bars li").all()) {
      const present = (await row.getAttribute("class")) === "present";
      assert.equal((await row.locator(".check").textContent()) === "✓", present);
      assert.match(await row.locator(".unseen").textContent(), present ? /, predicted$/ : /not predicted$/);
    }
    await page.getByText("Nucleoli", { exact: true }).and(page.locator("#bars .name")).click();
    assert.match(await page.locator("#bars .about").textContent(), /ribosome.*threshold/);
    assert.equal(await overflows(page), false);
    await done(opened);
  },

  async "switches stains on and off"() {
    const opened = await open(url);
    const { page } = opened;
    await useSample(page);
    const [red, green, blue] = await colours(page);
    assert.ok(red > 0 && green > 0 && blue > 0);
    await page.getByRole("checkbox", { name: "green" }).uncheck();
    const without = await colours(page);
    assert.ok(without[1] < green && without[0] === red);
    for (const stain of ["red", "blue", "yellow"]) await page.getByRole("checkbox", { name: stain }).uncheck();
    assert.deepEqual(await colours(page), [0, 0, 0]);
    assert.match(await page.locator("#picture").getAttribute("aria-label"), /no stain/);
    await done(opened);
  },

  async "shows the explanation map and its progress"() {
    const opened = await open(url);
    const { page } = opened;
    await useSample(page);
    await page.locator("#explain").click();
    await page.locator("#heat-choice").waitFor();
    await page.waitForFunction(() => /Largest decrease|hiding any one/.test(document.getElementById("reading").textContent));
    assert.equal(await page.locator("#explaining").isVisible(), false);
    // The map covers the picture and is not hidden behind it.
    const stage = page.locator("#stage");
    const seen = await stage.screenshot();
    await page.evaluate(() => {
      const canvas = document.getElementById("heat");
      const context = canvas.getContext("2d");
      context.fillStyle = "red";
      context.fillRect(0, 0, canvas.width, canvas.height);
    });
    assert.notDeepEqual(await stage.screenshot(), seen);
    await page.locator("#show-heat").uncheck();
    await page.locator("#show-heat").check();
    await shoot(page, "explained-1280");
    await page.locator("#show-heat").uncheck();
    assert.equal(await page.locator("#heat").isVisible(), false);
    await done(opened);
  },

  async "is usable with the keyboard alone"() {
    const opened = await open(url);
    const { page } = opened;
    await page.locator("#stage .prompt").waitFor();
    const reach = async (wanted) => {
      for (let presses = 0; presses < 60; presses += 1) {
        await page.keyboard.press("Tab");
        const at = await page.evaluate(() => {
          const element = document.activeElement;
          return { id: element.id, text: element.textContent, ring: getComputedStyle(element).outlineStyle };
        });
        if (wanted(at)) return at;
      }
      throw new Error(`Tab does not reach ${wanted}`);
    };
    await reach(({ id }) => id === "sample");
    await page.keyboard.press("ArrowDown");
    const show = await reach(({ id }) => id === "use-sample");
    assert.notEqual(show.ring, "none");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll("#bars .class").length > 0);
    await reach(({ text }) => text === "" || /green/.test(text));
    await page.keyboard.press("Space");
    await reach(({ id }) => id === "explain");
    await page.keyboard.press("Enter");
    await page.locator("#heat-choice").waitFor();
    await page.waitForFunction(() => !document.getElementById("explain").disabled);
    await reach(({ text }) => /probability/.test(text));
    await page.keyboard.press("Tab");
    const chosen = await page.evaluate(() => document.activeElement.dataset.index);
    await page.keyboard.press("Enter");
    // The row keeps the focus when it opens.
    assert.equal(await page.evaluate(() => document.activeElement.dataset.index), chosen);
    assert.equal(await page.evaluate(() => document.activeElement.getAttribute("aria-expanded")), "true");
    await done(opened);
  },

  async "assigns files by name and shows errors as sentences"() {
    const opened = await open(url);
    const { page } = opened;
    await page.locator("#stage .prompt").waitFor();
    const file = (name, buffer) => ({ name, mimeType: "image/png", buffer });
    const sample = async (stain) =>
      Buffer.from(await (await page.request.get(`${url}/v1/samples/22/${stain}.png`)).body());
    const stains = ["red", "green", "blue", "yellow"];
    const planes = Object.fromEntries(await Promise.all(stains.map(async (name) => [name, await sample(name)])));
    const files = stains.map((stain) => file(`plate_A1_${stain}.png`, planes[stain]));
    await page.locator("#files").setInputFiles(files.slice(0, 3));
    await page.waitForFunction(() => /Still missing: yellow/.test(document.getElementById("status").textContent));
    await page.getByLabel("File of yellow").setInputFiles(files[3]);
    await page.waitForFunction(() => document.querySelectorAll("#bars .class").length > 0);
    assert.match(await page.locator("#about-image").textContent(), /512×512/);
    const alert = page.locator("#alert p");
    await page.locator("#files").setInputFiles([file("holiday.png", planes.red)]);
    assert.match(await alert.textContent(), /holiday.png does not contain .*\.$/i);
    const broken = [...files.slice(0, 3), file("x_yellow.png", Buffer.from("not an image"))];
    await page.locator("#files").setInputFiles(broken);
    await page.waitForFunction(() => /^`yellow`.*\.$/.test(document.querySelector("#alert p").textContent));
    // The browser logs the refusal itself.
    await done(opened, /status of 400/);
  },

  async "accepts one TIFF with all stains"() {
    if (!options.tiff) return;
    const opened = await open(url);
    const { page } = opened;
    await page.locator("#stage .prompt").waitFor();
    await page.locator("#files").setInputFiles(options.tiff);
    await page.waitForFunction(() => /no channel `red`/.test(document.querySelector("#alert p").textContent));
    await page.locator("summary").click();
    await page.locator("#whole-channels").fill("0,1,2,3");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => document.querySelectorAll("#bars .class").length > 0);
    assert.equal(await page.locator("#alert").isVisible(), false);
    // The model of this server depends only on the cell at the top right of the grid.
    await page.locator("#explain").click();
    await page.waitForFunction(() => /Largest decrease/.test(document.getElementById("reading").textContent));
    const lit = await page.evaluate(() => {
      const { width, height } = document.getElementById("heat");
      const context = document.getElementById("heat").getContext("2d");
      const opacity = (x, y) => context.getImageData(x, y, 1, 1).data[3];
      return [opacity(width - 1, 0), opacity(0, 0), opacity(width / 2, height / 2), opacity(width - 1, height - 1)];
    });
    assert.ok(lit[0] > 128 && lit.slice(1).every((opacity) => opacity === 0), String(lit));
    await done(opened, /status of 400/);
  },

  async "sends the key to a server that requires one"() {
    if (!options.locked) return;
    const opened = await open(options.locked);
    const { page } = opened;
    await page.locator("#key-value").fill("wrong-key-of-some-length");
    await page.keyboard.press("Enter");
    await page.waitForFunction(() => /does not accept this key/.test(document.querySelector("#alert p").textContent));
    await page.locator("#key-value").fill(options.key);
    await page.keyboard.press("Enter");
    await page.locator("#stage .prompt").waitFor();
    await useSample(page);
    const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie]);
    assert.deepEqual(kept, [0, 0, ""]);
    await done(opened, /status of 401/);
  },

  async "fits a phone and supports dark mode"() {
    const opened = await open(url, { viewport: { width: 390, height: 844 }, hasTouch: true });
    const { page } = opened;
    await page.locator("#stage .prompt").waitFor();
    await shoot(page, "empty-390");
    assert.equal(await overflows(page), false);
    await useSample(page);
    await page.locator("#explain").tap();
    await page.locator("#heat-choice").waitFor();
    await page.waitForFunction(() => !document.getElementById("explain").disabled);
    await shoot(page, "explained-390");
    assert.equal(await overflows(page), false);
    await done(opened);
    const dark = await open(url, { colorScheme: "dark" });
    await useSample(dark.page);
    const ground = await dark.page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.ok(ground.match(/\d+/g).every((part) => Number(part) < 64), ground);
    await shoot(dark.page, "dark-1280");
    await done(dark);
  },
};

try {
  for (const [name, check] of Object.entries(checks)) {
    await check();
    console.log(`${name}: ok`);
  }
} finally {
  await browser.close();
}
