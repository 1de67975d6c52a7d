"use strict";

const MAX_BYTES = 10 * 2 ** 20; // web.py limits the request as a whole
const SHOWN = 8; // classes
const DELAY = 400; // milliseconds after the last key
const INPUTS = { complete: "image and text", text: "the image alone", image: "the text alone" }; // by what is missing

const at = (id) => document.getElementById(id);
let file = null;
let answer = null;
let request = null; // the latest; it aborts the one before
let timer = null;

function report(status, error = "") {
  at("status").textContent = status;
  at("error").textContent = error;
  at("error").hidden = !error;
}

function clearAnswer(status, error) {
  answer = null;
  at("answer").hidden = true;
  report(status, error);
}

function problemOf(chosen) {
  if (chosen?.size > MAX_BYTES) return `${chosen.name} has over 10 MB; make it smaller.`;
  if (chosen?.type && !chosen.type.startsWith("image/")) return `${chosen.name} is not an image; choose an image.`;
  return "";
}

function choose(chosen) {
  file = chosen;
  const visible = file !== null && !problemOf(file);
  const preview = at("preview");
  URL.revokeObjectURL(preview.src);
  preview.src = visible ? URL.createObjectURL(file) : "";
  preview.hidden = !visible;
  at("hint").hidden = visible;
  ask();
}

async function ask() {
  request?.abort();
  request = new AbortController();
  const { signal } = request;
  const form = new FormData();
  form.append("text", at("text").value);
  if (file) form.append("image", file);
  const problem = problemOf(file);
  if (problem) return clearAnswer("", problem); // the text alone would pass for a pair without image
  if (!file && !at("text").value.trim()) return clearAnswer("Give an image, a text, or both.");
  report("Predicting…");
  try {
    const reply = await fetch("/predict", { method: "POST", body: form, signal });
    const content = await reply.json();
    if (signal.aborted) return;
    if (!reply.ok) throw new Error(content.detail);
    answer = content;
    draw();
  } catch (error) {
    if (signal.aborted) return;
    const failed = error instanceof TypeError || error instanceof SyntaxError;
    clearAnswer("", failed ? "The file was not sent or the server does not answer; see its terminal." : error.message);
  }
}

function selectedCase() {
  const [image, text] = [at("use-image").checked, at("use-text").checked];
  if (!image && !text) return null;
  if (image && text) return Object.keys(answer.cases)[0]; // what was given
  return image ? "text" : "image"; // named by what is missing
}

function cell(missing, selected, probability) {
  const td = document.createElement("td");
  td.dataset.missing = missing;
  td.classList.toggle("selected", missing === selected);
  td.textContent = "–";
  if (probability === undefined) return td;
  const bar = document.createElement("span");
  const filled = document.createElement("i");
  bar.className = "bar";
  filled.style.width = `${100 * probability}%`;
  bar.append(filled);
  td.replaceChildren(`${(100 * probability).toFixed(1)} %`, bar);
  return td;
}

function draw() {
  at("drop").classList.toggle("unused", !at("use-image").checked);
  at("text").parentElement.classList.toggle("unused", !at("use-text").checked);
  if (!answer) return;
  const selected = selectedCase();
  const found = answer.cases[selected];
  at("answer").hidden = !found;
  if (!found) return report("Nothing to classify: tick what is given, or give the other one.");
  const order = answer.classes.map((_, i) => i).sort((a, b) => found.probabilities[b] - found.probabilities[a]);
  at("answer").tBodies[0].replaceChildren(...order.slice(0, SHOWN).map((i) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = answer.classes[i];
    row.append(name, ...Object.keys(INPUTS).map((missing) =>
      cell(missing, selected, answer.cases[missing]?.probabilities[i])));
    return row;
  }));
  for (const head of document.querySelectorAll("thead [data-missing]")) {
    head.classList.toggle("selected", head.dataset.missing === selected);
  }
  report(`From ${INPUTS[selected]}: ${found.predicted || "no class above 50 %"}`);
}

at("file").addEventListener("change", () => choose(at("file").files[0] ?? null));
at("clear").addEventListener("click", () => choose(at("file").value = null));
at("text").addEventListener("input", () => {
  request?.abort();
  clearTimeout(timer);
  timer = setTimeout(ask, DELAY);
});
for (const id of ["use-image", "use-text"]) at(id).addEventListener("change", draw);
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // dropped words go into the text
    event.preventDefault(); // else a file dropped beside the frame would replace the page
    at("drop").classList.toggle("over", name === "dragover");
    if (name !== "drop" || !event.dataTransfer.files.length) return;
    at("file").files = event.dataTransfer.files; // so that the field shows the file's name
    choose(at("file").files[0]);
  });
}
fetch("/model").then((reply) => reply.json()).then((model) => {
  at("model").textContent = Object.entries(model).map(([key, value]) => `${key}: ${value}`).join(" · ");
});
