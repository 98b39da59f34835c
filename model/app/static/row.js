// A row of thumbnails: which one was clicked is read by the listener's own script.
element.addEventListener("click", (event) => {
  const button = event.target.closest("[data-index]");
  if (!button) return;
  window.editverse = window.editverse || {};
  window.editverse.picked = Number(button.dataset.index);
  trigger("click");
});
