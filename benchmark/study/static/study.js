"use strict";
// A comparison: three videos on one clock (player.js), questions that unlock once the results were seen, and
// answers that are kept until the server has them.

const pair = document.getElementById("pair");
const texts = JSON.parse(pair.dataset.texts);
const form = document.getElementById("questions");
const answers = document.getElementById("answers");
const questions = [...form.querySelectorAll(".question")];
const send = document.getElementById("send");
const say = (text) => { document.getElementById("status").textContent = text; };

// What survives a reload: the answers, the time spent, whether both were seen, whether a vote is on its way.
const KEY = `study ${pair.dataset.trial}`;
const state = { answers: {}, seconds: 0, seen: false, sending: false };
try {
  Object.assign(state, JSON.parse(sessionStorage.getItem(KEY)));
} catch { /* a browser that keeps nothing, or what is kept is no JSON: begin anew */ }

// Time for which the page could be seen, in seconds.
let visibleSince = document.hidden ? null : performance.now();
function seconds() {
  if (visibleSince !== null) {
    state.seconds += (performance.now() - visibleSince) / 1000;
    visibleSince = performance.now();
  }
  return state.seconds;
}
function keep() {
  seconds();
  try { sessionStorage.setItem(KEY, JSON.stringify(state)); } catch { /* as above: this page still has them */ }
}
document.addEventListener("visibilitychange", () => {
  seconds();
  visibleSince = document.hidden ? null : performance.now();
  if (document.hidden) player.pause();
  keep();
});
addEventListener("pagehide", () => { if (!state.saved) keep(); });

class PairPlayer extends Player {
  constructor(card) {
    super(card);
    this.watched = new Set(); // frames that were played, not merely jumped to
    this.again = card.querySelector(".again");
    this.loop = card.querySelector(".loop");
    this.again.addEventListener("click", () => { this.pause(); this.seek(0); this.play(); });
    for (const video of this.videos) {
      const fault = video.parentElement.querySelector(".fault");
      video.muted = true;
      video.addEventListener("click", () => this.toggle());
      video.addEventListener("error", () => { fault.hidden = false; this.pause(); });
      fault.querySelector("button").addEventListener("click", () => {
        fault.hidden = true;
        this.fill(video);
        video.addEventListener("loadeddata", () => this.seek(this.frame), { once: true });
        card.querySelector(".play").focus();
      });
    }
    this.label();
    this.load();
  }

  fill(video) { super.fill(video); video.load(); }

  play() {
    // some phones load a video only when it is played, and let it be played only from a touch
    for (const video of this.videos) if (video.readyState < 2 && !video.error) video.play().catch(() => {});
    this.wait(this.videos.some((video) => video.readyState < 2));
    return super.play();
  }

  pause() { this.wait(false); super.pause(); }

  tick() {
    super.tick();
    this.wait(this.playing && this.videos.some((video) => video.readyState < 2));
  }

  // Says that videos are loading when that takes longer than a jump.
  wait(loading) {
    const now = performance.now();
    this.waits = loading ? this.waits ?? now : null;
    const text = loading && now - this.waits > 500 ? texts.loading : "";
    const line = this.card.querySelector(".wait");
    if (line.textContent !== text) line.textContent = text;
    clearTimeout(this.later);
    if (loading) this.later = setTimeout(() => this.wait(this.waits !== null), 600);
  }

  show(frame) {
    const before = this.frame;
    super.show(frame);
    if (!this.playing || !this.watched) return;
    // frames between two pictures of a slow device were played too
    const from = this.frame > before && this.frame - before <= this.fps / 2 ? before : this.frame;
    for (let i = from; i <= this.frame; i++) this.watched.add(i);
    if (this.watched.size >= this.frames) unlock();
  }

  end() {
    this.show(this.frames - 1);
    if (this.loop.checked) super.end();
    else this.pause();
  }

  label() {
    const button = this.card.querySelector(".play");
    button.textContent = this.playing ? texts.pause : texts.play;
  }

  key() {} // the page has keys of its own
}

function unlock() {
  if (!answers.disabled || state.sending || ended) return;
  answers.disabled = false;
  const lock = document.getElementById("lock");
  if (lock.textContent !== texts.unlocked) lock.textContent = texts.unlocked;
  state.seen = true;
  keep();
  progress();
}

// The question that keys answer: that with the focus, else the first without an answer.
function current() {
  const focused = document.activeElement.closest?.(".question");
  if (focused || document.activeElement === send) return focused;
  return questions.find((question) => !question.querySelector(":checked"));
}

let ended = false; // this page's vote was refused: what is said of it stays

// Shows what is to be done next.
function progress() {
  if (ended) return;
  const open = questions.filter((question) => !question.querySelector(":checked"));
  for (const question of questions) question.classList.toggle("current", !answers.disabled && question === current());
  send.disabled = answers.disabled || open.length > 0;
  if (!state.sending) say(!answers.disabled && open.length ? texts.unanswered : "");
}

form.addEventListener("change", (event) => {
  state.answers[event.target.name] = event.target.value;
  keep();
  progress();
});
form.addEventListener("focusin", progress);

document.addEventListener("keydown", (event) => {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  const tag = event.target.tagName, type = event.target.type;
  if (event.key === " " && !["BUTTON", "SELECT", "A"].includes(tag) && type !== "checkbox") {
    event.preventDefault(); // neither scrolls nor chooses
    player.toggle();
  } else if ("123".includes(event.key) && tag !== "SELECT" && !answers.disabled) {
    const question = current();
    if (!question) return;
    event.preventDefault();
    question.querySelectorAll("input")[Number(event.key) - 1].click();
    const next = questions.slice(questions.indexOf(question) + 1).find((other) => !other.querySelector(":checked"))
      ?? questions.find((other) => !other.querySelector(":checked"));
    (next ? next.querySelector("input") : send).focus();
  } else if (event.key === "Enter" && !["BUTTON", "SELECT", "A"].includes(tag) && !send.disabled) {
    event.preventDefault();
    form.requestSubmit(send);
  }
});

// One try; says whether it is `saved`, is to be sent `again` after some seconds or after a `reload`, or the `end`.
async function post(vote) {
  let response, body = {};
  const late = new AbortController();
  const timer = setTimeout(() => late.abort(), 30000); // longer than the server waits for its database
  try {
    response = await fetch("/vote", {
      method: "POST",
      headers: { "Content-Type": "application/json", "Accept": "application/json", "X-CSRF-Token": pair.dataset.csrf },
      body: JSON.stringify(vote),
      signal: late.signal,
    });
    body = await response.json();
  } catch { /* no network, no answer in time, or a proxy's page in place of JSON */ }
  clearTimeout(timer);
  if (!response) return { again: 0 };
  if (response.ok && body.saved) return { saved: true };
  if (response.status === 409) return { end: body.detail, next: true };
  if (response.status === 401) return { end: texts.lost_session };
  if (response.ok || response.status >= 500 || [408, 425, 429].includes(response.status)) {
    return { again: Number(response.headers.get("Retry-After")) || 0 };
  }
  // the link was opened once more in this browser: a new session, whose token comes with the page
  if (response.status === 403 && !state.reloaded) return { reload: true };
  return { end: texts.not_taken };
}

// Waits before the next try: 1, 2, 4 ... 30 seconds, spread; ends early with the button or when a network is back.
function pause(attempt, least) {
  const now = document.getElementById("now");
  const wait = Math.max(least, Math.min(30, 2 ** attempt)) * (0.8 + 0.4 * Math.random());
  now.hidden = false;
  return new Promise((resolve) => {
    const done = new AbortController();
    const go = () => { done.abort(); clearTimeout(timer); now.hidden = true; resolve(); };
    const timer = setTimeout(go, wait * 1000);
    now.addEventListener("click", go, { signal: done.signal });
    addEventListener("online", go, { signal: done.signal });
  });
}

async function submit() {
  state.sending = true;
  answers.disabled = send.disabled = true;
  send.setAttribute("aria-busy", "true");
  player.pause();
  say(texts.sending);
  keep();
  const vote = { trial: pair.dataset.trial, answers: state.answers, seconds: Math.round(seconds() * 10) / 10 };
  for (let attempt = 0; ; attempt++) {
    const outcome = await post(vote);
    if (outcome.saved) {
      state.saved = true;
      try { sessionStorage.removeItem(KEY); } catch { /* nothing was kept */ }
      location.replace("/study");
      return;
    }
    if (outcome.reload) {
      state.reloaded = true;
      keep();
      location.reload(); // and the answers are sent from there
      return;
    }
    if (outcome.end) {
      state.sending = false;
      ended = true;
      keep();
      say(outcome.end);
      send.removeAttribute("aria-busy");
      const on = document.getElementById("on");
      on.textContent = outcome.next ? texts.go_on : texts.reload;
      on.hidden = false;
      on.focus();
      return;
    }
    say(texts.waiting);
    await pause(attempt, outcome.again);
    say(texts.sending);
  }
}

form.addEventListener("submit", (event) => {
  event.preventDefault();
  if (!send.disabled && !state.sending) submit();
});

const player = new PairPlayer(document.getElementById("player"));
for (const [name, value] of Object.entries(state.answers)) {
  const choice = form.querySelector(`[name="${CSS.escape(name)}"][value="${CSS.escape(value)}"]`);
  if (choice) choice.checked = true;
}
const unsent = state.sending && questions.every((question) => question.querySelector(":checked"));
state.sending = false;
if (state.seen) unlock();
if (unsent) submit(); // the page was left while it waited
