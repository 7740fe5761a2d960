// One run: its long lists, the details beside them, forms for its hooks, and all of it live.

import { $, $$, follow, toast } from "./shell.js";
import { Stream } from "./stream.js";
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
  const shown = await text(`part=${kind}&at=${at}${list?.dataset.query ?? ""}`);
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
  if (chosen !== row.dataset.at) open(link.dataset.shows, row.dataset.at);
});
list?.addEventListener("focusin", (event) => { // with the details open, they follow j and k
  const row = event.target.closest("[data-at]");
  if (chosen && row && row.dataset.at !== chosen) open($("a", row).dataset.shows, row.dataset.at);
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
  form.dataset.sending = "";
  const { ok, status, content } = await sent(form);
  delete form.dataset.sending;
  for (const button of $$("button", form)) button.disabled = false;
  if (ok) taken(form, content);
  else if (status === 422) put(form, content);
  else toast(content);
});

async function sent(form) {
  const body = new URLSearchParams(new FormData(form));
  try {
    const answer = await fetch(form.action, { method: "POST", body, headers: { "X-Holdfast-Part": "1" } });
    return { ok: answer.ok, status: answer.status, content: await (answer.ok ? answer.json() : answer.text()) };
  } catch {
    return { content: "No answer from the server. Send it again: the run takes it once." };
  }
}

function put(form, html) {
  const holder = document.createElement("template");
  holder.innerHTML = html;
  const fresh = holder.content.firstElementChild;
  form.replaceWith(fresh);
  fresh.dataset.touched = "1";
  ($("[aria-invalid]", fresh) ?? $("input, textarea, select", fresh))?.focus();
}

// A form that was sent is done. If its hook is still open, the next payload has a form of its own.
function taken(form, { done, news }) {
  const old = form.closest(".wait");
  const here = focused(old) || document.activeElement === document.body;
  const { key } = old.dataset;
  old.remove();
  update(news);
  settle();
  toast(done);
  if (here) ($$(".wait", waits).find((wait) => wait.dataset.key === key)?.querySelector(fields) ?? $("#content")).focus();
}
const fields = ".payload :is(input:not([type=hidden]), textarea, select)";

document.addEventListener("input", (event) => {
  const form = event.target.closest("[data-payload]");
  if (form) form.dataset.touched = "1";
});
document.addEventListener("click", (event) => { if (event.target.closest("[data-discard]")) remove(event.target.closest(".wait")); });

// ---- what it waits for: reasons keep their place; a form in which somebody types is left alone until it is not

const waits = $("#waits");
let told = null;

const touched = (wait) => Boolean($("[data-touched]", wait));
const focused = (wait) => wait.contains(document.activeElement);

function settle() {
  if (told === null) return;
  const holder = document.createElement("template");
  holder.innerHTML = told;
  const fresh = [...holder.content.children];
  for (const wait of [...waits.children]) {
    if (fresh.some((next) => next.dataset.key === wait.dataset.key)) continue;
    if (!touched(wait)) remove(wait);
    else if (!$("[data-sending]", wait)) over(wait);
  }
  const kept = new Map([...waits.children].map((wait) => [wait.dataset.key, wait]));
  fresh.forEach((next, place) => {
    const wait = kept.get(next.dataset.key);
    if (!wait) waits.insertBefore(next, waits.children[place] ?? null);
    else if (wait.dataset.rev !== next.dataset.rev && !touched(wait) && !focused(wait)) wait.replaceWith(next);
  });
}
function remove(wait) {
  const here = focused(wait);
  wait.remove();
  if (here) $("#content").focus({ preventScroll: true });
}
function over(wait) {
  if (wait.classList.contains("over")) return;
  wait.classList.add("over");
  const buttons = $(".buttons", wait);
  if (buttons) buttons.innerHTML = '<p class="soft">It waits here no more; what you typed was not sent.</p> <button type="button" data-discard>Discard</button>';
}
waits.addEventListener("focusout", () => setTimeout(settle));

// ---- live

let position = Number(root.dataset.position);
const trail = $("#trail");
let telling = 0;

async function tell() {
  clearTimeout(telling);
  const shown = await text("part=trail");
  if (!trail || !shown) return;
  trail.innerHTML = shown;
  root.classList.toggle("quiet", Boolean($("[data-quiet]", trail))); // nothing to tell: the timeline takes the room
}

// It comes by the stream, and with the answer to what was sent here: whichever is late tells nothing new.
function update(news) {
  if (news.position < position) return;
  told = news.waits;
  const focused = $("#head").contains(document.activeElement);
  if (!focused || news.ended) $("#head").innerHTML = news.head;
  settle();
  for (const [view, number] of [["timeline", news.spans], ["events", news.position], ["streams", news.streams]]) {
    const count = $(`.views [data-view=${view}] b`);
    if (count) count.textContent = view === "streams" && !number ? "" : number.toLocaleString("en");
  }
  if (news.position === position && !news.ended) return;
  const before = position;
  position = news.position;
  if (rows && list.dataset.part === "spans") {
    text(`part=scale${list.dataset.query}`).then((scale) => { $("#scale").innerHTML = scale; });
    rows.refresh(news.spans, 0);
    $(".timeline > .empty")?.remove();
  } else if (rows && list.dataset.part === "lines" && !list.dataset.query) {
    rows.refresh(news.position, before);
  }
  if (root.dataset.view === "data" && news.ended && !("ended" in root.dataset)) location.reload();
  if (chosen && news.position !== before) {
    const row = $(`[data-at="${chosen}"] a`);
    if (row?.dataset.shows === "detail") open("detail", chosen);
  }
  telling = telling && clearTimeout(telling);
  if (trail) telling = setTimeout(tell, 800);
  if (news.ended) { root.dataset.ended = ""; }
}

if (trail) tell();
if (!("ended" in root.dataset)) {
  const stream = root.dataset.view === "streams" ? new Stream(rows) : null;
  follow(() => join(`part=live${stream?.asks() ?? ""}`), { run: update, streams: (news) => stream?.update(news) });
} // what is over does not change
