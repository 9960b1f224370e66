// Dead letters: the list, and what the token permits. The token is in a variable of this tab and nowhere else.

import { byId, setText, showRows } from "./dom.js";
import { bytes, count, messages, time } from "./format.js";

let token = null;
let shownVersion = null;

async function ask(path, options = {}) {
  const headers = token === null ? {} : { Authorization: `Bearer ${token}` };
  const response = await fetch(path, { ...options, headers, cache: "no-store", credentials: "omit" });
  const content = await response.json();
  if (response.status === 401) forget();
  if (!response.ok) throw new Error(content.error ?? `HTTP ${response.status}`);
  return content;
}

// Called with each status; asks for the list only when it may be another one.
export async function showDeadLetters(status) {
  byId("read-only").hidden = status.may_change;
  byId("token-form").hidden = !status.may_change || token !== null;
  byId("bulk").hidden = token === null || !status.table.dead_letters;
  if (status.dead_letters_version !== shownVersion) await attempt(load);
}

// Does something that asks the worker; what it says against it is shown.
async function attempt(act) {
  try {
    await act();
  } catch (error) {
    say(error.message);
  }
}

async function load() {
  const list = await ask("dead-letters");
  shownVersion = list.version;
  const shown = list.dead_letters.length;
  const all = `${count(list.count)} of them`;
  setText(byId("dead-letters-count"), list.count > shown ? `${all}, the oldest ${count(shown)} are shown` : list.count ? all : "");
  const table = byId("dead-letters");
  table.tBodies[0].replaceChildren();
  showRows(table, list.dead_letters.map(cellsOf));
}

function cellsOf(letter) {
  return [
    { text: letter.reason },
    { text: letter.kafka_topic },
    { text: letter.mqtt_topic },
    { text: time(letter.received_seconds) },
    { text: bytes(letter.size_bytes) },
    { text: letter.payload ?? "shown with the token", kind: letter.payload === null ? "quiet" : "mono" },
    { text: letter.id, kind: "mono" },
    { node: token === null ? document.createTextNode("–") : buttonsOf(letter) },
  ];
}

function buttonsOf(letter) {
  const group = document.createElement("div");
  group.className = "actions";
  for (const [action, name] of [["retry", "Retry"], ["delete", "Delete"]]) {
    const button = group.appendChild(document.createElement("button"));
    button.type = "button";
    button.textContent = name;
    button.className = action === "delete" ? "danger" : "";
    button.setAttribute("aria-label", `${name} the dead letter ${letter.id}`);
    button.addEventListener("click", () => change(action, { ids: [letter.id] }));
  }
  return group;
}

async function change(action, what) {
  if (action === "delete" && !window.confirm("Delete for good?")) return;
  await attempt(async () => {
    const done = await ask(`dead-letters/${action}`, { method: "POST", body: JSON.stringify(what) });
    say(action === "retry" ? `Sent once more: ${messages(done.count)}.` : `Deleted: ${messages(done.count)}.`);
  });
  shownVersion = null;
  byId("dead-letters-heading").focus(); // the button that had the focus goes away
}

function say(text) {
  setText(byId("dead-letters-answer"), text);
}

function forget() {
  token = null;
  shownVersion = null;
  byId("bulk").hidden = true;
  byId("token-form").hidden = false;
}

byId("dead-letters-heading").tabIndex = -1;
byId("token-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  token = byId("token").value.trim();
  byId("token").value = "";
  await attempt(async () => {
    await load();
    say("The token is right.");
  });
  byId("token-form").hidden = token !== null;
  byId("bulk").hidden = token === null;
});
byId("token-forget").addEventListener("click", async () => {
  forget();
  say("The token is forgotten.");
  await attempt(load);
});
byId("retry-all").addEventListener("click", () => change("retry", { all: true }));
byId("delete-all").addEventListener("click", () => change("delete", { all: true }));
