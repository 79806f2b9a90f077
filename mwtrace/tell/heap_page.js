"use strict";
// Draws what heap_page.py put into the page. Names are set as text, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const LABEL = 0, RETAINED = 1, OWN = 2, OBJECTS = 3, BELOW = 4;
const ROW_PX = 18, LEVELS_MAX = 30, PERCENT_MIN = 0.15, ROWS_MAX = 500;

function bytes(size) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  const sign = size < 0 ? "-" : "";
  size = Math.abs(size);
  let power = 0;
  while (size >= 1023.5 && power < units.length - 1) { size /= 1024; power += 1; }
  return sign + (power && size < 99.95 ? size.toFixed(1) : Math.round(size)) + " " + units[power];
}

// The tree: what is retained, as boxes under who retains it.
const graph = document.getElementById("graph");
const told = document.getElementById("told");

function tell(node) {
  const share = (100 * node[RETAINED] / Math.max(1, data.tree[RETAINED])).toFixed(1);
  told.textContent = `${node[LABEL]}: retains ${bytes(node[RETAINED])} (${share}%), itself ${bytes(node[OWN])}`;
}

function draw(path) {
  graph.replaceChildren();
  let levels = 0;
  const box = (node, left, width, level, above) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = node[LABEL];
    button.setAttribute("aria-label", `${node[LABEL]} ${bytes(node[RETAINED])}`);
    button.className = above ? "above" : node[OBJECTS] > 1 && level ? "rest" : "";
    button.style.cssText = `left:${left}%;width:${width}%;top:${level * ROW_PX}px`;
    button.addEventListener("mouseenter", () => tell(node));
    button.addEventListener("focus", () => tell(node));
    graph.append(button);
    levels = Math.max(levels, level + 1);
    return button;
  };
  path.slice(0, -1).forEach((node, level) =>
    box(node, 0, 100, level, true).addEventListener("click", () => draw(path.slice(0, level + 1))));
  const waiting = [[path, 0, 100]];
  while (waiting.length) {
    const [way, left, width] = waiting.pop();
    const node = way[way.length - 1];
    box(node, left, width, way.length - 1, false).addEventListener("click", () => draw(way));
    if (way.length - path.length >= LEVELS_MAX) continue;
    let at = left;
    for (const child of node[BELOW]) {
      const wide = width * child[RETAINED] / Math.max(1, node[RETAINED]);
      if (wide >= PERCENT_MIN) waiting.push([[...way, child], at, wide]);
      at += wide;
    }
  }
  graph.style.height = `${levels * ROW_PX}px`;
  tell(path[path.length - 1]);
}

document.getElementById("reset").addEventListener("click", () => draw([data.tree]));

// The table: searched and sorted here, the largest first.
const COLUMNS = [["Type", 0], ["Objects", 1], ["Bytes", 2], ["Retained", 5]];
if (data.compared) COLUMNS.push(["Objects grown", 3], ["Bytes grown", 4]);
let sorted = data.compared ? 4 : 2;

function rows() {
  const words = document.getElementById("search").value.toLowerCase();
  const found = data.types.filter((row) => row[0].toLowerCase().includes(words));
  found.sort((a, b) => sorted ? b[sorted] - a[sorted] : a[0] < b[0] ? -1 : 1);
  document.getElementById("matched").textContent =
    `${found.length} types, ${bytes(found.reduce((sum, row) => sum + row[2], 0))}`;
  document.getElementById("types").replaceChildren(...found.slice(0, ROWS_MAX).map((row) => {
    const line = document.createElement("tr");
    for (const [, column] of COLUMNS) {
      const cell = document.createElement("td");
      cell.className = column ? "n" : "";
      cell.textContent = column === 0 ? row[0]
        : column === 1 || column === 3 ? row[column].toLocaleString("en") : bytes(row[column]);
      line.append(cell);
    }
    return line;
  }));
}

const heads = document.createElement("tr");
for (const [title, column] of COLUMNS) {
  const head = document.createElement("th");
  head.textContent = title;
  head.className = column ? "n" : "";
  head.addEventListener("click", () => { sorted = column; rows(); });
  heads.append(head);
}
document.getElementById("columns").append(heads);
document.getElementById("search").addEventListener("input", rows);
for (const note of data.notes) {
  const line = document.createElement("li");
  line.textContent = note;
  document.getElementById("notes").append(line);
}
draw([data.tree]);
rows();
