// The report's charts, filters and tables. Text goes into the page as text alone, never as HTML.
(() => {
  "use strict";
  const { axes, measures, palette, panels, ...tables } = JSON.parse(document.getElementById("data").textContent);
  const cells = rows(tables.cells);
  const bins = rows(tables.bins);
  const AXES = { dataset: "Data sets", backbone: "Backbones", method: "Methods" };
  const PAGE = 100; // rows of the table of cells
  const DASHES = { dense: "", compressed: "5 3", control: "1.5 2.5" };
  const SHAPES = {
    circle: "M13 6a4 4 0 1 0 8 0a4 4 0 1 0 -8 0",
    square: "M13.5 2.5h7v7h-7z",
    diamond: "M17 1l4 5l-4 5l-4 -5z",
    "triangle-up": "M17 2l4.5 8h-9z",
    "triangle-down": "M17 10l4.5 -8h-9z",
    cross: "M15.5 2h3v2.5h2.5v3h-2.5v2.5h-3v-2.5h-2.5v-3h2.5z",
    "triangle-right": "M21 6l-8 4.5v-9z",
    "triangle-left": "M13 6l8 4.5v-9z",
  };
  const form = document.getElementById("filter");
  const boxes = { dataset: [], backbone: [], method: [] }; // in the order of `axes`

  // The rows of a table that is given by its columns.
  function rows(columns) {
    const names = Object.keys(columns);
    return columns[names[0]].map((_, at) => Object.fromEntries(names.map((name) => [name, columns[name][at]])));
  }

  function element(name, properties = {}, ...children) {
    const made = Object.assign(document.createElement(name), properties);
    made.append(...children);
    return made;
  }

  function fixed(value, digits, plus = "") {
    if (value === null) return "–";
    const text = value.toFixed(digits);
    return Number(text) === 0 ? text.replace("-", "") : (value > 0 ? plus : "") + text.replace("-", "−"); // zero has no sign
  }

  // Filter

  function sample(backbone) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const path = (attributes) => {
      const made = document.createElementNS(svg.namespaceURI, "path");
      for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
      return made;
    };
    for (const [key, value] of Object.entries({ width: 34, height: 12, "aria-hidden": true })) svg.setAttribute(key, value);
    svg.append(path({ d: "M0 6H34", stroke: backbone.colour, "stroke-dasharray": DASHES[backbone.kind] }));
    svg.append(path({ d: SHAPES[backbone.shape], fill: backbone.colour }));
    return svg;
  }

  // How one of an axis is drawn, and what it is called.
  function described(axis, one) {
    if (axis === "backbone") return [sample(one), one.label];
    if (axis === "dataset") return [one.label];
    const swatch = element("span", { className: "swatch" });
    swatch.style.background = one.colour;
    return [swatch, one.label];
  }

  // A button that sets the boxes of an axis as `wanted` says of each.
  function setter(text, axis, wanted) {
    const button = element("button", { type: "button", textContent: text });
    button.addEventListener("click", () => {
      boxes[axis].forEach((box, at) => { box.checked = wanted(axes[axis][at]); });
      draw();
    });
    return button;
  }

  function option(axis, one) {
    const box = element("input", { type: "checkbox", name: axis, value: one.name, checked: one.shown });
    boxes[axis][axes[axis].indexOf(one)] = box;
    return element("label", {}, box, ...described(axis, one));
  }

  function buildFilter() {
    for (const measure of measures) form.measure.append(element("option", { value: measure.key }, measure.label));
    for (const [axis, title] of Object.entries(AXES)) {
      const options = element("div", { className: "options" });
      const families = [...new Set(axes[axis].map((one) => one.family))]; // backbones have one: what they are compared with
      for (const family of families) {
        if (families.length > 1) {
          const { label } = axes.backbone.find((one) => one.name === family) ?? { label: family };
          const alone = setter("these alone", axis, (one) => one.family === family);
          options.append(element("div", { className: "family" }, `${label} and what is compared with it`, alone));
        }
        options.append(...axes[axis].filter((one) => one.family === family).map((one) => option(axis, one)));
      }
      const legend = element("legend", {}, title, setter("all", axis, () => true), setter("none", axis, () => false));
      form.querySelector(".axes").append(element("fieldset", {}, legend, options));
    }
    form.addEventListener("change", draw);
    form.addEventListener("submit", (event) => event.preventDefault());
    form.querySelector("details").open = window.innerWidth >= 700;
  }

  // Charts: a panel is drawn when it comes into view, and the others when there is time, so that a print has them

  let views = [];
  const waiting = new Map(); // panels not drawn yet, and their specifications
  const observer = new IntersectionObserver((entries) => {
    for (const { isIntersecting, target } of entries) if (isIntersecting && waiting.has(target)) show(target);
  }, { rootMargin: "400px" });

  async function show(target) {
    const spec = waiting.get(target);
    waiting.delete(target);
    observer.unobserve(target);
    // `ast`: expressions are interpreted, as the page's policy lets no text become code
    const { view } = await window.vegaEmbed(target, spec, { renderer: "svg", actions: false, ast: true });
    if (target.isConnected) views.push(view);
    else view.finalize();
  }

  const whenIdle = window.requestIdleCallback ?? ((call) => setTimeout(call, 50)); // Safari has none
  let rounds = 0; // of `draw`
  async function showRest(round) {
    const [target] = waiting.keys();
    if (!target || round !== rounds) return;
    await show(target);
    whenIdle(() => showRest(round));
  }

  function place(kind, title, note, plot) {
    const caption = element("figcaption", {}, title, ...(note ? [element("span", { className: "small" }, note)] : []));
    document.querySelector(`.panels[data-kind="${kind}"]`).append(element("figure", { className: "panel" }, caption, plot));
  }

  function panel(kind, title, note, description, datasets, change = () => {}) {
    const spec = structuredClone(panels[kind]);
    Object.assign(spec, { description, datasets: { ...spec.datasets, ...datasets } });
    change(spec);
    const plot = element("div");
    plot.style.minHeight = `${spec.height + 45}px`;
    waiting.set(plot, spec);
    place(kind, title, note, plot);
    observer.observe(plot);
  }

  // What the number of shots of a cell is called; what trains nothing is the same at all.
  function budget(cell) {
    return axes.method[cell.method].trains ? axes.dataset[cell.dataset].budgets[cell.shots] : "all";
  }

  // The shots of a data set that are trainings of their own, in their order: each has its place, run or not.
  function budgetsOf(d) {
    const budgets = axes.dataset[d].budgets.filter((label) => label !== null);
    return budgets.length ? budgets : ["all"];
  }

  function overShots(spec, domain) {
    for (const { encoding } of spec.layer) if (encoding.x) encoding.x.scale = { domain };
  }

  function drawCurves(chosen, picked, measure) {
    const unit = measure.unit ? `${measure.label} (${measure.unit})` : measure.label;
    const families = [...new Set(picked.backbone.map((b) => axes.backbone[b].family))];
    const several = new Set(axes.backbone.map((one) => one.family)).size > 1;
    for (const d of picked.dataset) {
      const { label, chance } = axes.dataset[d];
      const budgets = budgetsOf(d);
      const drawn = chosen.filter((cell) => cell.dataset === d).map((cell) => {
        const [mean, std] = ["mean", "std"].map((one) => cell[`${measure.key}_${one}`]);
        const scaled = (value) => (value === null ? null : value * measure.factor);
        const ends = mean === null || std === null ? [null, null] : [-1, 1].map((side) => mean + side * std * cell.reach);
        return { ...named(cell), value: scaled(mean), std: scaled(std), low: scaled(ends[0]), high: scaled(ends[1]) };
      });
      const line = measure.key === "accuracy" && chance !== null ? [{ value: chance }] : [];
      const reached = [...drawn.flatMap((cell) => [cell.value, cell.low, cell.high]), ...line.map((one) => one.value)];
      const scale = { domain: [Math.min(0, ...reached), Math.max(0, ...reached)], nice: true }; // of all its panels
      for (const [m, f] of picked.method.flatMap((method) => families.map((family) => [method, family]))) {
        const of = ({ method, family }) => method === axes.method[m].name && family === f;
        const own = drawn.filter(of).flatMap((cell) => (axes.method[m].trains ? [cell] : budgets.map((shots) => ({ ...cell, shots }))));
        if (!own.length) continue;
        const dense = axes.backbone.find((one) => one.name === f)?.label ?? f;
        const under = several ? `${axes.method[m].label}, ${dense}` : axes.method[m].label;
        if (own.every((cell) => cell.value === null)) {
          place("curves", label, under, element("p", { className: "small" }, "No cell of these has a result."));
          continue;
        }
        const short = budgets.filter((shots) => own.some((cell) => cell.classes_short && cell.shots === shots));
        const note = short.length ? `${under}; some classes have fewer images than ${short.join(", ")} shots` : under;
        panel("curves", label, note, `${measure.label} on ${label}, ${under}, against shots`, { cells: own, chance: line }, (spec) => {
          const [rule, band, ...rest] = spec.layer;
          spec.layer = [
            ...(line.length ? [rule] : []),
            ...(own.some((cell) => cell.low !== null) ? [band] : []), // one seed has none
            ...rest,
          ];
          for (const layer of spec.layer) Object.assign(layer.encoding.y, { title: unit, scale });
          overShots(spec, budgets);
        });
      }
    }
  }

  function costOf(cell, measure, what) {
    const value = cell[`${measure.key}_dense_minus_backbone_${what}`];
    return value === null ? null : measure.cost * measure.factor * value;
  }

  // The colour of text on a share, -1 to 1, of the palette: of black and white the one with more contrast (WCAG 2).
  function ink(share) {
    const colour = palette[Math.round((share + 1) * (palette.length - 1) / 2)];
    const parts = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16) / 255);
    const [red, green, blue] = parts.map((one) => (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue > 0.179 ? "#1c1c1c" : "#fff";
  }

  function drawCosts(chosen, picked, measure) {
    const note = document.getElementById("cost-note");
    const ramp = document.querySelector(".ramp");
    ramp.hidden = !measure.cost;
    if (!measure.cost) {
      const names = measures.filter((one) => one.cost).map((one) => one.label.toLowerCase());
      note.textContent = `A cost is shown of these measures alone: ${names.join(", ")}.`;
      return;
    }
    const kind = (cell) => axes.backbone[cell.backbone].kind;
    // one scale for all panels, whatever is chosen; a control may lie beyond it
    const sizes = cells.filter((cell) => kind(cell) === "compressed").map((cell) => Math.abs(costOf(cell, measure, "mean")));
    const limit = sizes.reduce((most, size) => Math.max(most, size), 0) || 1;
    const difference = measure.cost > 0 ? "Dense minus backbone" : "Backbone minus dense";
    note.textContent = `${difference}, ${measure.label.toLowerCase()}, in points: mean of the seed-paired differences. `
      + "Above zero compression costs, below it helps. Bold: the 95 % interval excludes zero, which is not corrected for the number of cells. A dash: it was not run.";
    const bar = element("i");
    bar.style.background = `linear-gradient(to right, ${palette.join(",")})`;
    ramp.replaceChildren(fixed(-limit, 1), bar, fixed(limit, 1, "+"));
    const shown = picked.backbone.filter((b) => axes.backbone[b].family !== axes.backbone[b].name);
    for (const d of picked.dataset) {
      for (const m of picked.method) {
        const own = chosen.filter((cell) => cell.dataset === d && cell.method === m && shown.includes(cell.backbone));
        if (!own.length) continue;
        const marked = own.map((cell) => {
          const [value, ...ends] = ["mean", "low", "high"].map((what) => costOf(cell, measure, what));
          const [low, high] = ends.sort((a, b) => a - b);
          const strong = low !== null && high !== null && (low > 0 || high < 0);
          const interval = low === null ? "no interval" : `${fixed(low, 1, "+")} to ${fixed(high, 1, "+")}`;
          const share = value === null ? null : Math.max(-1, Math.min(1, value / limit));
          return {
            ...named(cell), value, share, strong, seeds: cell.paired_seeds,
            text: fixed(value, Math.abs(value) < 9.95 ? 1 : 0, "+"),
            note: `${fixed(value, 1, "+")} points (${interval})`,
            ink: ink(share ?? 0),
          };
        });
        const [dataset, method] = [axes.dataset[d].label, axes.method[m].label];
        panel("costs", dataset, method, `Cost in ${measure.label} on ${dataset}, ${method}, by backbone and shots`,
          { cells: marked }, (spec) => {
            spec.height = 24 * shown.length;
            overShots(spec, axes.method[m].trains ? budgetsOf(d) : ["all"]);
          });
      }
    }
  }

  function drawReliability(picked) {
    for (const d of picked.dataset) {
      for (const b of picked.backbone) {
        const own = bins.filter((bin) => bin.dataset === d && bin.backbone === b && picked.method.includes(bin.method));
        const [dataset, backbone] = [axes.dataset[d].label, axes.backbone[b].label];
        if (own.length) {
          panel("reliability", backbone, dataset, `Reliability of ${backbone} on ${dataset}`, { bins: own.map(named) });
        }
      }
    }
  }

  // A cell or bin with the names that its numbers stand for.
  function named(cell) {
    const [backbone, method] = [axes.backbone[cell.backbone], axes.method[cell.method]];
    const { label, kind, shape, colour, family } = backbone;
    return {
      ...cell, label, kind, shape, colour, family, backbone: backbone.name, method: method.name, methodLabel: method.label,
      shots: cell.shots === undefined ? null : budget(cell),
    };
  }

  // Tables

  // Numbers by size, texts by alphabet, and nothing last in either direction.
  function compare(a, b, ascending) {
    const empty = (value) => value === null || value === "";
    if (empty(a) || empty(b)) return empty(a) - empty(b);
    const [x, y] = [Number(a), Number(b)];
    const order = Number.isNaN(x) || Number.isNaN(y) ? String(a).localeCompare(String(b), "en", { numeric: true }) : x - y;
    return ascending ? order : -order;
  }

  // Calls `reorder(column, ascending)` when a heading is pressed, which then says so.
  function sortable(table, reorder) {
    const headings = [...table.tHead.rows[0].cells];
    headings.forEach((heading, column) => {
      heading.querySelector("button").addEventListener("click", () => {
        const ascending = heading.ariaSort !== "ascending";
        for (const one of headings) one.ariaSort = "none";
        heading.ariaSort = ascending ? "ascending" : "descending";
        reorder(column, ascending);
      });
    });
  }

  function sortRows(table) {
    const key = (row, column) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    sortable(table, (column, ascending) => {
      const [body] = table.tBodies;
      body.append(...[...body.rows].sort((a, b) => compare(key(a, column), key(b, column), ascending)));
    });
  }

  const plain = (axis) => ({ value: (cell) => axes[axis][cell[axis]].label ?? axes[axis][cell[axis]] });
  function spread(key, factor, digits) {
    return {
      value: (cell) => cell[`${key}_mean`],
      text: ({ [`${key}_mean`]: mean, [`${key}_std`]: std }) => (mean === null ? "–"
        : fixed(mean * factor, digits) + (std === null ? "" : ` ± ${fixed(std * factor, digits)}`)),
    };
  }
  function cost(key) {
    const measure = measures.find((one) => one.key === key);
    return {
      value: (cell) => costOf(cell, measure, "mean"),
      text: (cell) => {
        const [mean, ...ends] = ["mean", "low", "high"].map((what) => costOf(cell, measure, what));
        const [low, high] = ends.sort((a, b) => a - b);
        return fixed(mean, 1, "+") + (low === null ? "" : ` [${fixed(low, 1, "+")}, ${fixed(high, 1, "+")}]`);
      },
    };
  }
  const COLUMNS = [
    ["Data set", plain("dataset")],
    ["Backbone", plain("backbone")],
    ["Method", plain("method")],
    ["Shots", { value: (cell) => cell.shots, text: (cell) => budget(cell) + (cell.classes_short ? " †" : "") }],
    ["Seeds", { value: (cell) => cell.seeds, text: (cell) => String(cell.seeds) }],
    ["Accuracy, %", spread("accuracy", 100, 1)],
    ["Cost in accuracy, points", cost("accuracy")],
    ["ECE, points", spread("ece", 100, 1)],
    ["Cost in ECE, points", cost("ece")],
    ["ECE after scaling, points", spread("ece_scaled", 100, 1)],
    ["Temperature", spread("temperature", 1, 2)],
    ["Negative log-likelihood", spread("nll", 1, 2)],
    ["Brier score", spread("brier", 1, 3)],
  ];
  const table = document.getElementById("cells");
  const more = document.getElementById("more");
  const listed = { cells: [], shown: PAGE, column: null, ascending: true };

  function listCells() {
    const { column, ascending, shown } = listed;
    const { value } = column === null ? {} : COLUMNS[column][1];
    const sorted = value ? listed.cells.toSorted((a, b) => compare(value(a), value(b), ascending)) : listed.cells;
    table.tBodies[0].replaceChildren(...sorted.slice(0, shown).map((cell) => element("tr", {}, ...COLUMNS.map(([, one]) =>
      element("td", { className: one.text ? "number" : "" }, (one.text ?? one.value)(cell))))));
    more.hidden = sorted.length <= shown;
    more.textContent = `Show more (${Math.min(shown, sorted.length)} of ${sorted.length})`;
  }

  function buildTables() {
    for (const one of document.querySelectorAll("table.sortable:not(#cells)")) sortRows(one);
    for (const [title] of COLUMNS) {
      const button = element("button", { type: "button" }, title);
      table.tHead.rows[0].append(element("th", { scope: "col", ariaSort: "none" }, button));
    }
    sortable(table, (column, ascending) => { Object.assign(listed, { column, ascending }); listCells(); });
    more.addEventListener("click", () => { listed.shown += PAGE; listCells(); });
  }

  function draw() {
    for (const view of views) view.finalize();
    views = [];
    waiting.clear();
    observer.disconnect();
    for (const one of document.querySelectorAll(".panels")) one.replaceChildren();
    const measure = measures.find((one) => one.key === form.measure.value);
    const picked = Object.fromEntries(Object.keys(AXES).map((axis) =>
      [axis, [...boxes[axis].keys()].filter((at) => boxes[axis][at].checked)]));
    const chosen = cells.filter((cell) => Object.keys(AXES).every((axis) => boxes[axis][cell[axis]].checked));
    const counts = Object.keys(AXES).map((axis) =>
      `${picked[axis].length} of ${axes[axis].length} ${AXES[axis].toLowerCase()}`);
    document.getElementById("chosen").textContent = `Shown: ${counts.join(", ")}; ${chosen.length} of ${cells.length} cells.`;
    document.querySelector("[data-measure]").textContent = measure.label;
    for (const key of document.querySelectorAll(".key")) {
      const of = key.dataset.of;
      key.replaceChildren(...picked[of].map((at) => element("span", {}, ...described(of, axes[of][at]))));
    }
    drawCurves(chosen, picked, measure);
    drawCosts(chosen, picked, measure);
    drawReliability(picked);
    Object.assign(listed, { cells: chosen, shown: PAGE });
    listCells();
    const round = ++rounds;
    whenIdle(() => showRest(round));
  }

  // In print nothing is folded.
  let folded = [];
  function unfold() {
    folded = [...document.querySelectorAll("details:not([open])")];
    for (const one of folded) one.open = true;
  }
  window.addEventListener("beforeprint", unfold);
  window.addEventListener("afterprint", () => { for (const one of folded) one.open = false; });

  buildFilter();
  buildTables();
  draw();
})();
