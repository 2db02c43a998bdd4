"use strict";
// Make tables sortable by column and filterable by words. Show the values of a figure's points, and hide a curve at a
// click on its name in the legend. Without this script the tables are there, in order, and the points have titles.

const FEW = 16; // rows that need no filter
const order = new Intl.Collator(undefined, { numeric: true });

function value(cell) {
  return cell.dataset.v === undefined ? cell.textContent : Number(cell.dataset.v);
}

function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return typeof a === "string" && typeof b === "string" ? order.compare(a, b) : typeof a === "number" ? -1 : 1;
}

function sort(table, heading) {
  const body = table.tBodies[0];
  const column = heading.cellIndex;
  const down = heading.getAttribute("aria-sort") === "ascending";
  const rows = Array.from(body.rows, (row) => [value(row.cells[column]), row]);
  const [empty, full] = [rows.filter(([key]) => key === ""), rows.filter(([key]) => key !== "")];
  full.sort(([a], [b]) => (down ? compare(b, a) : compare(a, b)));
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  body.append(...full.concat(empty).map(([, row]) => row)); // what has no value stays last
}

function filter(table, text, count) {
  const words = text.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = Array.from(table.tBodies[0].rows);
  let shown = 0;
  for (const row of rows) {
    row.text ??= Array.from(row.cells, (cell) => cell.textContent).join(" ").toLowerCase();
    row.hidden = !words.every((word) => row.text.includes(word));
    shown += !row.hidden;
  }
  const of = `${rows.length.toLocaleString("en")} rows`;
  count.textContent = words.length ? `${shown.toLocaleString("en")} of ${of}` : of;
}

function hint(box) {
  const hint = document.createElement("p");
  hint.className = "hint";
  hint.textContent = "Scroll sideways for more columns \u2192";
  const look = () => (hint.hidden = box.scrollWidth - box.clientWidth - box.scrollLeft < 2);
  box.after(hint);
  box.addEventListener("scroll", look);
  new ResizeObserver(look).observe(box);
}

function equip(table) {
  hint(table.parentElement);
  for (const heading of table.tHead.rows[0].cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    button.addEventListener("click", () => sort(table, heading));
    heading.append(button);
  }
  if (table.tBodies[0].rows.length < FEW) return;
  const bar = document.createElement("div");
  const label = document.createElement("label");
  const input = document.createElement("input");
  const count = document.createElement("output");
  bar.className = "bar";
  input.type = "search";
  input.autocomplete = "off";
  label.append("Filter ", input);
  bar.append(label, count);
  input.addEventListener("input", () => filter(table, input.value, count));
  filter(table, "", count);
  table.closest(".table").prepend(bar);
}

function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  if (!target) return;
  const details = target.closest("details");
  const input = target.closest(".table")?.querySelector("input");
  if (target.hidden && input) {
    input.value = "";
    input.dispatchEvent(new Event("input"));
  }
  if (details) details.open = true;
  target.scrollIntoView();
}

const tip = document.createElement("div");
const REACH = 20; // pixels from a point or a name within which it is meant

function gap(element, { clientX, clientY }) {
  const { left, right, top, bottom } = element.getBoundingClientRect();
  const outside = Math.hypot(Math.max(left - clientX, 0, clientX - right), Math.max(top - clientY, 0, clientY - bottom));
  return outside + Math.hypot((left + right) / 2 - clientX, (top + bottom) / 2 - clientY) / 100; // of two, the nearer
}

function nearest(elements, event) {
  const gaps = Array.from(elements, (element) => [gap(element, event), element]);
  const [least, element] = gaps.reduce((a, b) => (b[0] < a[0] ? b : a), [REACH, null]);
  return least < REACH ? element : null;
}

function tell(point, event, pinned) {
  tip.hidden = !point;
  tip.classList.toggle("pinned", pinned && Boolean(point));
  if (!point) return;
  const parts = point.dataset.tip.split(/\b([0-9a-f]{16})\b/); // every other one is the id of a step
  tip.replaceChildren(
    ...parts.map((part, i) => {
      if (i % 2 === 0 || !document.getElementById(part)) return i % 2 === 0 ? part : part.slice(0, 8);
      const link = document.createElement("a");
      [link.href, link.textContent] = [`#${part}`, part.slice(0, 8)];
      return link;
    })
  );
  const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
  tip.style.left = `${scrollX + Math.max(8, Math.min(event.clientX + 12, room))}px`;
  tip.style.top = `${scrollY + event.clientY + 12}px`;
}

function toggle(svg, name) {
  const all = [...svg.querySelectorAll("[data-curve], [data-key]")];
  const parts = all.filter((part) => (part.dataset.curve ?? part.dataset.key) === name);
  const off = !parts[0].classList.contains("off");
  for (const part of parts) part.classList.toggle("off", off);
  for (const part of parts) if (part.hasAttribute("role")) part.setAttribute("aria-pressed", off);
}

function enliven(svg) {
  for (const title of svg.querySelectorAll("[data-curve] title")) {
    title.parentElement.dataset.tip = title.textContent;
    title.remove(); // or the browser would show it, too
  }
  const keys = [...svg.querySelectorAll("[data-key]")];
  const points = () => svg.querySelectorAll("[data-curve]:not(.off)[data-tip], [data-curve]:not(.off) [data-tip]");
  for (const [name, key] of new Map(keys.map((key) => [key.dataset.key, key]))) {
    for (const [what, is] of Object.entries({ role: "button", tabindex: 0, "aria-label": `Hide ${name}` })) {
      key.setAttribute(what, is);
    }
    key.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault();
      toggle(svg, name);
    });
  }
  svg.addEventListener("click", (event) => {
    const hit = nearest([...points(), ...keys], event);
    const isKey = keys.includes(hit);
    if (isKey) toggle(svg, hit.dataset.key);
    tell(isKey ? null : hit, event, true);
  });
  svg.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse" && !tip.matches(".pinned")) tell(nearest(points(), event), event, false);
  });
  svg.addEventListener("pointerleave", (event) => tip.matches(".pinned") || tell(null, event, false));
  svg.classList.add("live");
}

tip.id = "tip";
tip.hidden = true;
tip.setAttribute("role", "status");
document.body.append(tip);
addEventListener("keydown", (event) => event.key === "Escape" && tell(null, event, false));
document.querySelectorAll("figure svg").forEach(enliven);
for (const caption of document.querySelectorAll("figure:has(svg) figcaption")) {
  const point = caption.parentElement.querySelector("[data-tip]") ? "a point for its values, " : "";
  caption.append(` Tap ${point}a name in the legend to hide its curve.`);
}
document.querySelectorAll("table").forEach(equip);
addEventListener("hashchange", reveal);
reveal();
