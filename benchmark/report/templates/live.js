// Videos exist only near the window: posters stand for the others, so that a long page stays small.

const MOST = 16; // videos at a time; a card with more of them stands alone
const data = JSON.parse(document.getElementById("data").textContent);
const parsed = new Promise((resolve) => {
  if (document.readyState === "loading") document.addEventListener("DOMContentLoaded", resolve, { once: true });
  else resolve();
});
const held = new Set(); // players whose videos exist

class LivePlayer extends Player {
  // Where videos go and what they show: [{ box, place, row }], of an item and a row of the data.
  constructor(card, slots) { super(card); this.slots = slots; }

  load() {
    if (!this.videos.length) {
      makeRoom(this);
      held.add(this);
      this.videos = this.slots.map((slot) => this.mount(slot));
    }
    return super.load();
  }

  mount({ box, place, row }) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true, preload: "metadata", ariaLabel: data.rows[row].label });
    video.shows = { place, row };
    box.append(video);
    return video;
  }

  async fill(video) {
    const { place, row } = video.shows, file = data.items[place].videos[row];
    if (file) { video.src = file.split("/").map(encodeURIComponent).join("/"); return; }
    const name = `v${place}-${row}`;
    if (!document.getElementById(name)) await parsed;
    if (!video.isConnected) return; // released in the meantime
    const bytes = Uint8Array.from(atob(document.getElementById(name).textContent), (c) => c.charCodeAt(0));
    video.src = URL.createObjectURL(new Blob([bytes], { type: "video/mp4" }));
  }

  // Gives the videos' memory back; the posters show again.
  release() {
    this.pause();
    held.delete(this);
    for (const video of this.videos) {
      if (video.src.startsWith("blob:")) URL.revokeObjectURL(video.src);
      video.removeAttribute("src");
      video.load();
      video.remove();
    }
    this.videos = [];
    this.ready = null;
  }

  distance() {
    const middle = innerHeight / 2, box = this.card.getBoundingClientRect();
    return Math.max(box.top - middle, middle - box.bottom, 0);
  }
}

const alive = () => [...held].reduce((sum, player) => sum + player.videos.length, 0);

// Releases the farthest cards until the videos of `player` fit in; the dialog's two stay.
function makeRoom(player) {
  const others = [...held].filter((other) => other !== player && !(other instanceof Pair));
  others.sort((a, b) => b.distance() - a.distance());
  while (others.length && alive() + player.slots.length > MOST) others.shift().release();
}

const cards = [...document.querySelectorAll(".card")];
const players = new Map(cards.map((card) => {
  const slots = [...card.querySelectorAll(".videos figure")].map((figure) =>
    ({ box: figure.querySelector(".frame-box"), place: Number(card.dataset.place), row: Number(figure.dataset.row) }));
  return [card, new LivePlayer(card, slots)];
}));
const near = new Set();

// The cards nearest to the middle of the window get their videos, as many as fit; all others give theirs back.
function share() {
  const wanted = [...near].filter((player) => !player.card.hidden).map((player) => [player.distance(), player]);
  wanted.sort((a, b) => a[0] - b[0]);
  let room = MOST - [...held].reduce((sum, player) => sum + (player instanceof Pair ? player.slots.length : 0), 0);
  const kept = new Set();
  for (const [, player] of wanted) {
    room -= player.slots.length;
    if (room < 0 && kept.size) break;
    kept.add(player);
  }
  for (const player of [...held]) if (!kept.has(player) && !(player instanceof Pair)) player.release();
  for (const player of kept) player.load();
}

// Only where a reader rests, points at or plays something: what is scrolled past loads nothing. A browser gives
// memory back after a while: resting on 200 cards takes it 0.4 GB, and 0.5 with a rest of 400 ms.
const REST = 1200; // milliseconds
let sharing = 0;
function shareSoon() { clearTimeout(sharing); sharing = setTimeout(share, REST); }
const nearby = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) near[isIntersecting ? "add" : "delete"](players.get(target));
  shareSoon();
});
// Posters come earlier and go later than videos; decoded pictures of a whole page would take as much memory.
const around = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    for (const poster of target.querySelectorAll("img")) {
      if (isIntersecting) poster.src = poster.dataset.src; else poster.removeAttribute("src");
    }
  }
}, { rootMargin: "1600px" });
for (const card of cards) {
  nearby.observe(card);
  around.observe(card);
  card.addEventListener("focusin", () => players.get(card).load());
  card.addEventListener("pointermove", (event) => { // not where the page moves under a pointer that rests
    if (event.movementX || event.movementY) players.get(card).load();
  });
}
addEventListener("scroll", shareSoon, { passive: true });
addEventListener("resize", shareSoon);
