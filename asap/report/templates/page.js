"use strict";
// Sorting: click a column's title; again, the other way. Empty cells stay last.
for (const button of document.querySelectorAll("thead button")) {
  button.addEventListener("click", () => {
    const head = button.parentElement, row = head.parentElement, body = head.closest("table").tBodies[0];
    const column = [...row.children].indexOf(head);
    const text = head.classList.contains("text");
    const first = text ? "ascending" : "descending", second = text ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? second : first;
    for (const other of row.children) other.setAttribute("aria-sort", other === head ? order : "none");
    const sign = order === "ascending" ? 1 : -1;
    const key = (line) => line.children[column].dataset.sort;
    const compare = (a, b) => (text ? a.localeCompare(b) : Number(a) - Number(b));
    const lines = [...body.rows].sort((one, two) => {
      const a = key(one), b = key(two);
      if (a === "" || b === "") return (a === "") - (b === "");
      return sign * compare(a, b);
    });
    body.append(...lines);
  });
}
// Animations: nothing moves until it is asked to; where less motion is wished for, it plays once.
for (const button of document.querySelectorAll("button.play")) {
  const picture = button.parentElement.querySelector("img"), still = picture.src;
  let end;
  const play = (on) => {
    clearTimeout(end);
    picture.src = on ? picture.dataset.moving : still;
    button.textContent = on ? "Stop" : "Play";
    button.setAttribute("aria-pressed", String(on));
    const once = matchMedia("(prefers-reduced-motion: reduce)").matches;
    if (on && once) end = setTimeout(() => play(false), Number(picture.dataset.milliseconds));
  };
  button.addEventListener("click", () => play(button.getAttribute("aria-pressed") !== "true"));
}
// Exact values: of what the pointer is on or has the focus. Arrow keys move between cells.
const tip = document.getElementById("tip");
function show(target) {
  const holder = target instanceof Element ? target.closest("[data-tip]") : null;
  tip.hidden = !holder;
  if (!holder) return;
  tip.textContent = holder.dataset.tip;
  const at = holder.getBoundingClientRect(), size = tip.getBoundingClientRect();
  const left = Math.min(Math.max(4, at.left + at.width / 2 - size.width / 2), innerWidth - size.width - 4);
  const above = at.top - size.height - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 4 ? above : at.bottom + 6}px`;
}
document.addEventListener("pointerover", (event) => show(event.target));
document.addEventListener("focusin", (event) => show(event.target));
document.addEventListener("focusout", () => show(null));
addEventListener("scroll", () => { tip.hidden = true; }, { passive: true, capture: true });
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") tip.hidden = true;
  const cell = event.target.closest ? event.target.closest("tbody th, tbody td") : null;
  if (!cell) return;
  const column = [...cell.parentElement.children].indexOf(cell);
  const near = {
    ArrowLeft: cell.previousElementSibling,
    ArrowRight: cell.nextElementSibling,
    ArrowUp: cell.parentElement.previousElementSibling?.children[column],
    ArrowDown: cell.parentElement.nextElementSibling?.children[column],
  }[event.key];
  if (near) { event.preventDefault(); near.focus(); }
});
