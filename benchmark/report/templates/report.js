// The leaderboard: a click on a metric's name sorts the rows by it, a second one the other way round.
for (const button of document.querySelectorAll("table.ranked .rank")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table");
    const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    const value = (row) => { const text = row.cells[head.cellIndex].dataset.value; return text === "" ? null : Number(text); };
    table.tBodies[0].append(...ranked([...table.tBodies[0].rows], value, sign));
  });
}

// Sorted by a value, `sign` 1 for the lowest first; what has none comes last.
function ranked(list, value, sign) {
  const known = new Map(list.map((one) => [one, value(one)]));
  return [...list].sort((a, b) => {
    const [x, y] = [known.get(a), known.get(b)];
    if (x === null || y === null) return (x === null) - (y === null);
    return x === y ? 0 : (x < y ? -1 : 1) * sign;
  });
}

const pick = (id) => document.getElementById(id);
const FIELDS = ["q", "task", "category", "sort", "of", "order", "a", "b"];
const START = {}; // what the fields hold before anything is chosen

// A number of the data; null where it is missing.
function number(value) {
  return value === null || value === undefined ? null : Number(String(value).replace("inf", "Infinity"));
}

// A row's place in the data, by its name.
const rowOf = (name) => data.rows.findIndex((row) => row.name === name);

// What a card is sorted by: a row's score, or what A has more than B, or how far they are apart.
function score(card, sort, of) {
  const item = data.items[card.dataset.place];
  if (sort === "~judges") return number(item.spread);
  const metric = data.metrics.findIndex((one) => one.name === sort);
  const at = (name) => number(item.scores[rowOf(name)][metric]);
  if (of.startsWith("row:")) return at(of.slice(4));
  const [a, b] = [at(pick("a").value), at(pick("b").value)];
  if (a === null || b === null || Number.isNaN(a - b)) return null;
  return of === "|a-b|" ? Math.abs(a - b) : a - b;
}

// The words of a card that a search looks through, in small letters.
const texts = new Map();
function text(card) {
  if (!texts.has(card)) {
    const parts = [card.querySelector("h3"), ...card.querySelectorAll(".words p")].map((node) => node.textContent);
    texts.set(card, [card.dataset.id, ...parts].join("\n").toLowerCase());
  }
  return texts.get(card);
}

function arrange() {
  const [q, task, category, sort, of, order] = FIELDS.map((id) => pick(id).value);
  pick("order").disabled = !sort;
  pick("of").disabled = !sort || sort === "~judges";
  const words = q.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  for (const card of cards) {
    card.hidden = (task && card.dataset.task !== task) || (category && card.dataset.category !== category)
      || !words.every((word) => text(card).includes(word));
    if (card.hidden) players.get(card).pause();
    else count += 1;
  }
  pick("cards").append(...(sort ? ranked(cards, (card) => score(card, sort, of), Number(order)) : cards));
  pick("shown").textContent = `${count} of ${cards.length} items`;
  shareSoon();
}

// The address holds what was chosen, and the item that is looked at.
let focused = "";
function keep() {
  const chosen = new URLSearchParams();
  const card = pair.of;
  if (card || focused) chosen.set("item", card ? card.dataset.id : focused);
  for (const id of FIELDS) if (pick(id).value !== START[id]) chosen.set(id, pick(id).value);
  if (card) {
    const [a, b] = pair.slots.map((slot) => data.rows[slot.row].name);
    for (const [name, value] of Object.entries({ a, b, view: pick("view").value })) chosen.set(name, value);
  }
  const hash = chosen.toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
}

// Shows what the address says.
function restore() {
  const told = new URLSearchParams(location.hash.slice(1));
  for (const id of FIELDS) {
    const value = told.get(id) ?? START[id], field = pick(id);
    field.value = field.tagName !== "SELECT" || [...field.options].some((option) => option.value === value) ? value : START[id];
  }
  arrange();
  focused = told.get("item") ?? "";
  const card = cards.find((one) => one.dataset.id === focused);
  if (!card) { focused = ""; return; }
  card.hidden = false; // a link to an item shows it, whatever the filters say
  if (told.has("view") || (told.has("a") && told.has("b"))) {
    const view = ["wipe", "side", "one"].includes(told.get("view")) ? told.get("view") : "wipe";
    pair.show2(card, rowOf(told.get("a")), rowOf(told.get("b")), view);
    return;
  }
  card.focus({ preventScroll: true });
  // cards that were never shown have no height yet, so the place is found twice
  card.scrollIntoView();
  requestAnimationFrame(() => card.scrollIntoView());
}

// One line per item and row, as the table of a spreadsheet; missing scores are empty.
function csv() {
  const cell = (value) => { const told = String(value ?? ""); return /[",\r\n]/.test(told) ? `"${told.replaceAll('"', '""')}"` : told; };
  const lines = [["item", "task", "category", "row", ...data.metrics.map((metric) => metric.name)]];
  for (const item of data.items) {
    data.rows.forEach((row, n) => { if (row.scored) lines.push([item.id, item.task, item.category, row.name, ...item.scores[n]]); });
  }
  return lines.map((line) => line.map(cell).join(",") + "\r\n").join("");
}

if (cards.length) {
  const rows = data.rows.filter((row) => row.scored);
  pick("of").append(...rows.map((row) => new Option(row.table, `row:${row.name}`)));
  if (rows.length > 1) pick("of").append(new Option("A less B", "a-b"), new Option("distance of A and B", "|a-b|"));
  pick("of").value = `row:${data.first}`;
  for (const id of ["a", "b"]) pick(id).append(...data.rows.map((row) => new Option(row.label, row.name)));
  const own = rows.filter((row) => !["source", "target"].includes(row.name)).map((row) => row.name);
  const others = data.rows.map((row) => row.name).filter((name) => name !== (own[0] ?? data.first));
  pick("a").value = own[0] ?? data.first;
  pick("b").value = own[1] ?? others[0] ?? pick("a").value;
  for (const id of FIELDS) START[id] = pick(id).value;

  for (const id of FIELDS) pick(id).addEventListener(id === "q" ? "input" : "change", () => { arrange(); keep(); });
  document.querySelector("form.controls").addEventListener("submit", (event) => event.preventDefault());
  pick("pixels").addEventListener("change", (event) => document.body.classList.toggle("pixels", event.target.checked));
  pick("csv").addEventListener("click", () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = `${data.suite}-scores.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  pick("cards").addEventListener("click", (event) => {
    const card = event.target.closest(".card"), figure = event.target.closest("figure");
    if (event.target.closest(".link")) {
      event.preventDefault();
      focused = card.dataset.id;
      keep();
    } else if (event.target.closest(".compare")) {
      pair.show2(card, rowOf(pick("a").value), rowOf(pick("b").value), "wipe");
    } else if (event.target.closest(".frame-box")) {
      const row = Number(figure.dataset.row), a = rowOf(pick("a").value);
      pair.show2(card, row, row === a ? rowOf(pick("b").value) : a, "one");
    }
  });
  addEventListener("hashchange", restore);
  restore();
}
