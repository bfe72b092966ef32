// The one script: sends what was chosen, takes pictures, draws boxes, answers by keyboard, follows a training.
"use strict";

const $ = (selector, root = document) => root.querySelector(selector);
const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

function say(text, wrong = false) {
  const line = $("#said");
  line.textContent = text;
  line.classList.toggle("wrong", wrong);
  line.hidden = !text;
  clearTimeout(say.timer);
  // What has several lines is to be read in one's own time: it stays until Escape, a click or the next.
  if (!text.includes("\n")) say.timer = setTimeout(() => { line.hidden = true; }, wrong ? 12000 : 6000);
}
$("#said")?.addEventListener("click", () => { $("#said").hidden = true; });
addEventListener("keydown", (event) => { if (event.key === "Escape" && $("#said")) $("#said").hidden = true; });

async function ask(path, body) {
  const json = body !== undefined && !(body instanceof Blob);
  const options = body === undefined ? {} : { method: "POST", body: json ? JSON.stringify(body) : body };
  if (json) options.headers = { "content-type": "application/json" };
  else if (body !== undefined) options.headers = { "content-type": "application/octet-stream" };
  const answer = await fetch(path, options);
  let told = {};
  try { told = await answer.json(); } catch { /* no JSON: the status says it */ }
  if (!answer.ok) {
    throw new Error(told.error || `the server answered ${answer.status}`);
  }
  return told;
}

// After a page was left for the next, what was done is said there.
function later(text) { sessionStorage.setItem("said", text); }
const before = sessionStorage.getItem("said");
if (before) { sessionStorage.removeItem("said"); say(before); }

// Forms: "name", "name[]" for lists, ":number" and ":bool" for what is no text.
function fields(form) {
  const body = {};
  for (const [key, value] of form ? new FormData(form) : []) {
    const [name, kind] = key.split(":");
    if (value === "" && kind) continue;
    const typed = kind === "number" ? Number(value) : kind === "bool" ? value === "true" : value;
    if (name.endsWith("[]")) (body[name.slice(0, -2)] ??= []).push(typed);
    else body[name] = typed;
  }
  return body;
}

// Each action takes from its form what it knows; the rest belongs to another button.
const TAKES = {
  "/api/merge": ["people"], "/api/split": ["parts"], "/api/move": ["parts", "person"], "/api/name": ["person", "name"],
  "/api/cut": ["track", "frame", "cut"], "/api/forget": ["person", "confirm"], "/api/undo": [], "/api/redo": [],
};
const NEEDED = {
  people: "choose two people or more", parts: "choose some parts first", person: "choose a person first",
  frame: "choose a frame first", confirm: "write the number to confirm",
};

async function act(button) {
  const path = button.dataset.post;
  const given = fields(button.form);
  const body = {};
  for (const key of TAKES[path]) {
    if (given[key] === undefined && key !== "name") { say(NEEDED[key] || `${key} is missing`, true); return; }
    body[key] = given[key];
  }
  button.disabled = true;
  try {
    const told = await ask(path, body);
    later([told[button.dataset.show || "did"], ...(told.warnings || [])].filter(Boolean).join(" · but: "));
    let then = button.dataset.then?.replace(/\{(\w+)\}/g, (_, key) => told[key]);
    // What was undone may have made the person of this page.
    if (told.gone?.some((number) => location.pathname === `/people/${number}`)) then = "/people";
    if (then && then !== location.pathname) location.assign(then);
    else location.reload();
  } catch (error) {
    button.disabled = false;
    say(error.message, true);
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-post]");
  if (button) { event.preventDefault(); act(button); }
});
document.addEventListener("submit", (event) => {
  const button = $("button[data-post]", event.target);
  if (button) { event.preventDefault(); act(event.submitter || button); }
});

const writing = (target) => target.closest?.("input:not([type=checkbox]):not([type=radio]),select,textarea,dialog");
document.addEventListener("keydown", (event) => {
  if (writing(event.target) || event.altKey) return;
  if ((event.ctrlKey || event.metaKey) && event.key.toLowerCase() === "z" && $("[data-post='/api/undo']")) {
    event.preventDefault();
    $(event.shiftKey ? "[data-post='/api/redo']" : "[data-post='/api/undo']").click();
  }
});

// A picture: chosen, dropped or pasted.
const drop = $("#drop");
if (drop) {
  const send = async (file) => {
    if (!file) return;
    say("looking at the picture …");
    try { location.assign(`/?picture=${encodeURIComponent((await ask("/api/pictures", file)).id)}`); }
    catch (error) { say(error.message, true); }
  };
  $("#file").addEventListener("change", (event) => send(event.target.files[0]));
  for (const kind of ["dragenter", "dragover"]) {
    document.addEventListener(kind, (event) => { event.preventDefault(); drop.classList.add("over"); });
  }
  document.addEventListener("dragleave", () => drop.classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    drop.classList.remove("over");
    send(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => send(event.clipboardData.files[0]));
}

// A box, drawn with a pointer; the field beside it takes numbers.
const pick = $("#pick");
if (pick) {
  let begin = null, drawn = null;
  const at = (event) => new DOMPoint(event.clientX, event.clientY).matrixTransform(pick.getScreenCTM().inverse());
  pick.addEventListener("pointerdown", (event) => { begin = at(event); event.preventDefault(); });
  pick.addEventListener("pointermove", (event) => {
    if (!begin) return;
    const end = at(event);
    if (!drawn) {
      if (Math.hypot(end.x - begin.x, end.y - begin.y) < 6) return;
      drawn = document.createElementNS("http://www.w3.org/2000/svg", "rect");
      drawn.setAttribute("class", "box chosen");
      drawn.setAttribute("vector-effect", "non-scaling-stroke");
      pick.append(drawn);
      pick.setPointerCapture(event.pointerId);
    }
    drawn.setAttribute("x", Math.min(begin.x, end.x));
    drawn.setAttribute("y", Math.min(begin.y, end.y));
    drawn.setAttribute("width", Math.abs(begin.x - end.x));
    drawn.setAttribute("height", Math.abs(begin.y - end.y));
  });
  pick.addEventListener("pointerup", (event) => {
    if (drawn) {
      const end = at(event);
      const box = [Math.min(begin.x, end.x), Math.min(begin.y, end.y), Math.max(begin.x, end.x), Math.max(begin.y, end.y)];
      location.assign(`/?picture=${encodeURIComponent(pick.dataset.picture)}&box=${box.map(Math.round).join(",")}`);
    }
    begin = drawn = null;
  });
}

// The moment in the film.
document.addEventListener("click", async (event) => {
  const link = event.target.closest("a[data-clip]");
  if (!link || event.ctrlKey || event.metaKey) return;
  event.preventDefault();
  const dialog = $("#film"), video = $("video", dialog), line = $("#film-said");
  line.textContent = "cutting the moment out of the film …";
  video.onloadeddata = () => { line.textContent = ""; };
  video.onerror = async () => {
    try { await ask(link.getAttribute("href")); line.textContent = "this browser cannot play it"; }
    catch (error) { line.textContent = error.message; }
  };
  video.src = link.getAttribute("href");
  dialog.showModal();
  video.play().catch(() => {});
});
$("#film")?.addEventListener("close", () => { const video = $("#film video"); video.onerror = null; video.removeAttribute("src"); video.load(); });

// The review.
const review = $("#review");
if (review) {
  let busy = false;
  const show = (found) => {
    const pair = found.pairs[0];
    $("#nothing").hidden = Boolean(pair);
    review.hidden = !pair;
    $("#left").textContent = found.left.toLocaleString("en");
    $("#answers").textContent = found.answers;
    if (!pair) return;
    $("#question").textContent = pair.question;
    $("#chance").textContent = pair.probability.toFixed(2);
    for (const figure of $$("figure[data-side]", review)) {
      const end = pair[figure.dataset.side], when = end.wall || end.span;
      figure.dataset.ref = end.ref;
      const image = $("img", figure);
      image.src = end.picture;
      image.alt = `${figure.dataset.side === "a" ? "left" : "right"}: ${end.camera}, ${when}`;
      $("figcaption", figure).replaceChildren(`${end.camera} · #${end.name}`, document.createElement("br"), when);
    }
  };
  const answer = async (what) => {
    if (busy || review.hidden) return;
    busy = true;
    const [a, b] = ["a", "b"].map((side) => $(`figure[data-side=${side}]`, review).dataset.ref);
    try {
      const told = await ask("/api/review", { a, b, answer: what });
      say(told.did);
      if (told.summary) { $("#summary").textContent = told.summary.text; $("#summary").hidden = false; }
      show(await ask("/api/review"));
    } catch (error) { say(error.message, true); }
    busy = false;
  };
  for (const button of $$("button[data-answer]")) button.addEventListener("click", () => answer(button.dataset.answer));
  document.addEventListener("keydown", (event) => {
    if (writing(event.target) || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const what = { s: "same", d: "different", u: "unsure" }[event.key.toLowerCase()];
    if (what) { event.preventDefault(); answer(what); }
  });
}

// A training that is going on.
const training = $("#training[data-events]");
if (training) {
  const events = new EventSource(training.dataset.events);
  events.onmessage = (event) => {
    const status = JSON.parse(event.data);
    const told = {
      status: status.status, people: status.people ?? "–", left: status.finished ? "–" : status.left || "not known yet",
      rounds: status.of ? `${status.rounds} of ${status.of}` : status.rounds,
    };
    for (const [key, text] of Object.entries(told)) $(`[data-of=${key}]`, training).textContent = text;
    if (String(status.rounds) !== training.dataset.rounds) {
      const first = !$$("img.chart", training).length;
      training.dataset.rounds = status.rounds;
      $$("img.chart", training).forEach((image, i) => { image.src = `/chart/training/${i}?n=${status.rounds}`; });
      if (first) location.reload();
    }
    if (status.status !== "training") { events.close(); location.reload(); }
  };
}
