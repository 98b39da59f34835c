"use strict";
// The search of the browser: its state is in the address, so that a link shows the same samples.

const pick = (id) => document.getElementById(id);
const FIELDS = ["task", "split", "text", "sort", "order"];
let scores = [];
let asked = 0;

function addRange(name = scores[0], least = "", largest = "") {
  const choice = make("select", { className: "score-name", ariaLabel: "Score" });
  for (const score of scores) choice.append(make("option", { value: score, textContent: score }));
  choice.value = name;
  const limit = (value, label) => make("input", { type: "number", step: "any", value, placeholder: label, ariaLabel: label });
  const row = make("span", { className: "range" }, choice, limit(least, "min"), limit(largest, "max"));
  const remove = make("button", { type: "button", textContent: "×", title: "Remove this range", ariaLabel: "Remove this range" });
  remove.addEventListener("click", () => { row.remove(); search(1); });
  row.append(remove);
  pick("ranges").append(row);
}

function state(page) {
  const query = new URLSearchParams();
  for (const id of FIELDS) if (pick(id).value && !(id === "order" && !pick("sort").value)) query.set(id, pick(id).value);
  for (const row of document.querySelectorAll(".range")) {
    const [least, largest] = [...row.querySelectorAll("input")].map((input) => input.value);
    if (least || largest) query.append("score", `${row.querySelector("select").value}:${least}:${largest}`);
  }
  if (page > 1) query.set("page", page);
  return query;
}

async function search(page) {
  const query = state(page), mine = ++asked;
  pick("order").disabled = !pick("sort").value;
  pick("page").value = page; // now and not with the answer: a second click meanwhile asks for the page after it
  try {
    const found = await ask(`api/find?${query}`);
    if (mine !== asked) return; // a later one was asked meanwhile
    history.replaceState(null, "", query.size ? `#${query}` : "#");
    pick("found").className = "";
    pick("found").textContent = `${found.total.toLocaleString("en")} samples`;
    pick("page").value = found.page;
    pick("page").max = found.pages;
    pick("pages").textContent = `of ${found.pages.toLocaleString("en")}`;
    pick("previous").disabled = found.page <= 1;
    pick("following").disabled = found.page >= found.pages;
    showCards(pick("cards"), found.samples.map((sample) => cardOf(sample, scoresOf(sample))));
  } catch (error) {
    if (mine !== asked) return;
    pick("found").className = "bad";
    pick("found").textContent = error.message;
  }
}

function scoresOf(sample) {
  const told = Object.entries(sample.scores).sort().map(([name, value]) =>
    `${name} ${value === null ? "null" : Number(value.toPrecision(4))}`);
  return make("p", { className: "quiet", textContent: [...told, `clip ${sample.clip}, ${sample.license}`].join(" · ") });
}

async function start() {
  const about = await ask("api/about");
  scores = about.scores;
  const fill = (id, counts) => Object.entries(counts).sort().forEach(([name, count]) =>
    pick(id).append(make("option", { value: name, textContent: `${name} (${count.toLocaleString("en")})` })));
  fill("task", about.tasks);
  fill("split", about.splits);
  for (const name of scores) pick("sort").append(make("option", { value: name, textContent: name }));
  pick("add").disabled = !scores.length;
  const given = new URLSearchParams(location.hash.slice(1));
  for (const id of FIELDS) if (given.has(id)) pick(id).value = given.get(id);
  for (const text of given.getAll("score")) {
    const [largest, least, ...name] = text.split(":").reverse();
    addRange(name.reverse().join(":"), least, largest);
  }
  search(Number(given.get("page") ?? 1));
}

let waiting = 0;
pick("search").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => search(1), 250); });
pick("search").addEventListener("submit", (event) => { event.preventDefault(); search(1); });
pick("add").addEventListener("click", () => addRange());
pick("previous").addEventListener("click", () => search(Number(pick("page").value) - 1));
pick("following").addEventListener("click", () => search(Number(pick("page").value) + 1));
pick("page").addEventListener("change", () => search(Number(pick("page").value)));
start();
