"use strict";
// The card of a sample: what is given beside what is to be made, on one clock (player.js), the mask over them.

// An element with properties and children; texts stay texts.
function make(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in node && name !== "width" && name !== "height" && name !== "list") node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// A video or picture; a video gets its data when its card's player loads.
function visualOf(one) {
  const size = { width: one.width, height: one.height, ariaLabel: one.name };
  const node = one.kind === "image" ? make("img", { ...size, alt: one.name, src: one.url, loading: "lazy" })
    : make("video", { ...size, muted: true, playsInline: true, preload: "auto" });
  if (one.kind !== "image") node.dataset.src = one.url;
  node.style.aspectRatio = `${one.width} / ${one.height}`;
  return node;
}

function figureOf(element) {
  const caption = make("figcaption", { textContent: `${element.name}, ${element.target ? "to be made" : "given"}` });
  return make("figure", {}, make("div", { className: "frame-box" }, visualOf(element)), caption);
}

// Lays masks over the videos of a card that have as many frames; they are loaded when they are first asked for.
function addMasks(card, masks, moving) {
  const boxes = [...card.querySelectorAll(".frame-box")].filter((box) => box.querySelector("video"));
  boxes.forEach((box, place) => masks.filter((mask) => mask.frames === moving[place].frames).forEach((mask) => {
    const over = visualOf(mask);
    over.className = "over";
    over.addEventListener("loadeddata", () => { if (!card.player.playing) card.player.seek(card.player.frame); }, { once: true });
    over.src = over.dataset.src;
    box.append(over);
    card.player.videos.push(over);
  }));
}

// The card; `extra` are nodes at its end. Its `player` is null where there is nothing to play.
function cardOf(sample, ...extra) {
  const shown = sample.elements.filter((one) => one.kind !== "mask");
  const masks = sample.elements.filter((one) => one.kind === "mask");
  const moving = shown.filter((one) => one.kind === "video");
  const card = make("article", { className: "card", tabIndex: 0, ariaLabel: sample.key },
    make("h3", { textContent: sample.text }),
    make("p", { className: "quiet", textContent: factsOf(sample) }),
    make("div", { className: "videos" }, ...shown.map((one) => figureOf(one))));
  card.dataset.key = sample.key;
  card.player = null;
  if (moving.length) {
    const clock = moving.find((one) => one.target) ?? moving[0];
    card.dataset.fps = clock.fps;
    card.dataset.frames = Math.max(...moving.map((one) => one.frames));
    card.append(barOf(card, masks.length ? () => addMasks(card, masks, moving) : null));
  }
  card.append(...extra);
  if (moving.length) {
    card.player = new Player(card);
    card.player.show(0);
  }
  return card;
}

function factsOf(sample) {
  const sizes = [...new Set(sample.elements.map((one) => `${one.kind === "image" ? "" : `${one.frames} frames of `}${one.width}×${one.height}`
    + (one.fps ? ` at ${Number(one.fps.toFixed(3))} fps` : "")))];
  return [sample.key, sample.task, sample.split, ...sizes].join(" · ");
}

// The buttons of a player; `addOver` lays the masks over the videos, null where there are none.
function barOf(card, addOver) {
  const button = (name, text, label) => make("button", { type: "button", className: name, textContent: text, ariaLabel: label, title: label });
  const rate = make("select", { className: "rate", ariaLabel: "Speed" });
  for (const [value, text] of [["0.25", "¼×"], ["0.5", "½×"], ["1", "1×"], ["2", "2×"]]) rate.append(make("option", { value, textContent: text }));
  rate.value = "1";
  const bar = make("div", { className: "bar" },
    button("back", "‹", "Previous frame"), button("play", "▶", "Play"), button("next", "›", "Next frame"),
    make("input", { type: "range", className: "scrub", min: 0, max: card.dataset.frames - 1, step: 1, value: 0, ariaLabel: "Frame" }),
    make("output", { className: "frame" }), make("label", { className: "speed" }, rate));
  if (addOver) {
    const box = make("input", { type: "checkbox", className: "mask-toggle" });
    box.addEventListener("change", () => {
      card.classList.toggle("masked", box.checked);
      if (!card.querySelector(".over")) addOver();
    });
    bar.append(make("label", { className: "speed" }, box, " mask"));
  }
  return bar;
}

// Loads cards that come into view, and stops those that leave it.
const inView = new IntersectionObserver((entries) => {
  for (const { target, isIntersecting } of entries) {
    if (isIntersecting) target.player?.load();
    else target.player?.pause();
  }
}, { rootMargin: "200px" });

function showCards(into, cards) {
  for (const old of into.children) { inView.unobserve(old); old.player?.pause(); }
  into.replaceChildren(...cards);
  for (const card of cards) inView.observe(card);
}

// JSON of a path of this site; an error with the site's own words where it refuses.
async function ask(path, options = {}) {
  const answer = await fetch(path, options);
  const said = await answer.json();
  if (!answer.ok) throw new Error(said.detail ?? `${answer.status}`);
  return said;
}
