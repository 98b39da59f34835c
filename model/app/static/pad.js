// A brush on a picture. The picture comes as <div class="pad"><img><canvas></div> whenever the server shows a
// frame; the strokes stay here until `window.editverse.drawing()` is asked for by the button that uses them.
const state = { strokes: [], size: [1, 1], frame: 0, erases: false };
window.editverse = window.editverse || {};
window.editverse.drawing = () =>
  JSON.stringify({ frame: state.frame, size: state.size, strokes: state.strokes });

const canvas = () => element.querySelector("canvas");
const brush = () => Number(element.querySelector("[data-brush]").value);

function paint() {
  const target = canvas(), context = target.getContext("2d");
  context.clearRect(0, 0, target.width, target.height);
  for (const { points, radius, erases } of state.strokes) {
    context.globalCompositeOperation = erases ? "destination-out" : "source-over";
    context.strokeStyle = context.fillStyle = "rgb(255, 40, 40)";
    context.lineWidth = 2 * radius;
    context.lineCap = context.lineJoin = "round";
    context.beginPath();
    context.moveTo(points[0], points[1]);
    for (let i = 2; i < points.length; i += 2) context.lineTo(points[i], points[i + 1]);
    if (points.length === 2) context.lineTo(points[0] + 0.01, points[1]);
    context.stroke();
  }
}

// A new picture: an empty canvas of its size.
function begin() {
  const target = canvas();
  if (!target || target.dataset.begun) return;
  target.dataset.begun = "yes";
  state.frame = Number(target.dataset.frame);
  state.size = [target.width, target.height];
  state.strokes = [];
}

function place(event) {
  const box = canvas().getBoundingClientRect();
  return [
    Math.round(((event.clientX - box.left) * canvas().width) / box.width),
    Math.round(((event.clientY - box.top) * canvas().height) / box.height),
  ];
}

let drawing = null;
element.addEventListener("pointerdown", (event) => {
  if (event.target !== canvas() || (event.button ?? 0) !== 0) return;
  begin();
  event.preventDefault();
  event.target.setPointerCapture(event.pointerId);
  // the brush is measured on the screen, the stroke in pixels of the picture
  const scale = canvas().width / canvas().getBoundingClientRect().width;
  drawing = { points: place(event), radius: Math.max(1, Math.round(brush() * scale)), erases: state.erases };
  state.strokes.push(drawing);
  paint();
});
element.addEventListener("pointermove", (event) => {
  if (!drawing) return;
  const [x, y] = place(event), last = drawing.points.slice(-2);
  if (Math.hypot(x - last[0], y - last[1]) < Math.max(1, drawing.radius / 4)) return;
  drawing.points.push(x, y);
  paint();
});
for (const name of ["pointerup", "pointercancel"]) element.addEventListener(name, () => (drawing = null));
element.addEventListener("click", (event) => {
  const action = event.target.closest("[data-action]")?.dataset.action;
  if (!action) return;
  begin();
  if (action === "undo") state.strokes.pop();
  if (action === "clear") state.strokes = [];
  if (action === "erase") {
    state.erases = !state.erases;
    event.target.closest("[data-action]").setAttribute("aria-pressed", state.erases);
  }
  if (canvas()) paint();
});
watch("value", () => {
  state.erases = false;
  begin();
});
