// Before and after under one another, with a border that is dragged. Both are halves of one file, the source on
// the left, drawn on a canvas: two players would fall out of step, and one file can be kept.
const find = (selector) => element.querySelector(selector);
let last = null;

function draw() {
  const stage = find("canvas"), media = find("video, img.media"), range = find("input[type=range]");
  if (!stage || !media) return;
  const width = media.videoWidth || media.naturalWidth, height = media.videoHeight || media.naturalHeight;
  if (!width) return;
  const split = Number(stage.dataset.split), right = width - split;
  if (stage.width !== right || stage.height !== height) {
    [stage.width, stage.height] = [right, height];
    stage.style.width = `${(420 * right) / height}px`;
  }
  const context = stage.getContext("2d"), edge = Math.round((right * range.value) / 1000);
  context.drawImage(media, split, 0, right, height, 0, 0, right, height);
  if (edge > 0) context.drawImage(media, 0, 0, (split * edge) / right, height, 0, 0, edge, height);
  context.fillStyle = "white";
  context.fillRect(edge - 1, 0, 2, height);
}

// Draw every frame that is shown, for as long as this video is on the page.
function follow(video) {
  if (!video.isConnected) return;
  draw();
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(() => follow(video));
  else requestAnimationFrame(() => follow(video));
}

function start() {
  const media = find("video, img.media");
  if (!media || media === last) return;
  last = media;
  if (media.tagName === "VIDEO") {
    media.addEventListener("loadeddata", draw);
    media.addEventListener("seeked", draw);
    follow(media);
  } else {
    media.addEventListener("load", draw);
    draw();
  }
}

element.addEventListener("input", draw);
element.addEventListener("click", (event) => {
  const video = find("video");
  if (!video || !event.target.closest("[data-action=play]")) return;
  if (video.paused) video.play();
  else video.pause();
});
for (const name of ["play", "pause"]) {
  element.addEventListener(
    name,
    () => {
      const button = find("[data-action=play]");
      if (button) button.textContent = find("video").paused ? "Play" : "Pause";
    },
    true, // these events do not bubble
  );
}
// The border follows a pointer on the picture itself, too.
for (const name of ["pointerdown", "pointermove"]) {
  element.addEventListener(name, (event) => {
    const stage = find("canvas");
    if (event.target !== stage || (name === "pointermove" && !event.buttons)) return;
    const box = stage.getBoundingClientRect();
    find("input[type=range]").value = (1000 * (event.clientX - box.left)) / box.width;
    draw();
  });
}
watch("value", start);
start();
