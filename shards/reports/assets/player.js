"use strict";
// One clock per card: the videos follow it, it waits for the slowest of them. Clips are short and loop.

class Player {
  constructor(card) {
    this.card = card;
    this.videos = [...card.querySelectorAll("video")];
    this.fps = Number(card.dataset.fps);
    this.frames = Number(card.dataset.frames);
    this.rate = 1;
    this.frame = 0;
    this.playing = false;
    this.ready = null;
    const on = (selector, event, act) => card.querySelector(selector).addEventListener(event, act);
    on(".play", "click", () => this.toggle());
    on(".back", "click", () => this.step(-1));
    on(".next", "click", () => this.step(1));
    on(".scrub", "input", (event) => { this.pause(); this.seek(Number(event.target.value)); });
    on(".rate", "change", (event) => { this.rate = Number(event.target.value); });
    card.addEventListener("keydown", (event) => this.key(event));
  }

  // Gives the videos their data, once; resolves when all can show a frame.
  load() {
    if (!this.ready) {
      const ready = Promise.all(this.videos.map((video) => new Promise((resolve) => {
        video.addEventListener("loadeddata", resolve, { once: true });
        video.addEventListener("error", resolve, { once: true });
        this.fill(video);
      }))).then(() => { if (this.ready === ready && !this.playing && this.frame) this.seek(this.frame); });
      this.ready = ready;
    }
    return this.ready;
  }

  fill(video) { video.src = video.dataset.src; }

  // The middle of a frame's time, so that rounding cannot show its neighbour.
  time(frame) { return (frame + 0.5) / this.fps; }

  show(frame) {
    this.frame = Math.min(this.frames - 1, Math.max(0, frame));
    this.card.querySelector(".scrub").value = this.frame;
    this.card.querySelector(".frame").textContent = `${this.frame + 1} / ${this.frames}`;
  }

  seek(frame) {
    this.show(frame);
    this.load();
    for (const video of this.videos) if (video.readyState) video.currentTime = this.time(this.frame);
  }

  step(by) { this.pause(); this.seek((this.frame + by + this.frames) % this.frames); }

  toggle() { if (this.playing) this.pause(); else this.play(); }

  async play() {
    this.playing = true;
    this.label();
    await this.load();
    if (!this.playing) return;
    if (this.frame >= this.frames - 1) this.seek(0);
    this.clock = this.time(this.frame);
    this.last = performance.now();
    requestAnimationFrame(() => this.tick());
  }

  pause() {
    if (!this.playing) return;
    this.playing = false;
    this.label();
    for (const video of this.videos) video.pause();
    this.seek(this.frame); // all on the same frame
  }

  label() {
    const button = this.card.querySelector(".play");
    button.textContent = this.playing ? "❚❚" : "▶";
    button.setAttribute("aria-label", this.playing ? "Pause" : "Play");
  }

  tick() {
    if (!this.playing) return;
    const now = performance.now();
    const waiting = this.videos.some((video) => video.seeking || video.readyState < 2);
    if (!waiting) this.clock += Math.min(0.25, (now - this.last) / 1000) * this.rate;
    this.last = now;
    if (this.clock >= this.frames / this.fps) {
      this.end();
    } else if (waiting) {
      for (const video of this.videos) if (!video.seeking) video.pause();
    } else {
      for (const video of this.videos) this.follow(video);
    }
    this.show(Math.floor(this.clock * this.fps));
    requestAnimationFrame(() => this.tick());
  }

  // What comes after the last frame: the first one.
  end() {
    this.clock = this.time(0);
    for (const video of this.videos) video.currentTime = this.clock;
  }

  // Small drift is caught up by speed, more than a frame by a seek.
  follow(video) {
    const drift = (video.currentTime - this.clock) * this.fps; // in frames
    if (Math.abs(drift) > 1 && !video.ended) video.currentTime = this.clock;
    const speed = this.rate * (1 - Math.max(-0.3, Math.min(0.3, drift / 2)));
    if (Math.abs(video.playbackRate - speed) > 0.02) video.playbackRate = Math.max(0.1, speed);
    if (video.paused && !video.ended) video.play().catch(() => this.pause());
  }

  key(event) {
    if (event.target !== this.card && !event.target.classList.contains("play")) return;
    const act = { " ": () => this.toggle(), ArrowLeft: () => this.step(-1), ArrowRight: () => this.step(1),
      Home: () => { this.pause(); this.seek(0); }, End: () => { this.pause(); this.seek(this.frames - 1); } }[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  }
}
