"use strict";
// Labels one sample after the other. The server says which; nothing here outlives a reload but the name.

const pick = (id) => document.getElementById(id);
let shown = null; // the sample on the page
let card = null;
let chosen = new Set(); // reasons that are collected
let busy = false; // an answer is under way
let reasons = [];

const name = () => pick("name").value.trim();
const post = (path, said = {}) => ask(path, { method: "POST", body: JSON.stringify({ by: name(), ...said }),
  headers: { "content-type": "application/json" } });

function buttonOf(text, number, act, className) {
  const button = make("button", { type: "button", className }, make("kbd", { textContent: number }), ` ${text}`);
  button.addEventListener("click", (event) => act(event.shiftKey || pick("several").checked));
  return button;
}

function drawButtons() {
  const buttons = [buttonOf("keep", 1, () => send(true), "keep")];
  reasons.forEach((reason, at) => buttons.push(buttonOf(reason, at + 2, (more) => drop(reason, more), "reason")));
  pick("buttons").replaceChildren(...buttons);
}

function mark() {
  [...pick("buttons").querySelectorAll(".reason")].forEach((button, at) =>
    button.setAttribute("aria-pressed", String(chosen.has(reasons[at]))));
  pick("drop").disabled = chosen.size === 0;
}

function drop(reason, more) {
  if (!more && chosen.size === 0) { send(false, [reason]); return; }
  if (chosen.has(reason)) chosen.delete(reason); else chosen.add(reason);
  mark();
}

// Shows what the server answers, or what it refuses.
async function act(path, said) {
  if (busy) return;
  busy = true;
  try {
    draw(await post(path, said));
    pick("fault").textContent = "";
  } catch (error) {
    pick("fault").textContent = error.message;
  } finally {
    busy = false;
  }
}

function send(keep, why = []) {
  if (shown) act("label", { key: shown.key, keep, reasons: why });
}

function draw(answer) {
  shown = answer.sample;
  chosen = new Set();
  mark();
  pick("progress").textContent = `${answer.mine} by you, ${answer.done} of ${answer.total} done`;
  pick("answers").hidden = false;
  pick("buttons").hidden = !shown;
  if (!shown) {
    showCards(pick("cards"), [make("p", { textContent: "Nothing is left for you to label. Thank you!" })]);
    return;
  }
  const masked = card?.classList.contains("masked");
  card = cardOf(shown);
  showCards(pick("cards"), [card]);
  if (masked) card.querySelector(".mask-toggle")?.click(); // an element outside of the page fires no event
  card.focus({ preventScroll: true });
  card.player?.play();
}

pick("who").addEventListener("submit", (event) => {
  event.preventDefault();
  localStorage.setItem("name", name());
  pick("name").blur();
  act("next");
});
pick("drop").addEventListener("click", () => send(false, [...chosen]));
pick("undo").addEventListener("click", () => act("undo"));

document.addEventListener("keydown", (event) => {
  if (event.target.matches("#name, select") || event.ctrlKey || event.metaKey || event.altKey) return;
  const digit = /^(?:Digit|Numpad)([1-9])$/.exec(event.code);
  if (digit && shown) {
    const number = Number(digit[1]);
    if (number === 1) send(true);
    else if (reasons[number - 2]) drop(reasons[number - 2], event.shiftKey || pick("several").checked);
  } else if (event.key === "Enter" && chosen.size && shown) send(false, [...chosen]);
  else if (event.key === "u" && name()) act("undo");
  else if (event.key === "m") card?.querySelector(".mask-toggle")?.click();
  else if (event.key === " " && !event.defaultPrevented && event.target === document.body) card?.player?.toggle();
  else return;
  event.preventDefault();
});

ask("reasons").then((found) => {
  reasons = found;
  drawButtons();
  pick("name").value = localStorage.getItem("name") ?? "";
  if (name()) act("next");
  else pick("name").focus();
});
