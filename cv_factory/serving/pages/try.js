"use strict";
const element = (id) => document.getElementById(id);

function show(answer) {
  const prediction = answer.predictions[0];
  element("label").textContent = prediction.label ?? "not sure";
  const unfamiliar = element("unfamiliar");
  unfamiliar.hidden = !prediction.unfamiliar;
  unfamiliar.textContent = prediction.unfamiliar
    ? `Unlike everything this model was trained on (score ${prediction.unfamiliarity.toFixed(2)}, ` +
      "above 1 is unfamiliar): do not rely on the probabilities below."
    : "";
  // An object forgets the order of keys that look like numbers.
  const ranked = Object.entries(prediction.probabilities).sort((a, b) => b[1] - a[1]);
  const rows = ranked.map(([name, probability]) => {
    const row = document.createElement("tr");
    const bar = document.createElement("progress");
    bar.max = 1;
    bar.value = probability;
    row.insertCell().textContent = name;
    row.insertCell().append(bar);
    const number = row.insertCell();
    number.className = "number";
    number.textContent = `${(100 * probability).toFixed(1)} %`;
    return row;
  });
  element("probabilities").replaceChildren(...rows);
  element("details").textContent =
    `${answer.model} version ${answer.version}, ${answer.milliseconds} ms, prediction ${prediction.id}`;
  element("answer").hidden = false;
}

async function predict(file) {
  element("problem").textContent = "";
  element("answer").hidden = true;
  URL.revokeObjectURL(element("picture").src);
  element("picture").src = URL.createObjectURL(file);
  element("picture").hidden = false;
  const headers = { "Content-Type": "application/octet-stream" };
  if (element("key").value) headers["X-API-Key"] = element("key").value;
  try {
    const response = await fetch("predict", { method: "POST", headers, body: file });
    const answer = await response.json();
    if (response.ok) show(answer);
    else element("problem").textContent = answer.detail;
  } catch (error) {
    element("problem").textContent = `The service cannot be reached: ${error.message}`;
  }
}

element("access").addEventListener("submit", (event) => event.preventDefault());
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
