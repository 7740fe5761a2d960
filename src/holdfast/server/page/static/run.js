// One run: its long lists, the details beside them, forms for its hooks, and all of it live.

import { $, $$, follow, toast } from "./shell.js";
import { Window } from "./window.js";

const root = $("#run");
const url = root.dataset.url;
const join = (address) => (url.includes("?") ? `${url}&${address}` : `${url}?${address}`);
const text = async (address) => {
  const answer = await fetch(join(address), { headers: { "X-Holdfast-Part": "1" } });
  return answer.ok ? answer.text() : "";
};

// ---- the timeline or the events

const list = $("#window");
const rows = list && new Window(list, (from, count) => join(`part=${list.dataset.part}&from=${from}&count=${count}${list.dataset.query}`));

// ---- details

const detail = $("#detail");
let chosen = null;

async function open(kind, at) {
  chosen = at;
  const shown = await text(`part=${kind}&at=${at}`);
  if (chosen !== at || !shown) return;
  detail.innerHTML = shown;
  detail.hidden = false;
  root.classList.add("with-detail");
  mark();
}
function close() {
  if (!detail || detail.hidden) return;
  const at = chosen;
  chosen = null;
  detail.hidden = true;
  root.classList.remove("with-detail");
  mark();
  $(`[data-at="${at}"] a`)?.focus({ preventScroll: true });
}
function mark() {
  for (const row of $$("[data-at].chosen")) row.classList.remove("chosen");
  if (chosen) $(`[data-at="${chosen}"]`)?.classList.add("chosen");
}
list?.addEventListener("drawn", mark);
list?.addEventListener("click", (event) => {
  const row = event.target.closest("[data-at]");
  const link = row && $("a", row);
  if (!link || event.ctrlKey || event.metaKey || (event.target.closest("a") && event.button)) return;
  event.preventDefault();
  if (chosen !== row.dataset.at) open(link.dataset.detail ? "detail" : "event", row.dataset.at);
});
list?.addEventListener("focusin", (event) => { // with the details open, they follow j and k
  const row = event.target.closest("[data-at]");
  if (chosen && row && row.dataset.at !== chosen) open($("a", row).dataset.detail ? "detail" : "event", row.dataset.at);
});
detail?.addEventListener("click", (event) => { if (event.target.closest("[data-close-detail]")) close(); });
document.addEventListener("escape", close);

// ---- ending it

const dialog = $("#end-dialog");
dialog.addEventListener("opens", ({ detail: data }) => {
  const ends = data.do === "terminate";
  $("#end-title").textContent = ends ? "Terminate this run" : "Cancel this run";
  $("#end-go").textContent = ends ? "Terminate" : "Cancel";
  $("#end-do").value = data.do;
  for (const told of $$("[data-for]", dialog)) told.hidden = told.dataset.for !== data.do;
});

// ---- payloads: what is wrong is told where it was typed

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("[data-payload]");
  if (!form) return;
  event.preventDefault();
  const sent = new URLSearchParams(new FormData(form));
  const answer = await fetch(form.action, { method: "POST", body: sent, headers: { "X-Holdfast-Part": "1" } });
  if (answer.status === 422) {
    const holder = document.createElement("template");
    holder.innerHTML = await answer.text();
    const fresh = holder.content.firstElementChild;
    form.replaceWith(fresh);
    fresh.dataset.touched = "1";
    ($("[aria-invalid]", fresh) ?? $("input, textarea, select", fresh))?.focus();
    return;
  }
  for (const button of $$("button", form)) button.disabled = false;
  if (answer.ok) {
    delete form.dataset.touched;
    form.reset();
    toast(new URL(answer.url).searchParams.get("done") ?? "Sent");
  } else {
    toast(await answer.text());
  }
});
document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-payload]");
  if (form) form.dataset.touched = "1";
});

// ---- live

let position = Number(root.dataset.position);
const trail = $("#trail");
let telling = 0;

async function tell() {
  clearTimeout(telling);
  const told = await text("part=trail");
  if (!trail || !told) return;
  trail.innerHTML = told;
  root.classList.toggle("quiet", Boolean($("[data-quiet]", trail))); // nothing to tell: the timeline takes the room
}

// Reasons keep their place; a form in which somebody types is left alone.
function merge(old, html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const fresh = [...holder.content.children];
  const kept = new Map([...old.children].map((child) => [child.dataset.key, child]));
  for (const child of kept.values()) {
    const next = fresh.find((other) => other.dataset.key === child.dataset.key);
    const busy = $("[data-touched]", child) || child.contains(document.activeElement);
    if (!next && busy) child.classList.add("over");
    else if (!next) child.remove();
  }
  fresh.forEach((next, place) => {
    const child = kept.get(next.dataset.key);
    if (!child) old.insertBefore(next, old.children[place] ?? null);
    else if (child.dataset.rev !== next.dataset.rev && !$("[data-touched]", child) && !child.contains(document.activeElement)) child.replaceWith(next);
  });
}

function update(news) {
  const focused = $("#head").contains(document.activeElement);
  if (!focused || news.ended) $("#head").innerHTML = news.head;
  merge($("#waits"), news.waits);
  for (const [view, number] of [["timeline", news.spans], ["events", news.position]]) {
    const count = $(`.views [data-view=${view}] b`);
    if (count) count.textContent = number.toLocaleString("en");
  }
  if (news.position === position && !news.ended) return;
  const before = position;
  position = news.position;
  if (rows && list.dataset.part === "spans") {
    text(`part=scale${list.dataset.query}`).then((scale) => { $("#scale").innerHTML = scale; });
    rows.refresh(news.spans, 0);
    $(".timeline > .empty")?.remove();
  } else if (rows && !list.dataset.query) {
    rows.refresh(news.position, before);
  }
  if (root.dataset.view === "data" && news.ended && !("ended" in root.dataset)) location.reload();
  if (chosen && news.position !== before) {
    const row = $(`[data-at="${chosen}"] a`);
    if (row?.dataset.detail) open("detail", chosen);
  }
  telling = telling && clearTimeout(telling);
  if (trail) telling = setTimeout(tell, 800);
  if (news.ended) { root.dataset.ended = ""; }
}

if (trail) tell();
if (!("ended" in root.dataset)) follow(() => join("part=live"), { run: update }); // what is over does not change
