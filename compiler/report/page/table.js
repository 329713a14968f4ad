// The table of buffers: those that pass the filters, sorted by a column. Only the rows in view are elements.

const ROW = 24;

const COLUMNS = [
  { key: "name", label: "Buffer", title: "Name", value: (model, buffer) => model.buffers.name[buffer], text: null },
  { key: "size", label: "Size", title: "Bytes, padding included", value: (model, buffer) => model.buffers.size[buffer], text: printBytes },
  { key: "cost", label: "Costs", title: "Time that it would save in the fastest memory, and waits for its copies", value: (model, buffer) => model.cost[buffer], text: printCost },
  { key: "saved", label: "Saves", title: "Time that its places save over the slow memory", value: (model, buffer) => model.buffers.saved[buffer], text: printCost },
];

function printCost(seconds) {
  return seconds > 0 ? printSeconds(seconds) : "–";
}

class Table {
  constructor(page) {
    this.page = page;
    this.rows = document.getElementById("rows");
    this.spacer = document.getElementById("spacer");
    this.order = [];
    document.getElementById("columns").append(...COLUMNS.map((column) => this._heading(column)));
    this.rows.addEventListener("scroll", () => this._drawRows());
    this.rows.addEventListener("click", (event) => {
      const row = event.target.closest(".row");
      if (row) page.reveal("buffer", Number(row.dataset.buffer));
    });
    this.rows.addEventListener("dblclick", () => page.zoomToSelection());
  }

  _heading({ key, label, title }) {
    const { state } = this.page;
    const button = make("button", "", label);
    button.type = "button";
    button.title = `${title}. Sorts by it`;
    button.addEventListener("click", () => {
      const descending = state.sort.column === key ? !state.sort.descending : key !== "name";
      state.set({ sort: { column: key, descending } });
    });
    const cell = make("span", "", button);
    cell.setAttribute("role", "columnheader");
    cell.dataset.column = key;
    return cell;
  }

  /** Sorts what passes the filters and draws it. */
  update() {
    const { model, state, matches } = this.page;
    const { value } = COLUMNS.find(({ key }) => key === state.sort.column);
    const sign = state.sort.descending ? -1 : 1;
    const values = Array.from({ length: model.count }, (_, buffer) => value(model, buffer));
    const compare = (a, b) => (values[a] < values[b] ? -1 : values[a] > values[b] ? 1 : 0);
    // Of buffers that cost the same, the larger stands first.
    this.order = Array.from(values.keys())
      .filter((buffer) => matches[buffer])
      .sort((a, b) => sign * compare(a, b) || model.buffers.size[b] - model.buffers.size[a] || a - b);
    for (const cell of document.getElementById("columns").children) {
      const isSorted = cell.dataset.column === state.sort.column;
      if (isSorted) cell.setAttribute("aria-sort", state.sort.descending ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
      const { label } = COLUMNS.find(({ key }) => key === cell.dataset.column);
      cell.firstChild.textContent = isSorted ? `${label} ${state.sort.descending ? "↓" : "↑"}` : label;
    }
    this.spacer.style.height = `${this.order.length * ROW}px`;
    this._drawRows();
  }

  _drawRows() {
    const first = Math.max(Math.floor(this.rows.scrollTop / ROW) - 4, 0);
    const last = Math.min(Math.ceil((this.rows.scrollTop + this.rows.clientHeight) / ROW) + 4, this.order.length);
    const rows = [];
    for (let place = first; place < last; place += 1) rows.push(this._row(place));
    this.rows.replaceChildren(this.spacer, ...rows);
  }

  _row(place) {
    const { page } = this;
    const { model, state } = page;
    const buffer = this.order[place];
    const isSelected = state.selected?.kind === "buffer" && state.selected.number === buffer;
    const cells = COLUMNS.map(({ value, text }) =>
      text === null ? make("span", "name", swatch(page, buffer), make("span", "", value(model, buffer))) : make("span", "", text(value(model, buffer))));
    const row = make("div", isSelected ? "row selected" : "row", cells);
    row.setAttribute("role", "row");
    if (isSelected) row.setAttribute("aria-selected", "true");
    row.dataset.buffer = buffer;
    row.style.top = `${place * ROW}px`;
    return row;
  }

  /** Scrolls to the selected buffer, if it is in the table. */
  scrollToSelection() {
    const { selected } = this.page.state;
    const place = selected?.kind === "buffer" ? this.order.indexOf(selected.number) : -1;
    if (place < 0) return;
    const { scrollTop, clientHeight } = this.rows;
    if (place * ROW < scrollTop || (place + 1) * ROW > scrollTop + clientHeight) {
      this.rows.scrollTop = Math.max(place * ROW - clientHeight / 2, 0);
    }
  }

  /** Selects the buffer so many places further down. */
  step(places) {
    if (!this.order.length) return;
    const { selected } = this.page.state;
    const place = selected?.kind === "buffer" ? this.order.indexOf(selected.number) : -1;
    const next = place < 0 ? (places > 0 ? 0 : this.order.length - 1) : Math.min(Math.max(place + places, 0), this.order.length - 1);
    this.page.reveal("buffer", this.order[next]);
  }
}
