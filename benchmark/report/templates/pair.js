// Two results of an item, over each other with a wipe or side by side, or one alone and large.

class Pair extends LivePlayer {
  constructor(dialog) {
    super(dialog.querySelector(".two"), []);
    this.dialog = dialog;
    this.stage = dialog.querySelector(".stage");
    this.boxes = [...this.stage.querySelectorAll(".frame-box")];
    this.cut = dialog.querySelector("#cut");
    this.of = null; // the card whose item is shown
    dialog.addEventListener("close", () => this.left());
    this.on("#close", "click", () => dialog.close());
    for (const id of ["#pair-a", "#pair-b"]) this.on(id, "change", () => this.show2(this.of, this.row("#pair-a"), this.row("#pair-b")));
    this.on("#view", "change", (event) => { this.stage.dataset.view = event.target.value; keep(); });
    this.on("#cut", "input", () => this.wipe());
    this.on("#previous", "click", () => this.turn(-1));
    this.on("#following", "click", () => this.turn(1));
    this.on("#full", "click", () => {
      if (document.fullscreenElement) document.exitFullscreen();
      else dialog.querySelector(".body").requestFullscreen().catch(() => {});
    });
    // The wipe follows the pointer; elsewhere a click plays.
    const drag = (event) => {
      if (this.stage.dataset.view !== "wipe" || (event.type === "pointermove" && !event.buttons)) return;
      const box = this.stage.getBoundingClientRect();
      this.cut.value = Math.round(100 * (event.clientX - box.left) / box.width);
      this.wipe();
    };
    this.stage.addEventListener("pointerdown", drag);
    this.stage.addEventListener("pointermove", drag);
    this.stage.addEventListener("click", () => { if (this.stage.dataset.view !== "wipe") this.toggle(); });
  }

  on(selector, event, act) { this.dialog.querySelector(selector).addEventListener(event, act); }
  row(selector) { return Number(this.dialog.querySelector(selector).value); }
  wipe() { this.stage.style.setProperty("--cut", `${this.cut.value}%`); }

  // Opens, or goes on to, an item's rows `a` and `b` (places in the data's rows); rows without a video give way.
  show2(card, a, b, view) {
    const item = data.items[card.dataset.place], there = Object.keys(item.videos).map(Number);
    if (!there.includes(a)) a = there.find((row) => row !== b) ?? there[0];
    if (!there.includes(b)) b = there.find((row) => row !== a) ?? a;
    const same = card === this.of;
    this.release();
    this.of = card;
    this.fps = Number(card.dataset.fps);
    this.frames = Number(card.dataset.frames);
    this.slots = [a, b].map((row, side) => ({ box: this.boxes[side], place: Number(card.dataset.place), row }));
    this.dialog.querySelector(".scrub").max = this.frames - 1;
    this.dialog.querySelector("#pair-text").textContent = card.querySelector("h3").textContent;
    this.stage.style.setProperty("--ratio", card.dataset.ratio);
    ["#pair-a", "#pair-b"].forEach((id, side) => {
      this.dialog.querySelector(id).replaceChildren(...there.map((row) => new Option(data.rows[row].label, row)));
      this.dialog.querySelector(id).value = [a, b][side];
      this.stage.querySelectorAll("figcaption")[side].textContent = `${"AB"[side]}: ${data.rows[[a, b][side]].label}`;
    });
    this.dialog.querySelector("#view").value = this.stage.dataset.view = view ?? this.stage.dataset.view ?? "wipe";
    this.wipe();
    this.table(item, a, b);
    this.words(card, a, b);
    for (const [other, player] of players) if (other !== card || player.playing) player.pause();
    if (!this.dialog.open) this.dialog.showModal();
    this.card.focus();
    this.seek(same ? this.frame : 0);
    keep();
  }

  table(item, a, b) {
    const cell = (kind, text) => Object.assign(document.createElement(kind), { textContent: text });
    const line = (kind, name, texts) => {
      const row = document.createElement("tr");
      row.append(cell("th", name), ...texts.map((text) => Object.assign(cell(kind, text), { className: "num" })));
      return row;
    };
    const values = (row) => data.metrics.map((metric, n) => item.scores[row][n] === null ? null : Number(String(item.scores[row][n]).replace("inf", "Infinity")));
    const told = (value, n) => value === null || Number.isNaN(value) ? "-" : value.toFixed(data.metrics[n].decimals).replace("Infinity", "∞");
    const [x, y] = [values(a), values(b)];
    const lines = [line("th", "", data.metrics.map((metric) => metric.label)), line("td", `A: ${data.rows[a].label}`, x.map(told)),
      line("td", `B: ${data.rows[b].label}`, y.map(told)), line("td", "A less B", x.map((value, n) => told(value === null || y[n] === null ? null : value - y[n], n)))];
    this.dialog.querySelector("#pair-scores").replaceChildren(...lines);
  }

  words(card, a, b) {
    const said = [...card.querySelectorAll(".words p")].filter((p) => [a, b].some((row) => p.dataset.row === data.rows[row].table));
    this.dialog.querySelector("#pair-words").replaceChildren(...said.map((p) => p.cloneNode(true)));
  }

  turn(by) {
    const shown = [...document.querySelectorAll(".card:not([hidden])")];
    const next = shown[(shown.indexOf(this.of) + by + shown.length) % shown.length];
    this.show2(next, this.row("#pair-a"), this.row("#pair-b"));
  }

  left() {
    const card = this.of;
    this.release();
    this.of = null;
    keep();
    card.scrollIntoView({ block: "nearest" });
    card.focus({ preventScroll: true });
    shareSoon();
  }
}

const pair = cards.length ? new Pair(document.getElementById("pair")) : null;
