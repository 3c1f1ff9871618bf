// The page: what there is, what is chosen, and what happens when somebody does something.

import * as api from "./api.js";
import { $, decimal, make, megabytes, sentence } from "./dom.js";
import * as files from "./files.js";
import * as picture from "./picture.js";
import * as results from "./results.js";

/** Longest side of the picture on the page, in pixels. */
const SHOWN = 768;
/** A map whose largest fall is below this is not stretched to the full range of colours. */
const FAINT = 0.02;

const state = {
  about: null,
  model: null,
  /** What will be sent: `{ whole, channels }` or `{ stains }`. */
  image: { stains: new Map() },
  /** What the image is called. */
  title: "",
  planes: [],
  off: new Set(),
  prediction: null,
  /** The image that the prediction is of. */
  sent: null,
  chosen: 0,
  all: false,
  /** The map: `{ grid, rows }`. */
  map: null,
  work: null,
};

// ── messages

function say(text) {
  $("status").textContent = text;
}

function complain(error, again) {
  const [text, button] = $("alert").children;
  text.textContent = sentence(error.message);
  button.hidden = !again;
  button.onclick = again ?? null;
  $("alert").hidden = false;
}

function clearAlert() {
  $("alert").hidden = true;
}

/** Runs one piece of work; a new one stops the one before. Errors become sentences. */
async function run(work, again) {
  state.work?.abort();
  const controller = new AbortController();
  state.work = controller;
  clearAlert();
  try {
    await work(controller.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) askForKey("This key is not known to the server.");
    // What the image itself does wrong is the same the next time.
    else complain(error, error.status === undefined || error.status === 400 ? null : again);
    if (!state.prediction) say("No image yet.");
  } finally {
    if (state.work === controller) state.work = null;
  }
}

// ── the beginning

function askForKey(message) {
  $("work").hidden = true;
  const form = $("key");
  form.hidden = false;
  $("key-value").focus();
  if (message) complain(new Error(message));
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setKey($("key-value").value.trim());
  $("key-value").value = "";
  begin(true);
});

async function begin(withKey) {
  clearAlert();
  try {
    state.about = await api.about();
  } catch (error) {
    if (error.status === 401) askForKey(withKey ? "This key is not known to the server" : null);
    else complain(error, () => begin(withKey));
    return;
  }
  $("key").hidden = true;
  $("version").textContent = `rgby ${state.about.version}`;
  const { models } = state.about;
  if (models.length === 0) {
    complain(new Error("no model is loaded on this server"), () => begin(withKey));
    return;
  }
  const option = ({ name, version, arch }, number) =>
    make("option", { value: number }, `${name} ${version} (${arch})`);
  $("model").replaceChildren(...models.map(option));
  $("model").disabled = models.length === 1;
  $("work").hidden = false;
  setModel(0);
}

function setModel(number) {
  const before = state.model?.stains.join();
  state.model = state.about.models[number];
  const { stains, size } = state.model;
  const { max_body: body, max_side: side, max_grid: grid } = state.about.limits;
  const four = stains.length === 1 ? "One file" : `${stains.length} files (${stains.join(", ")})`;
  $("wanted").textContent = `${four}, or one multi-channel TIFF with all of them.`;
  $("limits").textContent =
    `PNG, JPEG or TIFF, 8 or 16 bits; all together up to ${megabytes(body)}, ` +
    `sides up to ${side.toLocaleString("en")} pixels. The model sees ${size}×${size}.`;
  $("whole-hint").textContent =
    `Names or numbers (from 0) of the channels that are ${stains.join(", ")}, in this order, ` +
    "with commas between them. Empty: they have these names in the file.";
  $("whole-channels").placeholder = stains.map((_, place) => place).join(",");
  const grids = [8, 16].filter((cells) => cells <= Math.min(grid, size));
  const gridOption = (cells) => make("option", { value: cells }, `${cells}×${cells}`);
  $("grid").replaceChildren(...(grids.length ? grids : [Math.min(grid, size)]).map(gridOption));
  const { samples, sample_stains: drawn } = state.about;
  $("sample-choice").hidden = !stains.every((stain) => drawn.includes(stain));
  if ($("sample").options.length === 0) {
    $("sample").replaceChildren(...samples.map((name, value) => make("option", { value }, name)));
    $("sample").value = String(Math.max(samples.indexOf("Nucleoli"), 0));
  }
  if (stains.join() !== before) forget();
  else if (state.prediction) predict();
}

/** Drops the image: another model wants other stains. */
function forget() {
  state.image = { stains: new Map() };
  state.prediction = null;
  state.planes = [];
  showSlots();
  showAll();
}

// ── choosing files

function showSlots() {
  const slot = (stain) => {
    const file = state.image.stains?.get(stain);
    const input = make("input", { type: "file", accept: "image/png,image/jpeg,image/tiff" });
    input.onchange = () => {
      if (input.files.length === 0) return;
      const stains = new Map(state.image.stains);
      stains.set(stain, input.files[0]);
      take({ stains });
    };
    const name = make("span", { className: "name" }, stain);
    const label = make("label", { className: "file button" }, file ? "Change" : "Choose", input);
    input.setAttribute("aria-label", `File of ${stain}`);
    const what = make("span", { className: file ? "what" : "what hint" }, file?.name ?? "no file yet");
    return make("p", { className: "slot" }, name, what, label);
  };
  $("slots").replaceChildren(...state.model.stains.map(slot));
}

/** Takes files and, if they are an image, has it classified. */
function take(image) {
  const { whole, stains } = image;
  state.image = whole ? { whole, channels: $("whole-channels").value.trim() } : { stains };
  showSlots();
  const lacking = whole ? [] : files.missing(stains, state.model.stains);
  if (lacking.length > 0) {
    clearAlert();
    say(`Still missing: ${lacking.join(", ")}.`);
    $("slots-box").open = true;
    return;
  }
  state.title = whole ? whole.name : [...stains.values()][0].name;
  predict();
}

function drop(list) {
  if (!state.model || list.length === 0) return;
  try {
    take(files.sort(list, state.model.stains, state.image.stains ?? new Map()));
  } catch (error) {
    complain(error);
    $("slots-box").open = true;
  }
}

function useSample() {
  const number = Number($("sample").value);
  run(async (signal) => {
    say("Drawing the sample…");
    const { stains } = state.model;
    const blobs = await Promise.all(stains.map((stain) => api.sample(number, stain, signal)));
    state.image = {
      stains: new Map(stains.map((stain, at) => [stain, new File([blobs[at]], `${stain}.png`)])),
    };
    state.title =
      `A drawn sample that shows ${state.about.samples[number]}: a cartoon, which says nothing ` +
      "of how good a model is on real cells";
    showSlots();
    await send(signal);
  }, useSample);
}

// ── asking the model

const predict = () => run(send, predict);

async function send(signal) {
  const { image } = state;
  const bytes = files.size(image);
  const most = state.about.limits.max_body;
  if (bytes > most) {
    throw new Error(`these files have ${megabytes(bytes)}; this server takes ${megabytes(most)}`);
  }
  say("Computing…");
  $("found").classList.add("old");
  try {
    const form = files.form(image, state.model);
    form.set("planes", String(Math.min(SHOWN, state.about.limits.max_shown)));
    const prediction = await api.predict(form, signal);
    state.planes = await picture.decodeAll(prediction.image.planes);
    state.prediction = prediction;
    state.sent = image;
    state.map = null;
    state.chosen = results.first(prediction.classes);
    showAll();
    say(results.summary(prediction));
  } catch (error) {
    if (error.name !== "AbortError" && !state.prediction) say("No image yet.");
    else if (state.prediction) say(results.summary(state.prediction));
    throw error;
  } finally {
    $("found").classList.remove("old");
  }
}

async function explain() {
  await run(async (signal) => {
    const form = files.form(state.sent, state.model);
    form.set("grid", $("grid").value);
    const map = { grid: Number($("grid").value), rows: [] };
    $("explaining").hidden = false;
    $("explain").disabled = true;
    $("progress").value = 0;
    try {
      await api.explain(form, signal, (line) => {
        if (line.row === undefined) return;
        map.rows[line.row] = line.falls;
        state.map = map;
        $("progress").value = map.rows.length / map.grid;
        showHeat();
      });
    } finally {
      $("explaining").hidden = true;
      $("explain").disabled = false;
      showHeat();
    }
  }, explain);
}

// ── showing

function showAll() {
  const isThere = state.prediction !== null;
  $("stage").classList.toggle("empty", !isThere);
  $("view").hidden = !isThere;
  $("found").hidden = !isThere;
  $("guide").hidden = isThere;
  if (isThere) {
    showChannels();
    showPicture();
    showBars();
  }
  showHeat();
}

function showChannels() {
  const toggle = ({ stain }, number) => {
    const input = make("input", { type: "checkbox", checked: !state.off.has(stain) });
    input.onchange = () => {
      state.off[input.checked ? "delete" : "add"](stain);
      showPicture();
    };
    const dot = make("i", { className: "dot", ariaHidden: "true" });
    dot.style.background = `rgb(${picture.dot(stain, number).join(" ")})`;
    return make("label", { className: "channel" }, input, dot, stain);
  };
  $("channels").replaceChildren(...state.planes.map(toggle));
}

function showPicture() {
  const isOn = (stain) => !state.off.has(stain);
  const canvas = $("picture");
  picture.draw(canvas, state.planes, isOn, Number($("brightness").value));
  const on = state.planes.map(({ stain }) => stain).filter(isOn);
  const { width, height } = state.prediction.image;
  canvas.setAttribute("aria-label", `The image, with ${on.join(", ") || "no stain"} shown`);
  $("about-image").textContent = `${state.title} · ${width}×${height} pixels`;
}

function showBars() {
  const abouts = state.model.classes.map(({ about }) => about);
  results.show(state.prediction.classes, abouts, state, (index) => {
    state.chosen = index;
    showBars();
    showHeat();
  });
}

function showHeat() {
  const { map, chosen, prediction } = state;
  const isThere = map !== null && prediction !== null;
  const isOn = isThere && $("show-heat").checked;
  $("heat-choice").hidden = !isThere;
  $("legend").hidden = !isOn;
  $("stage").classList.toggle("mapped", isOn);
  $("heat").hidden = !isOn;
  if (!isOn) return;
  const cell = (row, column) => map.rows[row]?.[column][chosen];
  const falls = map.rows.flat().map((classes) => classes[chosen]);
  const largest = Math.max(0, ...falls);
  const most = Math.max(largest, FAINT);
  picture.drawHeat($("heat"), state.planes[0], map.grid, cell, most);
  $("most").textContent = decimal(most);
  $("reading").textContent = reading(largest, map.rows.length === map.grid);
}

/** What the map says, in words. */
function reading(largest, isWhole) {
  const { name, probability } = state.prediction.classes[state.chosen];
  if (!isWhole) return `${name}: ${state.map.rows.length} of ${state.map.grid} rows so far.`;
  const how = "the lighter a square, the more the probability falls where it is hidden.";
  if (largest < FAINT) {
    return (
      `${name}: hiding any one square takes at most ${decimal(largest)} off its ` +
      `${decimal(probability)}. What it goes by is spread over the image, or repeated in it.`
    );
  }
  return `${name}: ${how} At most by ${decimal(largest)}, from ${decimal(probability)}.`;
}

// ── events

$("model").onchange = () => setModel(Number($("model").value));
$("files").onchange = () => {
  drop($("files").files);
  // The same files again are a change too.
  $("files").value = "";
};
$("use-sample").onclick = useSample;
$("brightness").oninput = showPicture;
$("explain").onclick = explain;
$("stop").onclick = () => state.work?.abort();
$("show-heat").onchange = showHeat;
$("more").onclick = () => {
  state.all = !state.all;
  showBars();
};
$("whole-channels").onchange = () => {
  if (state.image.whole) take(state.image);
};

// The whole window takes files, so that none is opened in place of the page.
for (const type of ["dragenter", "dragover"]) {
  addEventListener(type, (event) => {
    event.preventDefault();
    document.body.classList.add("dragging");
  });
}
addEventListener("dragleave", (event) => {
  if (event.relatedTarget === null) document.body.classList.remove("dragging");
});
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  drop(event.dataTransfer.files);
});

begin(false);
