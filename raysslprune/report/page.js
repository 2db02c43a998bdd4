"use strict";
// Every table can be sorted by its columns and filtered by words. Without this script they are all there, in order.

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

function equip(table) {
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

document.querySelectorAll("table").forEach(equip);
addEventListener("hashchange", reveal);
reveal();
