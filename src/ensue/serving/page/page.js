// The page: a history, what comes next and why, two models side by side, and live metrics.
// Every text from the server is set as text, never as HTML.
"use strict";

const K = 10;
const POLL_MS = 2000;
const POINTS = 60;
const byId = (id) => document.getElementById(id);
const state = { history: [], models: [], answer: null, chosen: null, turn: 0, rates: [], last: null };

function element(tag, attributes, ...children) {
  const result = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) result.addEventListener(name.slice(2), value);
    else result.setAttribute(name, value);
  }
  result.append(...children);
  return result;
}

function named(item) {
  return item.title ?? String(item.item);
}

function say(text) {
  byId("message").textContent = text;
  byId("message").hidden = !text;
}

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Error(`${answer.error.field}: ${answer.error.rule}`);
  return answer;
}

// Runs a task; its error is shown to the reader.
async function attempt(task) {
  try {
    await task();
    say("");
  } catch (error) {
    say(error instanceof TypeError ? "The server does not answer." : error.message);
  }
}

function query(path, parameters) {
  const words = new URLSearchParams();
  for (const [name, value] of parameters) words.append(name, value);
  return `${path}?${words}`;
}

// The history

function add(item) {
  // Models of times read the moment of the click; the others ignore it.
  state.history.push({ ...item, time: Math.floor(Date.now() / 1000) });
  state.chosen = null;
  byId("search").value = "";
  byId("matches").replaceChildren();
  update();
}

function remove(place) {
  state.history.splice(place, 1);
  state.chosen = null;
  update();
}

async function search() {
  const words = byId("search").value;
  if (!words.trim()) {
    byId("matches").replaceChildren();
    return;
  }
  const answer = await ask(query("/items", [["q", words], ["k", 8]]));
  if (words !== byId("search").value) return;
  const rows = answer.items.map((item) => element("li", {},
    element("button", { onclick: () => { add(item); byId("search").focus(); } }, named(item))));
  byId("matches").replaceChildren(...(rows.length ? rows : [element("li", {}, "no item has these words")]));
}

function showHistory(influence) {
  const rows = state.history.map((item, place) => element("li", {},
    element("span", { class: "text" }, named(item)),
    ...(influence === undefined ? [] : [change(influence[place])]),
    element("button", { "aria-label": `Remove ${named(item)}`, onclick: () => remove(place) }, "×")));
  byId("history").replaceChildren(...rows);
  byId("empty").hidden = state.history.length > 0;
  byId("clear").hidden = !state.history.length;
}

function change(value) {
  if (value === undefined) return element("span", { class: "influence", title: "the model does not read it" }, "–");
  if (value === null) return element("span", { class: "influence" }, "only event");
  const text = (value < 0 ? "−" : "+") + Math.abs(value).toFixed(2);
  return element("span", { class: `influence ${value < 0 ? "against" : "for"}` }, text);
}

// What comes next

function request(model) {
  const times = state.history.map((item) => item.time);
  return { history: state.history.map((item) => item.item), times, k: K, ...(model ? { model } : {}) };
}

async function update() {
  const turn = ++state.turn;
  showHistory();
  byId("similar").hidden = true;
  await attempt(async () => {
    const answer = await ask("/recommend", request());
    if (turn !== state.turn) return;
    state.answer = answer;
    showItems(null);
    if (state.history.length && answer.items.length && answer.source === "model") {
      const explanation = await ask(query("/explain", [
        ...state.history.map((item) => ["history", item.item]), ...state.history.map((item) => ["times", item.time]),
        ...answer.items.map((item) => ["item", item.item]),
      ]));
      if (turn === state.turn) showItems(explanation);
    }
    if (turn === state.turn) await compare();
  });
}

// The influences of an item by the places of the history: the model reads the newest events only.
function influences(explanation, place) {
  const values = explanation.items[place].influence;
  const before = state.history.length - values.length;
  return state.history.map((_, event) => (event < before ? undefined : values[event - before]));
}

function reason(explanation, place) {
  const values = influences(explanation, place);
  if (values.length === 1) return `after ${named(state.history[0])}`;
  let best = -1;
  values.forEach((value, event) => {
    if (value !== undefined && (best < 0 || value > values[best])) best = event;
  });
  if (best < 0 || values[best] <= 0) return "no single event speaks for it";
  return `mostly because of ${named(state.history[best])} (+${values[best].toFixed(2)})`;
}

function showItems(explanation) {
  const answer = state.answer;
  const sources = { model: "", popular: "the most popular items", trending: "items of recent events" };
  byId("source").textContent = sources[answer.source];
  const rows = answer.items.map((item, place) => {
    const row = itemRow(item, place, answer.items, explanation ? reason(explanation, place) : "");
    if (explanation) row.append(element("button", { "aria-pressed": String(state.chosen === place), onclick: () => {
      state.chosen = state.chosen === place ? null : place;
      showItems(explanation);
      byId("items").children[place].querySelector("[aria-pressed]").focus();
    } }, "Why"));
    row.append(element("button", { onclick: () => attempt(() => similar(item)) }, "Similar"));
    row.classList.toggle("is-chosen", state.chosen === place);
    return row;
  });
  byId("items").replaceChildren(...rows);
  if (explanation) showHistory(state.chosen === null ? undefined : influences(explanation, state.chosen));
}

function itemRow(item, place, items, why) {
  const scores = items.map((each) => each.score);
  const low = Math.min(...scores), high = Math.max(...scores);
  const score = element("span", { class: "score", title: "score" }, item.score.toFixed(3));
  score.style.setProperty("--part", `${high > low ? 15 + 85 * (item.score - low) / (high - low) : 100}%`);
  const title = element("button", { class: "title", title: "add to the history", onclick: () => add(item) }, named(item));
  return element("li", {}, element("span", { class: "rank" }, String(place + 1)),
    element("span", { class: "text" }, title, ...(why ? [element("span", { class: "why" }, why)] : [])), score);
}

async function similar(item) {
  const answer = await ask(query("/similar", [["item", item.item], ["k", K]]));
  byId("similar-to").textContent = named(item);
  byId("similar-items").replaceChildren(...answer.items.map((each, place) => itemRow(each, place, answer.items, "")));
  byId("similar").hidden = false;
  byId("similar").scrollIntoView({ block: "nearest" });
}

// Two models

async function compare() {
  if (byId("compare").hidden || state.models.length < 2) return;
  const turn = state.turn;
  const answers = await Promise.all(["a", "b"].map((side) => ask("/recommend", request(byId(`model-${side}`).value))));
  if (turn !== state.turn) return;
  const sets = answers.map((answer) => new Set(answer.items.map((item) => item.item)));
  ["a", "b"].forEach((side, number) => {
    const rows = answers[number].items.map((item, place) => {
      const row = itemRow(item, place, answers[number].items, "");
      row.classList.toggle("both", sets[1 - number].has(item.item));
      return row;
    });
    byId(`items-${side}`).replaceChildren(...rows);
  });
  const common = [...sets[0]].filter((item) => sets[1].has(item)).length;
  byId("overlap").textContent = `${common} of ${sets[0].size} items are in both lists (bold).`;
}

async function showModels() {
  const health = await ask("/health");
  state.models = health.models;
  byId("served").textContent = health.models.map((model) => `${model.variant}: ${model.name} ${model.version}`).join(", ");
  ["a", "b"].forEach((side, number) => {
    const select = byId(`model-${side}`);
    const value = select.value;
    select.replaceChildren(...health.models.map((model) =>
      element("option", { value: model.variant }, `${model.variant} (${model.name})`)));
    select.value = health.models.some((model) => model.variant === value) ? value
      : health.models[Math.min(number, health.models.length - 1)].variant;
  });
  const isSingle = health.models.length < 2;
  byId("single").hidden = !isSingle;
  document.querySelector(".pair").hidden = byId("overlap").hidden = isSingle;
  say(health.last_refused ?? "");
}

// Live metrics

function parsed(text) {
  const pattern = /^(\w+)(?:\{(.*)\})? (\S+)$/;
  return text.split("\n").map((line) => pattern.exec(line)).filter(Boolean).map(([, name, labels, value]) => ({
    name, value: Number(value),
    labels: Object.fromEntries([...(labels ?? "").matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map((each) => [each[1], each[2]])),
  }));
}

function total(metrics, name, wanted = {}) {
  return metrics.filter((each) => each.name === name
    && Object.entries(wanted).every(([label, value]) => each.labels[label] === value))
    .reduce((sum, each) => sum + each.value, 0);
}

// A quantile of a histogram: the upper end of its bucket.
function quantile(metrics, name, share, wanted) {
  const buckets = metrics.filter((each) => each.name === `${name}_bucket`
    && Object.entries(wanted).every(([label, value]) => each.labels[label] === value))
    .map((each) => [each.labels.le === "+Inf" ? Infinity : Number(each.labels.le), each.value]);
  const count = Math.max(0, ...buckets.map(([, value]) => value));
  const bucket = buckets.find(([, value]) => value >= share * count);
  return count && bucket ? bucket[0] : null;
}

function milliseconds(seconds) {
  return seconds === null ? "–" : seconds === Infinity ? "> 10 s" : `≤ ${Number((seconds * 1000).toPrecision(2))} ms`;
}

function percent(part, whole) {
  return whole ? `${(100 * part / whole).toFixed(1)} %` : "–";
}

async function poll() {
  const response = await fetch("/metrics");
  const metrics = parsed(await response.text());
  const count = total(metrics, "ensue_requests_total") - total(metrics, "ensue_requests_total", { route: "/metrics" });
  const now = performance.now();
  const rate = state.last ? (count - state.last.count) / ((now - state.last.now) / 1000) : 0;
  state.last = { count, now };
  state.rates = [...state.rates, rate].slice(-POINTS);
  const failed = metrics.filter((each) => each.name === "ensue_requests_total" && each.labels.status >= "500")
    .reduce((sum, each) => sum + each.value, 0);
  const answers = total(metrics, "ensue_answers_total");
  const known = total(metrics, "ensue_history_events_total", { known: "yes" });
  const unknown = total(metrics, "ensue_history_events_total", { known: "no" });
  const batches = total(metrics, "ensue_batch_rows_count");
  const route = { route: "/recommend" };
  const tiles = [
    ["requests per second", rate.toFixed(1)],
    ["requests", String(count)],
    ["failed (5xx)", String(failed)],
    ["recommend, median", milliseconds(quantile(metrics, "ensue_request_seconds", 0.5, route))],
    ["recommend, p99", milliseconds(quantile(metrics, "ensue_request_seconds", 0.99, route))],
    ["queries per batch", batches ? (total(metrics, "ensue_batch_rows_sum") / batches).toFixed(1) : "–"],
    ["not from the model", percent(answers - total(metrics, "ensue_answers_total", { source: "model" }), answers)],
    ["unknown events", percent(unknown, known + unknown)],
    ["catalogue shown", percent(Math.max(0, ...metrics.filter((each) => each.name === "ensue_catalogue_coverage")
      .map((each) => each.value)), 1)],
    ["events stored", String(total(metrics, "ensue_events_total", { outcome: "stored" }))],
    ["models changed", String(total(metrics, "ensue_swaps_total", { outcome: "served" }))],
    ["models refused", String(total(metrics, "ensue_swaps_total", { outcome: "refused" }))],
  ];
  byId("tiles").replaceChildren(...tiles.map(([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, value))));
  const top = Math.max(1, ...state.rates);
  byId("curve").firstElementChild.setAttribute("points", state.rates.map((value, place) =>
    `${(300 * (place + POINTS - state.rates.length)) / (POINTS - 1)},${58 - (56 * value) / top}`).join(" "));
  const routes = metrics.filter((each) => each.name === "ensue_requests_total");
  byId("routes").replaceChildren(...routes.map((each) => element("tr", {}, ...[each.labels.route, each.labels.status,
    String(each.value)].map((text) => element("td", {}, text)))));
}

// Tabs

function choose(tab, isFocused) {
  for (const each of document.querySelectorAll("[role=tab]")) {
    const isChosen = each === tab;
    each.setAttribute("aria-selected", String(isChosen));
    each.tabIndex = isChosen ? 0 : -1;
    byId(each.getAttribute("aria-controls")).hidden = !isChosen;
  }
  document.body.classList.toggle("is-live", tab.id === "tab-live");
  if (isFocused) tab.focus();
  if (tab.id === "tab-live") attempt(poll);
  if (tab.id === "tab-compare") attempt(async () => { await showModels(); await compare(); });
}

function start() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab, false));
    tab.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (step) choose(tabs[(place + step + tabs.length) % tabs.length], true);
    });
  });
  byId("search").addEventListener("input", () => attempt(search));
  byId("search").addEventListener("keydown", (event) => {
    const first = byId("matches").querySelector("button");
    if (event.key === "Enter" && first) first.click();
    if (event.key === "ArrowDown" && first) { event.preventDefault(); first.focus(); }
    if (event.key === "Escape") { byId("search").value = ""; byId("matches").replaceChildren(); }
  });
  byId("matches").addEventListener("keydown", (event) => {
    const buttons = [...byId("matches").querySelectorAll("button")];
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    (next ?? byId("search")).focus();
  });
  byId("clear").addEventListener("click", () => { state.history = []; state.chosen = null; update(); });
  for (const side of ["a", "b"]) byId(`model-${side}`).addEventListener("change", () => attempt(compare));
  setInterval(() => { if (!byId("live").hidden) attempt(poll); }, POLL_MS);
  attempt(showModels).then(update);
}

start();
