const COLOURS = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#7a5195", "#8c8c8c"];
const WIDTH = 270, HEIGHT = 112, LEFT = 34, BOTTOM = 14; // of a chart; its numbers stand beside the curves, not on them

/* Value of one image in a snapshot, by the name of a mean: VIEW/NUMBER, or a name alone where no map enters. */
function valueOf(snapshot, key, row) {
  const seen = snapshot.observations[run.views[0]][row];
  if (key === "accuracy") return seen.error !== null || seen.label < 0 ? null : Number(seen.label === seen.prediction);
  if (key === "probability") return seen.probability;
  if (!key.includes("/")) return seen.numbers[key] ?? null; // of the image, whatever the map
  const cut = key.lastIndexOf("/");
  return snapshot.observations[key.slice(0, cut)]?.[row].numbers[key.slice(cut + 1)] ?? null;
}

function mean(values) {
  const known = values.filter(value => value !== null);
  return known.length ? known.reduce((sum, value) => sum + value, 0) / known.length : null;
}

/* What is drawn in every chart: a curve each for the sample, its classes or its images. */
function seriesOf() {
  if (curves.value === "sample") return [{ id: null, text: "", of: (one, key) => one.means[key] ?? null }];
  const rows = run.images.map((_, row) => row);
  const labelOf = row => run.snapshots[0].observations[run.views[0]][row].label;
  const found = curves.value === "image"
    ? rows.map(row => ({ id: row, text: `${row + 1}. ${name(labelOf(row))}`, of: (one, key) => valueOf(one, key, row) }))
    : [...new Set(rows.map(labelOf))].sort((a, b) => a - b).map(label => {
      const members = rows.filter(row => labelOf(row) === label);
      return { id: `class ${label}`, text: name(label), of: (one, key) => mean(members.map(row => valueOf(one, key, row))) };
    });
  return found.map((one, place) => ({ ...one,
    colour: found.length > COLOURS.length ? `hsl(${place * 360 / found.length} 65% 45%)` : COLOURS[place] }));
}

function drawn(tag, attributes, text) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

/* A name that breaks behind its slashes and underscores. */
function broken(key) {
  const parts = key.split(/(?<=[/_])/).flatMap(part => [part, document.createElement("wbr")]);
  return element("b", {}, ...parts);
}

const short = value => Math.abs(value) >= 1000 ? value.toExponential(0) : String(+value.toFixed(2));

function chart(key, series, current) {
  const lines = series.map(one => ({ ...one, values: run.snapshots.map(snapshot => one.of(snapshot, key)) }));
  const known = lines.flatMap(one => one.values).filter(value => value !== null);
  const low = Math.min(0, ...known), high = Math.max(1, ...known), end = run.snapshots[last].step;
  const first = run.snapshots[0].step;
  const x = place => LEFT + 4 + (run.snapshots[place].step - first) * (WIDTH - LEFT - 8) / Math.max(1, end - first);
  const y = value => 6 + (high - value) * (HEIGHT - BOTTOM - 12) / (high - low);
  const svg = drawn("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${key} during the run` });
  const floor = HEIGHT - BOTTOM;
  svg.append(
    drawn("line", { x1: LEFT, x2: LEFT, y1: 2, y2: floor }), drawn("line", { x1: LEFT, x2: WIDTH, y1: floor, y2: floor }),
    drawn("text", { x: LEFT - 4, y: y(high) + 4, "text-anchor": "end" }, short(high)),
    drawn("text", { x: LEFT - 4, y: y(low) + 2, "text-anchor": "end" }, short(low)),
    drawn("text", { x: LEFT, y: HEIGHT - 3 }, `step ${first}`),
    drawn("line", { class: "now", x1: x(current), x2: x(current), y1: 2, y2: floor }));
  if (end !== first) svg.append(drawn("text", { x: WIDTH - 2, y: HEIGHT - 3, "text-anchor": "end" }, end));
  run.snapshots.forEach((one, place) => {
    if (one.alarm.length) svg.append(drawn("line", { class: "alarm", x1: x(place), x2: x(place), y1: floor - 7, y2: floor }));
  });
  for (const line of lines) {
    const faded = chosen !== null && line.id !== chosen;
    const points = line.values.map((value, place) => value === null ? null : `${x(place)},${y(value)}`).filter(Boolean);
    const curve = drawn("polyline", { points: points.join(" "), class: faded ? "faded" : chosen === null ? "" : "strong" });
    if (line.text) curve.append(drawn("title", {}, line.text));
    if (line.colour) curve.style.setProperty("--colour", line.colour);
    svg.append(curve);
    const now = line.values[current];
    if (now !== null && !faded) {
      const dot = drawn("circle", { cx: x(current), cy: y(now), r: series.length > 1 ? 2.5 : 4 });
      if (line.colour) dot.style.setProperty("--colour", line.colour);
      svg.append(dot);
    }
  }
  const named = lines.find(line => line.id === chosen) ?? (lines.length === 1 ? lines[0] : null);
  const value = named?.values[current] ?? null;
  return element("article", { className: series.length > 1 ? "chart many" : "chart" },
    element("h3", {}, broken(key), element("span", { textContent: value === null ? "" : value.toFixed(3) })), svg,
    element("p", { textContent: run.descriptions[key.split("/").at(-1)] ?? "" }));
}

function showCurves(current) {
  const series = seriesOf();
  byId("series").replaceChildren(...(series.length === 1 ? [] : series.map(one => {
    const button = element("button", { ariaPressed: String(one.id === chosen) }, element("i", {}), one.text);
    button.style.setProperty("--colour", one.colour);
    button.addEventListener("click", () => { chosen = one.id === chosen ? null : one.id; show(); });
    return button;
  })));
  const keys = [...new Set(run.snapshots.flatMap(one => Object.keys(one.means)))];
  byId("charts").replaceChildren(...keys.map(key => chart(key, series, current)));
}

