"use strict";
const element = (id) => document.getElementById(id);

/** Rounded, but a probability is not shown as 0 or 100 % unless it is. */
function percent(fraction) {
  if (fraction > 0 && fraction < 0.0005) return "< 0.1 %";
  if (fraction >= 0.9995 && fraction < 1) return "> 99.9 %";
  return `${(100 * fraction).toFixed(1)} %`;
}
const MAX_ROWS = 20;
let inputSize = "";

function createElement(tag, text) {
  const created = document.createElement(tag);
  created.textContent = text;
  return created;
}

function headers() {
  const key = element("key").value;
  return key ? { "X-API-Key": key } : {};
}

function showProbabilities(probabilities) {
  // An object forgets the order of keys that look like numbers.
  const ranked = Object.entries(probabilities).sort((a, b) => b[1] - a[1]);
  const rows = ranked.slice(0, MAX_ROWS).map(([name, probability]) => {
    const row = document.createElement("tr");
    row.insertCell().textContent = name;
    const bar = row.insertCell();
    bar.className = "bar";
    bar.append(document.createElement("i"));
    bar.firstChild.style.width = `${100 * probability}%`;
    const number = row.insertCell();
    number.className = "n";
    number.textContent = percent(probability);
    return row;
  });
  element("probabilities").replaceChildren(...rows);
  const n = ranked.length - MAX_ROWS;
  element("more").textContent = n > 0 ? `and ${n.toLocaleString("en")} less probable classes` : "";
}

function show(answer) {
  const prediction = answer.predictions[0];
  element("label").textContent = prediction.label ?? "not sure";
  element("unfamiliar").hidden = !prediction.unfamiliar;
  if (prediction.unfamiliar) {
    // Rounded up: a score that is just above 1 is not shown as 1.
    const score = (Math.ceil(100 * prediction.unfamiliarity) / 100).toFixed(2);
    element("unfamiliar").textContent =
      `Unlike everything this model was trained on (score ${score}, above 1 is unfamiliar): ` +
      "do not rely on the probabilities below.";
  }
  showProbabilities(prediction.probabilities);
  element("details").textContent =
    `${answer.model} version ${answer.version}, ${answer.milliseconds} ms, prediction ${prediction.id}`;
  element("answer").hidden = false;
}

function showPicture(file) {
  const picture = element("picture");
  URL.revokeObjectURL(picture.src);
  picture.hidden = false;
  picture.onload = () => {
    const { naturalWidth: width, naturalHeight: height } = picture;
    picture.classList.toggle("small", Math.max(width, height) < 192);
    element("size").textContent = `${width} × ${height} pixels${inputSize}`;
  };
  picture.onerror = () => {
    picture.hidden = true;
    element("size").textContent = "Your browser does not show this format; the service may read it.";
  };
  picture.src = URL.createObjectURL(file);
}

async function predict(file) {
  element("problem").textContent = "";
  element("answer").hidden = true;
  showPicture(file);
  const options = { "Content-Type": "application/octet-stream", ...headers() };
  try {
    const response = await fetch("predict", { method: "POST", headers: options, body: file });
    const answer = await response.json();
    if (response.ok) {
      show(answer);
      return;
    }
    element("problem").textContent = answer.detail;
    if (response.status === 401) element("access-details").open = true;
  } catch (error) {
    element("problem").textContent = `The service cannot be reached: ${error.message}`;
  }
}

function tile(name, value, note) {
  const created = document.createElement("div");
  created.append(createElement("b", name), value, createElement("small", note));
  return created;
}

function describeCalibration(calibration) {
  if (calibration === null)
    return "The probabilities are not calibrated: they rank the classes, and do not say how often " +
      "an answer is right.";
  if (calibration.warning)
    return `Do not take the probabilities for how often an answer is right. ${calibration.warning}`;
  return `The probabilities are calibrated on ${calibration.n_images.toLocaleString("en")} ` +
    "validation images: of answers that are given with 90 %, about 90 in 100 are right, for images " +
    "like those of the data set.";
}

function showModel(info) {
  const { height, width, channels } = info.input;
  const size = `${width} × ${height}, ${channels === 1 ? "gray" : "color"}`;
  inputSize = `; the model sees ${size}`;
  element("stage").textContent = info.stage ?? "";
  element("stage").className =
    ["staging", "production"].includes(info.stage) ? "badge good" : "badge";
  element("card").hidden = info.card === null;
  const metrics = [["Test accuracy", "accuracy"], ["Test macro F1", "macro_f1"]]
    .filter(([, name]) => name in info.metrics)
    .map(([title, name]) => tile(title, percent(info.metrics[name]), "on images it never saw"));
  const classes = tile("Classes", info.classes.length.toLocaleString("en"), "");
  element("facts").replaceChildren(...metrics, classes, tile("Input", size, "pixels"));
  element("facts").hidden = false;
  element("meaning").textContent = describeCalibration(info.calibration);
}

function showSamples(images) {
  const buttons = images.map((image, position) => {
    const button = document.createElement("button");
    const picture = document.createElement("img");
    const file = new Blob(
      [Uint8Array.from(atob(image), (character) => character.charCodeAt(0))], { type: "image/png" });
    picture.src = URL.createObjectURL(file);
    picture.alt = `sample ${position + 1}`;
    button.append(picture);
    button.addEventListener("click", () => predict(file));
    return button;
  });
  element("samples").replaceChildren(element("samples").firstElementChild, ...buttons);
  element("samples").hidden = false;
}

/** Show what the key, if there is one, allows to see: the model, and samples. */
async function describe() {
  const [info, samples] = await Promise.all(
    ["model-info", "samples"].map((path) => fetch(path, { headers: headers() })));
  if (info.ok) showModel(await info.json());
  if (samples.ok) showSamples((await samples.json()).images);
}

element("access").addEventListener("submit", (event) => event.preventDefault());
element("key").addEventListener("change", describe);
const drop = element("drop");
drop.addEventListener("dragover", (event) => {
  event.preventDefault();
  drop.classList.add("over");
});
drop.addEventListener("dragleave", () => drop.classList.remove("over"));
drop.addEventListener("drop", (event) => {
  event.preventDefault();
  drop.classList.remove("over");
  if (event.dataTransfer.files[0]) predict(event.dataTransfer.files[0]);
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files[0]) predict(event.clipboardData.files[0]);
});
element("file").addEventListener("change", (event) => {
  if (event.target.files[0]) predict(event.target.files[0]);
});
fetch("openapi.json").then((response) => response.json()).then((description) => {
  element("model").textContent = `${description.info.title}, version ${description.info.version}`;
});
describe();
