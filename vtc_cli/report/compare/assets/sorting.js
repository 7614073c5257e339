// Tables that a click or a key on a column's title sorts.

const ORDERS = [null, "descending", "ascending"];

/** Number of a cell, its text where it has none; what is empty comes last in every order. */
function sortValue(row, column) {
  const cell = row.cells[column];
  const text = cell.dataset.value ?? "";
  if (text === "") return null;
  const number = Number(text);
  return Number.isNaN(number) ? text : number;
}

function compared(first, second) {
  if (typeof first === "number" && typeof second === "number") return first - second;
  return String(first).localeCompare(String(second));
}

function sortedRows(rows, column, order) {
  if (order === null) return rows;
  const sign = order === "descending" ? -1 : 1;
  return [...rows].sort((a, b) => {
    const [x, y] = [sortValue(a, column), sortValue(b, column)];
    if (x === null || y === null) return (x === null) - (y === null);
    return sign * compared(x, y);
  });
}

for (const table of document.querySelectorAll("table.arms")) {
  const rows = [...table.tBodies[0].rows];
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    head.querySelector("button").addEventListener("click", () => {
      const next = ORDERS[(ORDERS.indexOf(head.getAttribute("aria-sort")) + 1) % ORDERS.length];
      for (const other of heads) other.removeAttribute("aria-sort");
      if (next !== null) head.setAttribute("aria-sort", next);
      table.tBodies[0].append(...sortedRows(rows, column, next));
    });
  });
}
