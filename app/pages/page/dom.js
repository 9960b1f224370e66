// The page's only ways to change what is shown. Everything is set as text: nothing from the network becomes markup.

export const byId = (id) => document.getElementById(id);

export function setText(element, text) {
  // Only what changed, so that a screen reader says nothing twice and keeps its place.
  if (element.textContent === text) return;
  element.textContent = text;
  element.toggleAttribute("data-ends-blank", text.endsWith(" "));
}

export function setLevel(element, level) {
  if (element.dataset.level !== level) element.dataset.level = level;
}

// Shows rows of cells; a cell is {text, level, kind} or {node}. Rows and cells are kept where they can be.
export function showRows(table, rows) {
  const labels = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  while (body.rows.length > rows.length) body.deleteRow(-1);
  rows.forEach((cells, place) => {
    const row = body.rows[place] ?? newRow(body, labels);
    cells.forEach((cell, column) => showCell(row.cells[column], cell));
  });
  table.hidden = rows.length === 0;
  table.nextElementSibling.hidden = rows.length > 0;
}

function newRow(body, labels) {
  const row = body.insertRow();
  row.setAttribute("role", "row");
  labels.forEach((label, column) => {
    const cell = row.appendChild(document.createElement(column ? "td" : "th"));
    cell.setAttribute("role", column ? "cell" : "rowheader");
    if (!column) cell.scope = "row";
    cell.dataset.label = label.textContent;
    cell.className = label.className;
  });
  return row;
}

function showCell(cell, { text = "", level = "", kind = "", node = null }) {
  if (node) cell.replaceChildren(node);
  else setText(cell, text);
  setLevel(cell, level);
  if (kind) cell.classList.add(kind);
}
