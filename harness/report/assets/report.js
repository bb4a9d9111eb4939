// Sorting, filters, tooltips, copying, CSV. All text goes in through textContent; without this file every number is still there.
"use strict";

const make = (tag, name, text) => Object.assign(document.createElement(tag), { className: name, textContent: text });
const tables = [...document.querySelectorAll("script[data-for]")].map((block) => {
  const name = block.dataset.for;
  const element = document.getElementById(`table-${name}`);
  const { columns, rows, tags } = JSON.parse(block.textContent);
  const lines = [...element.tBodies[0].rows].map((line, i) => ({ line, values: rows[i], tags: tags[i], at: i }));
  return { name, element, columns, lines };
});

// Sorting: a click, Enter or Space on a heading; once more turns it round. What has no value stays at the end.
function compare(a, b) {
  if (typeof a === "number" && typeof b === "number") return a - b;
  return String(a).localeCompare(String(b), "en", { numeric: true });
}

function sort(table, column, heading) {
  const down = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.element.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", down ? "descending" : "ascending");
  const known = table.lines.filter((l) => l.values[column] !== null);
  known.sort((a, b) => (down ? -1 : 1) * compare(a.values[column], b.values[column]) || a.at - b.at);
  const rest = table.lines.filter((l) => l.values[column] === null);
  table.element.tBodies[0].append(...[...known, ...rest].map((l) => l.line));
}

for (const table of tables) {
  [...table.element.tHead.rows[0].cells].forEach((heading, column) => {
    if (!table.lines.some((l) => l.values[column] !== null)) return;
    const button = make("button", "", heading.textContent);
    button.type = "button";
    button.addEventListener("click", () => sort(table, column, heading));
    heading.replaceChildren(button);
  });
}

// Filters: a row stays if it has each chosen tag (or none of that name) and the words that are looked for.
const form = document.querySelector("form.filters");

function filter() {
  const chosen = Object.fromEntries(new FormData(form));
  const words = (chosen.find || "").toLowerCase().split(/\s+/).filter(Boolean);
  delete chosen.find;
  let shown = 0, all = 0;
  for (const { element, lines } of tables) {
    let here = 0;
    for (const { line, tags } of lines) {
      const text = line.textContent.toLowerCase();
      const fits = Object.entries(chosen).every(([name, value]) => !value || !(name in tags) || tags[name] === value);
      const stays = fits && words.every((word) => text.includes(word));
      line.toggleAttribute("data-away", !stays);
      here += stays;
    }
    shown += here;
    all += lines.length;
    element.closest(".block").toggleAttribute("data-away", !here);
  }
  for (const section of document.querySelectorAll("section")) {
    const blocks = [...section.querySelectorAll(".block")];
    section.toggleAttribute("data-away", blocks.length > 0 && blocks.every((b) => b.hasAttribute("data-away")));
  }
  form.querySelector("output").textContent = shown < all ? `${shown} of ${all} rows` : "";
}

if (form) {
  form.hidden = false;
  form.addEventListener("input", filter);
  form.addEventListener("submit", (event) => event.preventDefault());
  filter();
}

// Copying a command.
async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = make("textarea", "", "");
  field.value = text;
  document.body.append(field);
  field.select();
  document.execCommand("copy");
  field.remove();
}

for (const code of document.querySelectorAll("[data-copy]")) {
  const button = make("button", "copy", "copy");
  button.type = "button";
  button.setAttribute("aria-label", `Copy ${code.dataset.copy}`);
  button.addEventListener("click", async () => {
    try {
      await copy(code.dataset.copy);
      button.textContent = "copied";
    } catch {
      button.textContent = "select and copy by hand";
    }
    setTimeout(() => { button.textContent = "copy"; }, 1500);
  });
  code.after(button);
}

// CSV: the values in full precision, in the order and with the rows that are shown. Text that a spreadsheet would compute is quoted.
function cell(value) {
  if (value === null) return "";
  const safe = typeof value === "string" && /^[=+\-@\t\r]/.test(value) ? `'${value}` : String(value);
  return /[",\n\r]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function csv(table) {
  const byLine = new Map(table.lines.map((l) => [l.line, l.values]));
  const shown = [...table.element.tBodies[0].rows].filter((line) => !line.hasAttribute("data-away"));
  return [table.columns, ...shown.map((line) => byLine.get(line))].map((row) => row.map(cell).join(",")).join("\r\n") + "\r\n";
}

for (const table of tables) {
  const button = make("button", "save", "CSV");
  button.type = "button";
  button.addEventListener("click", () => {
    const link = make("a", "", "");
    link.href = URL.createObjectURL(new Blob([csv(table)], { type: "text/csv" }));
    link.download = `${table.name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });
  document.querySelector(`[data-of="${CSS.escape(table.name)}"]`).append(button);
}

// Tooltips: what a mark is, beside the pointer. The table says the same.
const tip = document.getElementById("tip");
document.addEventListener("pointerover", (event) => {
  const mark = event.target.closest?.("figure svg path[aria-label]");
  tip.hidden = !mark;
  if (!mark) return;
  tip.textContent = mark.getAttribute("aria-label");
  const box = mark.getBoundingClientRect();
  const left = Math.min(box.right + 8, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, box.top - tip.offsetHeight - 6)}px`;
});
document.addEventListener("keydown", (event) => { if (event.key === "Escape") tip.hidden = true; });
