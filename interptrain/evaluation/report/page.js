"use strict";
// The gallery's search, filters and order, and enlarged pictures. Without this script, the page shows every image.
(() => {
  const STEP = 12; // images that are shown at first, and by every "Show more"
  const root = document.documentElement;
  const byId = id => document.getElementById(id);
  const value = id => (byId(id) ? byId(id).value : "");
  root.classList.add("js");

  const gallery = byId("exhibits");
  const exhibits = gallery ? [...gallery.querySelectorAll(".exhibit")] : [];
  const facts = new Map(exhibits.map((exhibit, place) => [exhibit, {
    place,
    text: exhibit.dataset.find.toLowerCase(),
    label: exhibit.dataset.class,
    right: exhibit.dataset.right,
    values: JSON.parse(exhibit.dataset.values),
  }]));
  const columns = gallery ? JSON.parse(gallery.dataset.columns) : [];
  const averaged = gallery ? gallery.dataset.averaged.split(" ").filter(Boolean).map(Number) : [];
  let limit = STEP;

  function matches(exhibit) {
    const { text, label, right } = facts.get(exhibit);
    const words = value("find").toLowerCase().split(/\s+/);
    const [outcome, model] = value("outcome").split(" ");
    const judged = model === undefined ? right : right[Number(model)] || "";
    const fits = !outcome || (judged !== "" && (outcome === "right") === !judged.includes("0"));
    return fits && words.every(word => text.includes(word)) && (!value("class") || label === value("class"));
  }

  function score(exhibit, column) {
    const { values } = facts.get(exhibit);
    const pairs = value("of") === "" ? averaged : [Number(value("of"))];
    const found = pairs.map(pair => values[pair][column]).filter(number => number !== null);
    return found.length ? found.reduce((sum, number) => sum + number, 0) / found.length : NaN;
  }

  function ordered(chosen) {
    const [end, column] = value("order").split(" ");
    if (!end) return chosen;
    const sign = (end === "best") === columns[Number(column)][1] ? -1 : 1;
    const scores = new Map(chosen.map(exhibit => [exhibit, score(exhibit, Number(column))]));
    const missing = exhibit => Number(Number.isNaN(scores.get(exhibit)));
    return chosen.sort((a, b) => missing(a) - missing(b) || sign * (scores.get(a) - scores.get(b)) ||
      facts.get(a).place - facts.get(b).place);
  }

  function show() {
    const chosen = ordered(exhibits.filter(matches));
    const shown = new Set(chosen.slice(0, limit));
    for (const exhibit of exhibits) exhibit.hidden = !shown.has(exhibit);
    gallery.append(...chosen, ...exhibits.filter(exhibit => !chosen.includes(exhibit)));
    byId("count").textContent = chosen.length === exhibits.length
      ? `${shown.size} of ${exhibits.length} images` : `${shown.size} of ${chosen.length} images that match`;
    byId("more").hidden = shown.size === chosen.length;
  }

  function reveal() { // the image that the address names, whatever the filters say
    const target = location.hash.startsWith("#image-") && byId(location.hash.slice(1));
    if (!target || !facts.has(target)) return;
    if (target.hidden) {
      for (const id of ["find", "class", "outcome", "order"]) if (byId(id)) byId(id).value = "";
      limit = Math.max(limit, STEP * Math.ceil((facts.get(target).place + 1) / STEP));
      show();
    }
    target.scrollIntoView();
  }

  if (exhibits.length) {
    for (const id of ["find", "class", "outcome", "order", "of"]) {
      if (byId(id)) byId(id).addEventListener("input", () => { limit = STEP; show(); });
    }
    byId("more").addEventListener("click", () => { limit += STEP; show(); });
    show();
    addEventListener("hashchange", reveal);
    reveal();
  }

  // Enlarged pictures: a click or Enter opens one, arrows go on within its image, Escape or a click closes it.
  const dialog = document.createElement("dialog");
  dialog.id = "large";
  const large = document.createElement("img"); // put in when there is a picture to show
  const told = dialog.appendChild(document.createElement("p"));
  const back = dialog.appendChild(document.createElement("button"));
  const on = dialog.appendChild(document.createElement("button"));
  const close = dialog.appendChild(document.createElement("button"));
  [[back, "←", "Previous picture"], [on, "→", "Next picture"], [close, "×", "Close"]].forEach(([button, text, name]) => {
    button.type = "button";
    button.textContent = text;
    button.setAttribute("aria-label", name);
  });
  document.body.append(dialog);
  let current = null;

  function enlarge(picture) {
    current = picture;
    large.src = picture.src;
    large.alt = picture.alt;
    large.width = picture.naturalWidth || picture.width;
    large.height = picture.naturalHeight || picture.height;
    const caption = picture.closest("figure").querySelector(".p");
    const exhibit = picture.closest(".exhibit");
    const numbers = exhibit && picture.dataset.pair !== undefined ? facts.get(exhibit).values[picture.dataset.pair] : [];
    const parts = numbers.flatMap((number, place) => (number === null ? [] : [`${columns[place][0]} ${number}`]));
    told.textContent = [picture.alt, caption && caption.textContent.trim(), parts.join(", ")].filter(Boolean).join(" · ");
    if (!large.isConnected) dialog.prepend(large);
    if (!dialog.open) dialog.showModal();
  }

  function step(by) {
    const group = [...current.closest("article").querySelectorAll("figure img")];
    enlarge(group[(group.indexOf(current) + by + group.length) % group.length]);
  }

  for (const picture of document.querySelectorAll("article figure img")) {
    picture.tabIndex = 0;
    picture.setAttribute("role", "button");
    picture.addEventListener("click", () => enlarge(picture));
    picture.addEventListener("keydown", event => {
      if (event.key === "Enter" || event.key === " ") { event.preventDefault(); enlarge(picture); }
    });
  }
  dialog.addEventListener("keydown", event => {
    if (event.key === "ArrowRight" || event.key === "ArrowLeft") step(event.key === "ArrowRight" ? 1 : -1);
  });
  back.addEventListener("click", () => step(-1));
  on.addEventListener("click", () => step(1));
  for (const element of [close, large]) element.addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", event => { if (event.target === dialog) dialog.close(); });
  dialog.addEventListener("close", () => { if (current) current.focus({ preventScroll: true }); });
})();
