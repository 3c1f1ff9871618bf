// State and event handlers of the page.

import * as api from "./api.js";
import { $, decimal, make, megabytes, sentence } from "./dom.js";
import * as files from "./files.js";
import * as picture from "./picture.js";
import * as results from "./results.js";

/** Maximum side of the displayed image in pixels. */
const PREVIEW_SIDE = 768;
/** A map is scaled to its largest decrease, but at least to this value. */
const MIN_SCALE = 0.02;

const state = {
  info: null,
  model: null,
  /** The files to send: `{ whole, channels }` or `{ stains }`. */
  image: { stains: new Map() },
  /** Name of the image. */
  title: "",
  planes: [],
  hidden: new Set(),
  prediction: null,
  /** The image of the current prediction. */
  sent: null,
  /** Index of the selected class. */
  chosen: 0,
  /** Whether all classes are listed. */
  all: false,
  /** The explanation: `{ grid, rows }`. */
  map: null,
  /** AbortController of the running task. */
  task: null,
};

// ── messages

function setStatus(text) {
  $("status").textContent = text;
}

function showError(error, retry) {
  const [text, button] = $("alert").children;
  text.textContent = sentence(error.message);
  button.hidden = !retry;
  button.onclick = retry ?? null;
  $("alert").hidden = false;
}

function clearAlert() {
  $("alert").hidden = true;
}

/** Runs a task and shows its errors. A new task aborts the previous one. */
async function run(task, retry) {
  state.task?.abort();
  const controller = new AbortController();
  state.task = controller;
  clearAlert();
  try {
    await task(controller.signal);
  } catch (error) {
    if (error.name === "AbortError") return;
    if (error.status === 401) requestKey(WRONG_KEY);
    // A retry cannot help if the image itself is the problem.
    else showError(error, error.status === undefined || error.status === 400 ? null : retry);
    if (!state.prediction) setStatus("No image yet.");
  } finally {
    if (state.task === controller) state.task = null;
  }
}

// ── start

const WRONG_KEY = "The server does not accept this key.";

function requestKey(message) {
  $("work").hidden = true;
  const form = $("key");
  form.hidden = false;
  $("key-value").focus();
  if (message) showError(new Error(message));
}

$("key").addEventListener("submit", (event) => {
  event.preventDefault();
  api.setKey($("key-value").value.trim());
  $("key-value").value = "";
  start(true);
});

async function start(withKey) {
  clearAlert();
  try {
    state.info = await api.serverInfo();
  } catch (error) {
    if (error.status === 401) requestKey(withKey ? WRONG_KEY : null);
    else showError(error, () => start(withKey));
    return;
  }
  $("key").hidden = true;
  $("version").textContent = `rgby ${state.info.version}`;
  const { models } = state.info;
  if (models.length === 0) {
    showError(new Error("no model is loaded on this server"), () => start(withKey));
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
  state.model = state.info.models[number];
  const { stains, size } = state.model;
  const { max_body: body, max_side: side, max_grid: grid } = state.info.limits;
  const files = stains.length === 1 ? "One file" : `${stains.length} files (${stains.join(", ")})`;
  $("expected-files").textContent = `${files}, or one multi-channel TIFF with all of them.`;
  $("limits").textContent =
    `PNG, JPEG or TIFF, 8 or 16 bits; in total up to ${megabytes(body)}, ` +
    `sides up to ${side.toLocaleString("en")} pixels. The model's input is ${size}×${size} pixels.`;
  $("whole-hint").textContent =
    `Names or indices (from 0) of the channels for ${stains.join(", ")}, in this order, ` +
    "separated by commas. Leave empty if the file uses these names.";
  $("whole-channels").placeholder = stains.map((_, place) => place).join(",");
  const grids = [8, 16].filter((cells) => cells <= Math.min(grid, size));
  const gridOption = (cells) => make("option", { value: cells }, `${cells}×${cells}`);
  $("grid").replaceChildren(...(grids.length ? grids : [Math.min(grid, size)]).map(gridOption));
  const { samples, sample_stains: sampleStains } = state.info;
  $("sample-choice").hidden = !stains.every((stain) => sampleStains.includes(stain));
  if ($("sample").options.length === 0) {
    $("sample").replaceChildren(...samples.map((name, value) => make("option", { value }, name)));
    $("sample").value = String(Math.max(samples.indexOf("Nucleoli"), 0));
  }
  if (stains.join() !== before) clearImage();
  else if (state.prediction) predict();
}

/** Removes the image, because the selected model needs other stains. */
function clearImage() {
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
      setImage({ stains });
    };
    const name = make("span", { className: "name" }, stain);
    const label = make("label", { className: "file button" }, file ? "Change" : "Choose", input);
    input.setAttribute("aria-label", `File of ${stain}`);
    const fileName = make("span", { className: file ? "what" : "what hint" }, file?.name ?? "no file yet");
    return make("p", { className: "slot" }, name, fileName, label);
  };
  $("slots").replaceChildren(...state.model.stains.map(slot));
}

/** Sets the image's files, and classifies the image once they are complete. */
function setImage(image) {
  const { whole, stains } = image;
  state.image = whole ? { whole, channels: $("whole-channels").value.trim() } : { stains };
  showSlots();
  const missing = whole ? [] : files.missing(stains, state.model.stains);
  if (missing.length > 0) {
    clearAlert();
    setStatus(`Still missing: ${missing.join(", ")}.`);
    $("slots-box").open = true;
    return;
  }
  state.title = whole ? whole.name : [...stains.values()][0].name;
  predict();
}

function addFiles(list) {
  if (!state.model || list.length === 0) return;
  try {
    setImage(files.sort(list, state.model.stains, state.image.stains ?? new Map()));
  } catch (error) {
    showError(error);
    $("slots-box").open = true;
  }
}

function useSample() {
  const number = Number($("sample").value);
  run(async (signal) => {
    setStatus("Drawing the sample…");
    const { stains } = state.model;
    const blobs = await Promise.all(stains.map((stain) => api.sample(number, stain, signal)));
    state.image = {
      stains: new Map(stains.map((stain, index) => [stain, new File([blobs[index]], `${stain}.png`)])),
    };
    state.title =
      `Synthetic sample of ${state.info.samples[number]}, which does not show how well the model ` +
      "performs on real cells";
    showSlots();
    await send(signal);
  }, useSample);
}

// ── inference

const predict = () => run(send, predict);

async function send(signal) {
  const { image } = state;
  const bytes = files.size(image);
  const maxBody = state.info.limits.max_body;
  if (bytes > maxBody) {
    throw new Error(`the files have ${megabytes(bytes)}; the server's limit is ${megabytes(maxBody)}`);
  }
  setStatus("Computing…");
  $("found").classList.add("old");
  try {
    const form = files.form(image, state.model);
    form.set("planes", String(Math.min(PREVIEW_SIDE, state.info.limits.max_shown)));
    const prediction = await api.predict(form, signal);
    state.planes = await picture.decodeAll(prediction.image.planes);
    state.prediction = prediction;
    state.sent = image;
    state.map = null;
    state.chosen = results.first(prediction.classes);
    showAll();
    setStatus(results.summary(prediction));
  } catch (error) {
    if (error.name !== "AbortError" && !state.prediction) setStatus("No image yet.");
    else if (state.prediction) setStatus(results.summary(state.prediction));
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

// ── display

function showAll() {
  const hasPrediction = state.prediction !== null;
  $("stage").classList.toggle("empty", !hasPrediction);
  $("view").hidden = !hasPrediction;
  $("found").hidden = !hasPrediction;
  $("guide").hidden = hasPrediction;
  if (hasPrediction) {
    showChannels();
    showPicture();
    showBars();
  }
  showHeat();
}

function showChannels() {
  const toggle = ({ stain }, number) => {
    const input = make("input", { type: "checkbox", checked: !state.hidden.has(stain) });
    input.onchange = () => {
      state.hidden[input.checked ? "delete" : "add"](stain);
      showPicture();
    };
    const dot = make("i", { className: "dot", ariaHidden: "true" });
    dot.style.background = `rgb(${picture.dot(stain, number).join(" ")})`;
    return make("label", { className: "channel" }, input, dot, stain);
  };
  $("channels").replaceChildren(...state.planes.map(toggle));
}

function showPicture() {
  const isVisible = (stain) => !state.hidden.has(stain);
  const canvas = $("picture");
  picture.draw(canvas, state.planes, isVisible, Number($("brightness").value));
  const visible = state.planes.map(({ stain }) => stain).filter(isVisible);
  const { width, height } = state.prediction.image;
  canvas.setAttribute("aria-label", `The image, with ${visible.join(", ") || "no stain"} visible`);
  $("about-image").textContent = `${state.title} · ${width}×${height} pixels`;
}

function showBars() {
  const descriptions = state.model.classes.map(({ about }) => about);
  results.show(state.prediction.classes, descriptions, state, (index) => {
    state.chosen = index;
    showBars();
    showHeat();
  });
}

function showHeat() {
  const { map, chosen, prediction } = state;
  const hasMap = map !== null && prediction !== null;
  const isVisible = hasMap && $("show-heat").checked;
  $("heat-choice").hidden = !hasMap;
  $("legend").hidden = !isVisible;
  $("stage").classList.toggle("mapped", isVisible);
  $("heat").hidden = !isVisible;
  if (!isVisible) return;
  const cell = (row, column) => map.rows[row]?.[column][chosen];
  const decreases = map.rows.flat().map((classes) => classes[chosen]);
  const largest = Math.max(0, ...decreases);
  const scale = Math.max(largest, MIN_SCALE);
  picture.drawHeat($("heat"), state.planes[0], map.grid, cell, scale);
  $("most").textContent = decimal(scale);
  $("reading").textContent = reading(largest, map.rows.length === map.grid);
}

/** Describes the map in words. */
function reading(largest, isComplete) {
  const { name, probability } = state.prediction.classes[state.chosen];
  if (!isComplete) return `${name}: ${state.map.rows.length} of ${state.map.grid} rows computed.`;
  if (largest < MIN_SCALE) {
    return (
      `${name}: hiding any one square reduces the probability of ${decimal(probability)} by at ` +
      `most ${decimal(largest)}. The evidence is spread over the image, or repeated in it.`
    );
  }
  return (
    `${name}: the lighter a square, the more the probability decreases when it is hidden. ` +
    `Largest decrease: ${decimal(largest)}, from ${decimal(probability)}.`
  );
}

// ── events

$("model").onchange = () => setModel(Number($("model").value));
$("files").onchange = () => {
  addFiles($("files").files);
  // Reset, so that choosing the same files again is a change event.
  $("files").value = "";
};
$("use-sample").onclick = useSample;
$("brightness").oninput = showPicture;
$("explain").onclick = explain;
$("stop").onclick = () => state.task?.abort();
$("show-heat").onchange = showHeat;
$("more").onclick = () => {
  state.all = !state.all;
  showBars();
};
$("whole-channels").onchange = () => {
  if (state.image.whole) setImage(state.image);
};

// The whole window accepts files; otherwise the browser would open a file dropped beside the image.
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
  addFiles(event.dataTransfer.files);
});

start(false);
