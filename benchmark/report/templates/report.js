const cards = [...document.querySelectorAll(".card")];
const players = new Map(cards.map((card) => [card, new Player(card)]));
const nearby = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    if (entry.isIntersecting) players.get(entry.target).load();
    else players.get(entry.target).pause();
  }
}, { rootMargin: "400px" });
cards.forEach((card) => nearby.observe(card));

// The leaderboard: a click on a metric's name sorts the rows by it, a second one the other way round.
for (const button of document.querySelectorAll("table.ranked .rank")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table");
    const sign = head.getAttribute("aria-sort") === "descending" ? 1 : -1;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign < 0 ? "descending" : "ascending");
    const value = (row) => { const text = row.cells[head.cellIndex].dataset.value; return text === "" ? null : Number(text); };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return x === y ? 0 : (x < y ? -1 : 1) * sign;
    });
    table.tBodies[0].append(...rows);
  });
}

const pick = (id) => document.getElementById(id);
function score(card, name) {
  const value = JSON.parse(card.dataset.sort)[name];
  if (value === null) return null;
  return value === "inf" ? Infinity : Number(value);
}
function arrange() {
  const [task, category, sort, order] = ["task", "category", "sort", "order"].map((id) => pick(id).value);
  pick("order").disabled = !sort;
  let count = 0;
  for (const card of cards) {
    card.hidden = (task && card.dataset.task !== task) || (category && card.dataset.category !== category);
    if (card.hidden) players.get(card).pause();
    else count += 1;
  }
  const sorted = [...cards];
  if (sort) sorted.sort((a, b) => {
    const [x, y] = [score(a, sort), score(b, sort)];
    if (x === null || y === null) return (x === null) - (y === null);
    return x === y ? 0 : (x < y ? -1 : 1) * Number(order);
  });
  pick("cards").append(...sorted);
  pick("shown").textContent = `${count} of ${cards.length} items`;
}
if (cards.length) {
  ["task", "category", "sort", "order"].forEach((id) => pick(id).addEventListener("change", arrange));
  pick("pixels").addEventListener("change", (event) => document.body.classList.toggle("pixels", event.target.checked));
  arrange();
}
