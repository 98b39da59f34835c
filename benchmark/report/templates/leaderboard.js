// A click on a metric sorts the rows by it, best first; a second one the other way round.
for (const button of document.querySelectorAll(".board thead button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), table = head.closest("table");
    const before = head.getAttribute("aria-sort");
    const best = head.dataset.down ? "ascending" : "descending";
    const order = before === best ? (best === "ascending" ? "descending" : "ascending") : best;
    for (const other of table.querySelectorAll("th[aria-sort]")) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", order);
    const value = (row) => { const text = row.cells[head.cellIndex].dataset.value; return text ? Number(text) : null; };
    const rows = [...table.tBodies[0].rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === null || y === null) return (x === null) - (y === null);
      return order === "ascending" ? x - y : y - x;
    });
    table.tBodies[0].append(...rows);
  });
}
