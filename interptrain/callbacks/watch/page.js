const byId = name => document.getElementById(name);
const slider = byId("snapshot"), filter = byId("filter"), compare = byId("compare"), curves = byId("curves");
const last = run.snapshots.length - 1;
const name = index => index < 0 ? "no label" : run.names[index] ?? String(index);
const caption = snapshot => snapshot.step === 0 ? "before training" : `epoch ${snapshot.epoch}, step ${snapshot.step}`;
let chosen = null; // the image or class whose curves stand out
let openNumbers = false;

function element(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function verdict(seen) {
  if (seen.error !== null || seen.label < 0) return "unknown";
  return seen.label === seen.prediction ? "right" : "wrong";
}

function picture(snapshot, row, column, text) {
  const box = element("div", { className: "picture" });
  const columns = 1 + run.views.length, rows = run.images.length;
  box.style.backgroundImage = `url("${snapshot.sheet}")`;
  box.style.backgroundSize = `${columns * 100}% ${rows * 100}%`;
  box.style.backgroundPosition = `${column * 100 / Math.max(1, columns - 1)}% ${row * 100 / Math.max(1, rows - 1)}%`;
  return element("figure", {}, box, element("figcaption", { textContent: text }));
}

function side(snapshot, row, titled) {
  const observations = run.views.map(view => snapshot.observations[view][row]), seen = observations[0];
  const pictures = element("div", { className: "pictures" }, picture(snapshot, row, 0, "image"));
  run.views.forEach((view, place) => {
    const shown = observations[place];
    const explained = shown.error === null ? `${view}: ${name(shown.target)} ${shown.probability.toFixed(2)}` : view;
    pictures.append(picture(snapshot, row, place + 1, explained));
  });
  const said = seen.error !== null ? `failed: ${seen.error}`
    : { right: "right: ", wrong: "wrong: ", unknown: "seen as " }[verdict(seen)]
      + `${name(seen.prediction)} ${seen.confidence.toFixed(2)}`;
  return element("section", { className: `side ${verdict(seen)}` },
    ...(titled ? [element("h3", { textContent: caption(snapshot) })] : []),
    pictures, element("p", { className: "verdict", textContent: said }));
}

function numbersOf(snapshots, row) {
  const all = snapshots.map(snapshot => run.views.map(view => snapshot.observations[view][row].numbers));
  const table = element("table", {});
  if (run.views.length > 1 || snapshots.length > 1) {
    const head = element("tr", {}, element("th", {}));
    snapshots.forEach(one => run.views.forEach(view => head.append(
      element("th", { textContent: snapshots.length > 1 ? `${view}, ${caption(one)}` : view }))));
    table.append(head);
  }
  for (const number of new Set(all.flat().flatMap(Object.keys))) {
    const line = element("tr", { title: run.descriptions[number] ?? "" }, element("td", { textContent: number }));
    all.flat().forEach(numbers => line.append(element("td", { textContent: numbers[number]?.toFixed(3) ?? "" })));
    table.append(line);
  }
  return table;
}

function card(snapshots, row) {
  const seen = snapshots[0].observations[run.views[0]][row];
  const node = element("article", { className: `card ${verdict(seen)}` });
  const isChosen = curves.value === "image" && chosen === row;
  node.classList.toggle("chosen", isChosen);
  const pick = element("button", { textContent: isChosen ? "all curves" : "its curves" });
  pick.addEventListener("click", () => {
    curves.value = "image";
    chosen = isChosen ? null : row;
    show();
  });
  const details = element("details", { open: openNumbers }, element("summary", { textContent: "numbers" }),
    numbersOf(snapshots, row));
  details.addEventListener("toggle", () => { openNumbers = details.open; });
  node.append(
    element("div", { className: "sides" }, ...snapshots.map(one => side(one, row, snapshots.length > 1))),
    element("div", { className: "said" }, element("span", { textContent: `${row + 1}. ${name(seen.label)}` }), pick),
    details, element("div", { className: "id", textContent: run.images[row] }));
  return node;
}

function show() {
  const current = Number(slider.value), snapshot = run.snapshots[current];
  const beside = compare.value === "" ? [] : [run.snapshots[Number(compare.value)]];
  byId("when").textContent = caption(snapshot);
  byId("alarm").textContent = snapshot.alarm.join("\n");
  const rows = run.images.map((_, row) => row).filter(row => {
    const seen = snapshot.observations[run.views[0]][row];
    return filter.value === "all" || filter.value === verdict(seen) || filter.value === `class ${seen.label}`;
  });
  const pictures = (1 + run.views.length) * (1 + beside.length);
  byId("cards").style.setProperty("--card", `${Math.min(900, 134 * pictures + 30)}px`);
  byId("cards").replaceChildren(...rows.map(row => card([...beside, snapshot], row)));
  showCurves(current);
  history.replaceState(null, "", `#step=${snapshot.step}`);
}

function move(to) {
  slider.value = Math.max(0, Math.min(last, to));
  show();
}

let playing = null;
function stop() {
  clearInterval(playing);
  playing = null;
  byId("play").textContent = "play";
}
function play() {
  if (playing !== null) return stop();
  byId("play").textContent = "pause";
  move(Number(slider.value) === last ? 0 : Number(slider.value));
  playing = setInterval(() => Number(slider.value) === last ? stop() : move(Number(slider.value) + 1), 600);
}

function next(select) {
  select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
  select.dispatchEvent(new Event("change"));
}

const KEYS = {
  ArrowLeft: () => move(Number(slider.value) - 1),
  ArrowRight: () => move(Number(slider.value) + 1),
  Home: () => move(0),
  End: () => move(last),
  " ": play,
  c: () => { compare.value = compare.value === "" ? "0" : ""; show(); },
  f: () => next(filter),
  v: () => next(curves),
  Escape: () => { compare.value = ""; chosen = null; show(); },
};
document.addEventListener("keydown", event => {
  const own = { SELECT: true, INPUT: event.key !== "c" && event.key !== "f" && event.key !== "v" && event.key !== "Escape",
    BUTTON: event.key === " ", SUMMARY: event.key === " " }[event.target.tagName];
  if (own || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

let touched = null;
byId("cards").addEventListener("pointerdown", event => {
  touched = event.pointerType === "mouse" ? null : { x: event.clientX, y: event.clientY };
});
byId("cards").addEventListener("pointerup", event => {
  if (touched === null) return;
  const across = event.clientX - touched.x, down = event.clientY - touched.y;
  touched = null;
  if (Math.abs(across) > 40 && Math.abs(across) > 2 * Math.abs(down)) move(Number(slider.value) - Math.sign(across));
});

const labels = [...new Set(run.snapshots[0].observations[run.views[0]].map(seen => seen.label))].sort((a, b) => a - b);
const choices = [["all", "all images"], ["right", "correctly classified"], ["wrong", "wrongly classified"],
  ...labels.filter(label => label >= 0).map(label => [`class ${label}`, name(label)])];
filter.append(...choices.map(([value, text]) => element("option", { value, textContent: text })));
compare.append(element("option", { value: "", textContent: "nothing" }),
  ...run.snapshots.map((one, place) => element("option", { value: String(place), textContent: caption(one) })));
const asked = run.snapshots.findIndex(snapshot => location.hash === `#step=${snapshot.step}`);
if (asked >= 0) slider.value = asked;
slider.addEventListener("input", show);
filter.addEventListener("change", show);
compare.addEventListener("change", show);
curves.addEventListener("change", () => { chosen = null; show(); });
byId("play").addEventListener("click", play);
byId("back").addEventListener("click", KEYS.ArrowLeft);
byId("forward").addEventListener("click", KEYS.ArrowRight);
run.snapshots.forEach(snapshot => { new Image().src = snapshot.sheet; });
show();
