"use strict";

const MOST_BYTES = 10 * 2 ** 20; // server.py has the same number
const SHOWN = 8;
const WAIT = 400; // milliseconds after the last key
const WORDS = { complete: "image and text", text: "the image alone", image: "the text alone" };

const at = (id) => document.getElementById(id);
const image = { last: null, encoded: null, problem: "" }; // what was chosen last, what was read
let answer = null;
let asking = false;
let changed = false;
let turn = 0; // grows with every change: an answer to an older question is not shown
let timer = null;

function showError(words) {
  at("error").textContent = words;
  at("error").hidden = !words;
}

function takeAway(words) {
  answer = null;
  at("answer").hidden = true;
  at("status").textContent = words;
}

function encode(file) {
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.onload = () => done(reader.result.slice(reader.result.indexOf(",") + 1));
    reader.onerror = () => failed(new Error(`${file.name} cannot be read`));
    reader.readAsDataURL(file);
  });
}

function refusal(file) {
  if (file && file.size > MOST_BYTES) return `${file.name} has over 10 MB; make it smaller.`;
  if (file && file.type && !file.type.startsWith("image/")) {
    return `${file.name} is no image; give an image, or paste its text.`;
  }
  return "";
}

async function choose(file) {
  turn++;
  image.last = file;
  let encoded = null;
  let problem = refusal(file);
  try {
    encoded = file && !problem ? await encode(file) : null;
  } catch (error) {
    problem = error.message;
  }
  if (image.last !== file) return; // another was chosen, or it was removed, meanwhile
  image.encoded = encoded;
  image.problem = problem;
  turn++;
  show(problem ? null : file);
  if (problem) takeAway("");
  showError(problem);
  ask();
}

function show(file) {
  const preview = at("preview");
  if (preview.src) URL.revokeObjectURL(preview.src);
  if (file) preview.src = URL.createObjectURL(file);
  else preview.removeAttribute("src");
  preview.hidden = !file;
  at("hint").hidden = Boolean(file);
}

async function ask() {
  changed = true;
  if (asking) return; // one question at a time; this one follows
  asking = true;
  while (changed) {
    changed = false;
    await askOnce();
  }
  asking = false;
}

async function askOnce() {
  const mine = turn;
  const text = at("text").value.trim() ? at("text").value : null;
  showError(image.problem);
  if (image.problem) return takeAway(""); // not from the text alone, as if no image was given
  if (!image.encoded && !text) return takeAway("Give an image, a text, or both.");
  at("status").textContent = "The model is at work…";
  try {
    const reply = await fetch("/predict", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ image: image.encoded, text }),
    });
    const said = await reply.json();
    if (turn !== mine) return;
    if (!reply.ok) throw new Error(said.error);
    answer = said;
    draw();
  } catch (error) {
    if (turn !== mine) return;
    takeAway("");
    const gone = error instanceof TypeError || error instanceof SyntaxError;
    showError(gone ? "The server does not answer; look at its terminal." : error.message);
  }
}

function askedState() {
  const used = [at("use-image").checked, at("use-text").checked];
  if (!used[0] && !used[1]) return null;
  if (used[0] && used[1]) return Object.keys(answer.states)[0]; // as it was given
  return used[0] ? "text" : "image"; // named by what is missing
}

function cell(state, asked, probability) {
  const td = document.createElement("td");
  td.dataset.state = state;
  td.classList.toggle("asked", state === asked);
  if (probability === undefined) {
    td.textContent = "–";
    return td;
  }
  const bar = document.createElement("span");
  const filled = document.createElement("i");
  bar.className = "bar";
  filled.style.width = `${100 * probability}%`;
  bar.append(filled);
  td.append(`${(100 * probability).toFixed(1)} %`, bar);
  return td;
}

function draw() {
  at("drop").classList.toggle("away", !at("use-image").checked);
  at("text").parentElement.classList.toggle("away", !at("use-text").checked);
  if (!answer) return;
  const asked = askedState();
  const found = asked && answer.states[asked];
  if (!found) {
    at("answer").hidden = true;
    at("status").textContent = "Nothing is left: tick what is there, or give the other one.";
    return;
  }
  const order = answer.classes.map((_, i) => i);
  order.sort((a, b) => found.probabilities[b] - found.probabilities[a]);
  at("answer").tBodies[0].replaceChildren(...order.slice(0, SHOWN).map((i) => {
    const row = document.createElement("tr");
    const name = document.createElement("th");
    name.scope = "row";
    name.textContent = answer.classes[i];
    row.append(name, ...Object.keys(WORDS).map((state) =>
      cell(state, asked, answer.states[state]?.probabilities[i])));
    return row;
  }));
  for (const head of document.querySelectorAll("thead [data-state]")) {
    head.classList.toggle("asked", head.dataset.state === asked);
  }
  at("answer").hidden = false;
  at("status").textContent = `From ${WORDS[asked]}: ${found.predicted || "no class above 50 %"}`;
}

function take(file) { // as if it had been chosen, so that the field says its name
  const one = new DataTransfer();
  one.items.add(file);
  at("file").files = one.files;
  choose(file);
}

at("file").addEventListener("change", () => choose(at("file").files[0] ?? null));
at("clear").addEventListener("click", () => {
  at("file").value = "";
  choose(null);
});
at("text").addEventListener("input", () => {
  turn++;
  clearTimeout(timer);
  timer = setTimeout(ask, WAIT);
});
for (const id of ["use-image", "use-text"]) at(id).addEventListener("change", draw);
for (const name of ["dragover", "dragleave", "drop"]) {
  document.addEventListener(name, (event) => {
    if (!event.dataTransfer.types.includes("Files")) return; // words, for the text
    event.preventDefault(); // a file dropped beside the frame must not replace the page
    at("drop").classList.toggle("over", name === "dragover");
    if (name === "drop" && event.dataTransfer.files.length) take(event.dataTransfer.files[0]);
  });
}
