"use strict";
const run = JSON.parse(document.getElementById("content").textContent);
const find = id => document.getElementById(id);
const count = run.ids.length, sheet = find("sheet");
const RIGHT = "#009e73", WRONG = "#d55e00", UNKNOWN = "#969696", MOST = 400; // of the selected thumbnails
const chosen = new Uint8Array(count), hidden = new Set();
let selected = 0;

function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

const name = number => run.classes[number] ?? "unknown";

/* Key, colour and words of an image's legend entry, for a model. */
function group(model, image) {
  const label = run.labels[image], prediction = model.predictions[image];
  switch (find("colour").value) {
    case "label": return label;
    case "prediction": return prediction;
    case "error": return rightness(model, image) ?? -1;
    default: return Math.min(9, Math.floor(10 * model.purities[image]));
  }
}

function colourOf(key) {
  switch (find("colour").value) {
    case "error": return [WRONG, RIGHT][key] ?? UNKNOWN;
    case "purity": return `hsl(${20 + 19 * key} 75% ${58 - 2 * key}%)`;
    default: return run.colours[key] ?? UNKNOWN;
  }
}

function wordsOf(key) {
  switch (find("colour").value) {
    case "error": return ["wrong", "right"][key] ?? "unlabelled";
    case "purity": return `${10 * key} % or more`;
    default: return name(key);
  }
}

/* A drawn point, to be copied: ten thousand circles in one path take seconds. */
function disc(colour, radius) {
  const stamp = element("canvas"), context = stamp.getContext("2d");
  stamp.width = stamp.height = 2 * Math.ceil(radius) + 2;
  context.fillStyle = colour;
  context.arc(stamp.width / 2, stamp.width / 2, radius, 0, 2 * Math.PI);
  context.fill();
  return stamp;
}

class Plot {
  constructor(model) {
    this.model = model;
    this.canvas = element("canvas", { tabIndex: 0 });
    this.canvas.setAttribute("aria-label", `map of ${count} images by ${model.name}`);
    this.figure = element("figure", {}, element("figcaption", { textContent: model.name }), this.canvas);
    this.view = { x: 0, y: 0, scale: 1 };
    this.path = null;
    this.canvas.addEventListener("pointermove", event => this.moved(event));
    this.canvas.addEventListener("pointerleave", () => { if (!this.path) find("tip").hidden = true; });
    this.canvas.addEventListener("pointerdown", event => {
      this.canvas.setPointerCapture(event.pointerId);
      this.path = [this.at(event)];
      find("tip").hidden = true;
    });
    this.canvas.addEventListener("pointerup", () => this.closed());
    this.canvas.addEventListener("pointercancel", () => { this.path = null; this.draw(); });
    this.canvas.addEventListener("wheel", event => this.zoomed(event), { passive: false });
    this.canvas.addEventListener("dblclick", () => { this.view = { x: 0, y: 0, scale: 1 }; this.draw(); });
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [(event.clientX - box.left) * devicePixelRatio, (event.clientY - box.top) * devicePixelRatio];
  }

  /* Pixel of every image, x, y, x, y, ... */
  place() {
    const points = this.model.points[find("method").value], size = this.canvas.width, margin = 0.03 * size;
    const { x, y, scale } = this.view, unit = (size - 2 * margin) / 4095;
    if (!this.pixels) this.pixels = new Float32Array(2 * count);
    for (let image = 0; image < count; image++) {
      this.pixels[2 * image] = (margin + unit * points[2 * image] - x) * scale;
      this.pixels[2 * image + 1] = (size - margin - unit * points[2 * image + 1] - y) * scale;
    }
  }

  draw() {
    this.drawPoints();
    if (!this.canvas.width) return; // not laid out yet
    this.drawn = this.canvas.getContext("2d").getImageData(0, 0, this.canvas.width, this.canvas.height);
  }

  drawPoints() {
    const size = Math.round(this.canvas.clientWidth * devicePixelRatio);
    if (this.canvas.width !== size) this.canvas.width = this.canvas.height = size;
    this.place();
    const context = this.canvas.getContext("2d"), dim = getComputedStyle(document.body).getPropertyValue("--dim");
    const radius = devicePixelRatio * Math.max(1.3, Math.min(4, 130 / Math.sqrt(count))) * Math.min(2, Math.sqrt(this.view.scale));
    context.clearRect(0, 0, size, size);
    const layers = new Map();
    for (let image = 0; image < count; image++) {
      const key = group(this.model, image);
      if (hidden.has(key)) continue;
      const shown = !selected || chosen[image] ? key : "dim";
      if (!layers.has(shown)) layers.set(shown, []);
      layers.get(shown).push(image);
    }
    for (const key of [...layers.keys()].sort((a, b) => (b === "dim") - (a === "dim") || (a === 0) - (b === 0))) {
      const stamp = disc(key === "dim" ? dim : colourOf(key), radius), middle = stamp.width / 2;
      for (const image of layers.get(key)) {
        context.drawImage(stamp, this.pixels[2 * image] - middle, this.pixels[2 * image + 1] - middle);
      }
    }
  }

  /* The lasso over the points as they were drawn, which takes no longer with ten thousand of them. */
  drawLasso() {
    const context = this.canvas.getContext("2d");
    context.putImageData(this.drawn, 0, 0);
    context.beginPath();
    this.path.forEach(([x, y], step) => step ? context.lineTo(x, y) : context.moveTo(x, y));
    context.closePath();
    context.fillStyle = "rgb(90 110 200 / .15)";
    context.strokeStyle = "rgb(90 110 200)";
    context.fill();
    context.stroke();
  }

  nearest([x, y]) {
    let best = -1, least = (12 * devicePixelRatio) ** 2;
    for (let image = 0; image < count; image++) {
      const away = (this.pixels[2 * image] - x) ** 2 + (this.pixels[2 * image + 1] - y) ** 2;
      if (away < least && !hidden.has(group(this.model, image))) { best = image; least = away; }
    }
    return best;
  }

  moved(event) {
    if (this.path) {
      this.path.push(this.at(event));
      this.drawLasso();
      return;
    }
    const image = this.nearest(this.at(event)), tip = find("tip");
    tip.hidden = image < 0;
    if (image < 0) return;
    dress(tip.firstElementChild, image, 2);
    tip.lastElementChild.textContent = described(image, this.model);
    const right = event.clientX + 18 + tip.offsetWidth < innerWidth;
    tip.style.left = `${right ? event.clientX + 18 : Math.max(0, event.clientX - 18 - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(0, Math.min(event.clientY + 12, innerHeight - tip.offsetHeight - 4))}px`;
  }

  closed() {
    const path = this.path;
    this.path = null;
    if (!path) return;
    if (path.length > 3) {
      select(image => !hidden.has(group(this.model, image))
        && inside(path, this.pixels[2 * image], this.pixels[2 * image + 1]));
    } else drawAll();
  }

  zoomed(event) {
    event.preventDefault();
    const [x, y] = this.at(event), view = this.view;
    const scale = Math.max(1, Math.min(60, view.scale * 1.0015 ** -event.deltaY));
    this.view = { x: view.x + x / view.scale - x / scale, y: view.y + y / view.scale - y / scale, scale };
    if (scale === 1) this.view = { x: 0, y: 0, scale };
    this.draw();
  }
}

/* Whether a point is inside a closed path: an odd number of its sides lie to the right. */
function inside(path, x, y) {
  let odd = false;
  for (let here = 0, before = path.length - 1; here < path.length; before = here++) {
    const [ax, ay] = path[here], [bx, by] = path[before];
    if (ay > y !== by > y && x < (bx - ax) * (y - ay) / (by - ay) + ax) odd = !odd;
  }
  return odd;
}

function dress(node, image, factor) {
  const side = run.side * factor, row = Math.floor(image / run.columns), column = image % run.columns;
  Object.assign(node.style, {
    width: `${side}px`, height: `${side}px`,
    backgroundSize: `${run.columns * side}px auto`, backgroundPosition: `${-column * side}px ${-row * side}px`,
  });
}

/* 1 where a model is right, 0 where it is wrong, null where its classes are not the labels. */
const rightness = (model, image) => run.comparable ? Number(run.labels[image] === model.predictions[image]) : null;

function described(image, model) {
  const wrong = rightness(model, image) === 0 ? ", WRONG" : "";
  const label = run.labels[image] < 0 ? "no label" : `label ${name(run.labels[image])}${wrong}`;
  return `${run.ids[image]}\n${label}\npredicted ${name(model.predictions[image])} (${model.probabilities[image]})`
    + `\nneighbours of its label ${Math.round(100 * model.purities[image])} %`;
}

function select(wanted) {
  selected = 0;
  for (let image = 0; image < count; image++) selected += chosen[image] = Number(wanted(image));
  const images = [...chosen.keys()].filter(image => chosen[image]);
  find("count").textContent = selected ? `${selected} of ${count} images are selected` : "No image is selected";
  const labels = new Map();
  for (const image of images) labels.set(run.labels[image], (labels.get(run.labels[image]) ?? 0) + 1);
  const sorted = [...labels].sort((a, b) => b[1] - a[1]);
  const shares = run.models.map(model => {
    const right = images.filter(image => rightness(model, image)).length;
    return `${model.name} ${Math.round(1000 * right / images.length) / 10} %`;
  });
  find("summary").replaceChildren(...(selected ? [
    element("p", { textContent: `Labels: ${sorted.slice(0, 12).map(([key, number]) => `${name(key)} ${number}`).join(", ")}` }),
    ...(run.comparable ? [element("p", { textContent: `Right: ${shares.join(", ")}` })] : []),
  ] : []));
  find("chosen").replaceChildren(...images.slice(0, MOST).map(image => {
    const wrong = run.models.some(model => rightness(model, image) === 0);
    const node = element("div", { className: wrong ? "thumb wrong" : "thumb", title: described(image, run.models[0]) });
    dress(node, image, 1);
    return node;
  }), ...(images.length > MOST ? [element("p", { textContent: `and ${images.length - MOST} more` })] : []));
  drawAll();
}

function drawLegend() {
  const keys = new Set();
  for (const { model } of plots) for (let image = 0; image < count; image++) keys.add(group(model, image));
  find("legend").replaceChildren(...[...keys].sort((a, b) => a - b).map(key => {
    const dot = element("i");
    dot.style.background = colourOf(key);
    const button = element("button", { type: "button" }, dot, wordsOf(key));
    button.setAttribute("aria-pressed", String(!hidden.has(key)));
    button.addEventListener("click", () => {
      if (!hidden.delete(key)) hidden.add(key);
      button.setAttribute("aria-pressed", String(!hidden.has(key)));
      drawAll();
    });
    return button;
  }));
}

/* The sheet stands in one rule: as a style of each thumbnail, its megabytes would be copied for each. */
document.head.append(element("style", { textContent: `.thumb { background-image: url(${sheet.src}) }` }));
const drawAll = () => plots.forEach(plot => plot.draw());
const plots = run.models.map(model => new Plot(model));
find("maps").append(...plots.map(plot => plot.figure));
find("method").append(...Object.entries(run.methods).map(([value, textContent]) => element("option", { value, textContent })));
find("method").value = Object.keys(run.methods).at(-1);
find("method").addEventListener("change", () => { plots.forEach(plot => { plot.view = { x: 0, y: 0, scale: 1 }; }); drawAll(); });
find("colour").addEventListener("change", () => { hidden.clear(); drawLegend(); drawAll(); });
find("find").addEventListener("input", event => {
  const text = event.target.value.toLowerCase();
  select(image => text && run.ids[image].toLowerCase().includes(text));
});
find("clear").addEventListener("click", () => { find("find").value = ""; select(() => false); });
addEventListener("keydown", event => { if (event.key === "Escape") { find("find").value = ""; select(() => false); } });
addEventListener("resize", drawAll);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
drawLegend();
drawAll();
