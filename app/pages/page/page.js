// Asks the worker every two seconds, and shows what it answers, or that it does not answer.

import { showHistory } from "./charts.js";
import { showDeadLetters } from "./dead_letters.js";
import { byId, setLevel, setText, showRows } from "./dom.js";
import { bytes, count, duration, estimate, messages, rate, time } from "./format.js";

const ASK_SECONDS = 2;
const PATIENCE_SECONDS = 8; // for one answer
const SYMBOLS = { ok: "✓", attention: "!", trouble: "✕" };
const WORDS = { ok: "OK", attention: "Attention", trouble: "Trouble" };
let answeredAt = null; // by this browser's clock
let site = null; // as the worker said last

async function ask(path) {
  const response = await fetch(path, { cache: "no-store", credentials: "omit", signal: AbortSignal.timeout(PATIENCE_SECONDS * 1000) });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.json();
}

async function update() {
  try {
    const answers = await askAll();
    if (answers) await show(...answers);
    else showNoAnswer();
  } finally {
    setTimeout(update, ASK_SECONDS * 1000);
  }
}

async function askAll() {
  try {
    return await Promise.all([ask("status"), ask("history")]);
  } catch (error) {
    console.info("no answer from the worker:", error);
    return null;
  }
}

async function show(status, history) {
  answeredAt = Date.now() / 1000;
  document.body.classList.remove("stale");
  showStatus(status);
  showHistory(history);
  await showDeadLetters(status);
}

function showHeadline(level, text, advice) {
  setLevel(byId("headline"), level);
  setText(byId("headline-symbol"), SYMBOLS[level]);
  setText(byId("headline-text"), text);
  setText(byId("headline-advice"), advice);
  const title = [`${SYMBOLS[level]} ${WORDS[level]}`, site, "Connector"].filter(Boolean).join(" - ");
  if (document.title !== title) document.title = title;
}

function showNoAnswer() {
  const last = answeredAt === null ? "There was none since this page was opened." : `The last one came at ${time(answeredAt)}; what is below is of that time.`;
  document.body.classList.add("stale");
  showHeadline("trouble", "The worker does not answer.", `${last} Look whether it runs, and at its log. This page goes on asking.`);
  setText(byId("freshness"), answeredAt === null ? "no answer yet" : `last answer ${time(answeredAt)}`);
}

function showStatus(status) {
  site = status.site;
  const [first, ...others] = status.findings;
  showHeadline(first.level, first.text, first.advice);
  showMore(others);
  setText(byId("client"), [site, status.mqtt.client_id].filter(Boolean).join(" "));
  setText(byId("freshness"), `live, ${time(answeredAt)}`);
  setText(byId("about"), `Version ${status.version}, running for ${duration(status.now_seconds - status.started_seconds)}.`);
  showWay(status);
  showLanes(status.lanes, status.lanes_left_out);
  showRoutes(status.routes);
  showLosses(status.possible_losses);
  showProblems(status.recent_problems);
}

function showMore(findings) {
  byId("more").hidden = findings.length === 0;
  const list = byId("more-findings");
  while (list.children.length > findings.length) list.lastChild.remove();
  findings.forEach(({ level, text, advice }, place) => {
    const item = list.children[place] ?? newFinding(list);
    setLevel(item.firstChild, level);
    setText(item.firstChild, `${WORDS[level]}: ${text}`);
    setText(item.lastChild, advice);
  });
}

function newFinding(list) {
  const item = list.appendChild(document.createElement("li"));
  item.append(document.createElement("strong"), " ", document.createElement("span"));
  return item;
}

function showWay({ mqtt, kafka, table, routes, now_seconds: now }) {
  for (const [name, { connected, address, since_seconds: since }] of Object.entries({ mqtt, kafka })) {
    showState(byId(`${name}-state`), connected ? "ok" : "trouble", connected ? "Connected" : "Not connected");
    setText(byId(`${name}-address`), address);
    setText(byId(`${name}-since`), `since ${time(since)} (${duration(now - since)})`);
  }
  const flows = Object.values(routes);
  setText(byId("received-rate"), rate(flows.reduce((sum, flow) => sum + flow.received_per_second, 0)));
  setText(byId("delivered-rate"), rate(flows.reduce((sum, flow) => sum + flow.delivered_per_second, 0)));
  showState(byId("backlog"), table.full ? "trouble" : table.messages ? "attention" : "ok", messages(table.messages));
  setText(byId("oldest"), table.messages ? duration(table.oldest_age_seconds) : "none waits");
  setText(byId("usage"), `${bytes(table.bytes)} of ${bytes(table.limit_bytes)}${table.durable ? "" : ", in memory"}`);
  setText(byId("full-in"), table.full_seconds === null ? "does not grow" : estimate(table.full_seconds));
  setText(byId("drained-in"), table.drain_seconds === null ? "does not shrink" : table.messages ? estimate(table.drain_seconds) : "empty");
  byId("usage-bar").style.width = `${Math.min(100, (100 * table.bytes) / Math.max(1, table.limit_bytes))}%`;
}

function showState(element, level, text) {
  setLevel(element, level);
  setText(element, `${SYMBOLS[level]} ${text}`);
}

function showLanes(lanes, leftOut) {
  const rows = Object.entries(lanes).map(([topic, lane]) => [
    { text: topic },
    stateOf(lane),
    { text: count(lane.waiting_messages) },
    { text: lane.trouble, level: lane.trouble ? stateOf(lane).level : "" },
  ]);
  if (leftOut) rows.push([{ text: `and ${count(leftOut)} more` }, { text: "" }, { text: "" }, { text: "" }]);
  showRows(byId("lanes"), rows);
}

function stateOf({ trouble, behind, waiting_messages: waiting }) {
  if (trouble && !waiting) return { text: "! not ready", level: "attention" };
  if (trouble) return { text: "✕ waits", level: "trouble" };
  if (behind) return { text: "! catches up", level: "attention" };
  return waiting ? { text: "! Kafka is slow", level: "attention" } : { text: "✓ direct", level: "ok" };
}

function showRoutes(routes) {
  showRows(byId("routes"), Object.entries(routes).map(([name, route]) => {
    const dead = total(route.dead_lettered);
    const dropped = total(route.dropped);
    return [
      { text: name === "unmapped" ? "no route matches" : name },
      { text: rate(route.received_per_second) },
      { text: rate(route.delivered_per_second) },
      { text: count(route.received) },
      { text: count(route.delivered) },
      { text: count(route.undelivered) },
      { text: count(dead), level: dead ? "attention" : "" },
      { text: count(dropped), level: dropped ? "attention" : "" },
    ];
  }));
}

const total = (counts) => Object.values(counts).reduce((sum, value) => sum + value, 0);

function showLosses(losses) {
  showRows(byId("losses"), losses.map((loss) => [
    { text: loss.from_seconds === null ? "not known" : time(loss.from_seconds) },
    { text: loss.until_seconds === null ? "not over" : time(loss.until_seconds) },
    { text: loss.subject ? `${loss.explanation} ${loss.subject}` : loss.explanation },
    { text: loss.count ? count(loss.count) : "not known" },
  ]));
}

function showProblems(problems) {
  showRows(byId("problems"), problems.map((problem) => [
    { text: time(problem.last_seconds) },
    { text: problem.level.toLowerCase(), level: problem.level === "WARNING" ? "attention" : "trouble" },
    { text: problem.text },
    { text: count(problem.times) },
  ]));
}

update();
