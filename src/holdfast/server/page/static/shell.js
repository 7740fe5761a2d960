// What every page has: times that go on, light and dark, keys, dialogs, the message at the bottom.

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

// ---- times: the server's clock, in the server's words (`phrases.py`)

const skew = Number(document.documentElement.dataset.now) - Date.now() * 1000;
const now = () => Date.now() * 1000 + skew;

function span(micros) {
  if (micros < 1_000_000) return `${Math.max(0, Math.floor(micros / 1000))} ms`;
  const seconds = micros / 1e6;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const whole = Math.floor(seconds);
  for (const [unit, size, smaller, small] of [["d", 86400, "h", 3600], ["h", 3600, "min", 60], ["min", 60, "s", 1]]) {
    if (whole >= size) {
      const rest = Math.floor((whole % size) / small);
      return `${Math.floor(whole / size)} ${unit}${rest ? ` ${rest} ${smaller}` : ""}`;
    }
  }
}

function ago(then) {
  const seconds = Math.floor((now() - then) / 1e6);
  if (seconds < 1) return "now";
  for (const [unit, size] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (seconds >= size) return `${Math.floor(seconds / size)} ${unit} ago`;
  }
  return `${seconds} s ago`;
}

function tick() {
  if (document.hidden) return;
  for (const time of $$("time[data-ago]")) set(time, ago(Number(time.dataset.ago)));
  for (const time of $$("time[data-since]")) set(time, span(now() - Number(time.dataset.since)));
}
const set = (element, text) => { if (element.textContent !== text) element.textContent = text; };
setInterval(tick, 1000);

// ---- on a phone the bar is longer than the screen: where one is, is seen

$(".bar [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });

// ---- light and dark

function turn() {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  root.dataset.theme = dark ? "light" : "dark";
  try { localStorage.setItem("theme", root.dataset.theme); } catch { /* it holds for this page */ }
}
$("#theme").addEventListener("click", turn);

// ---- messages and dialogs

export function toast(text) {
  $("#toast").textContent = text;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => { $("#toast").textContent = ""; }, 6000);
}
if ($("#toast").textContent.trim()) {
  toast($("#toast").textContent.trim());
  const address = new URL(location.href);
  address.searchParams.delete("done"); // a reload does not say it again
  history.replaceState(null, "", address);
}

$("#help").addEventListener("click", () => $("#keys").showModal());
document.addEventListener("click", (event) => {
  const opener = event.target.closest("[data-opens]");
  if (opener) {
    const dialog = document.getElementById(opener.dataset.opens);
    dialog.dispatchEvent(new CustomEvent("opens", { detail: opener.dataset }));
    dialog.showModal();
  }
  const closer = event.target.closest("[data-closes]");
  if (closer) closer.closest("dialog").close();
  if (event.target instanceof HTMLDialogElement) event.target.close(); // on its backdrop
});
document.addEventListener("submit", (event) => { // a second click sends nothing twice
  for (const button of $$("button", event.target)) setTimeout(() => { button.disabled = true; });
});
addEventListener("pageshow", () => $$("form button:disabled").forEach((button) => { button.disabled = false; }));

// ---- news from the server; none while nobody looks, for a browser opens only six streams to one server

export function follow(address, handlers) {
  let source = null;
  const open = () => {
    source = new EventSource(address());
    source.onopen = () => live("live", "Live");
    source.onerror = () => live("lost", "Not live: the server cannot be reached");
    for (const [kind, handle] of Object.entries(handlers)) {
      source.addEventListener(kind, (event) => handle(JSON.parse(event.data)));
    }
  };
  const close = () => { source?.close(); source = null; live("", "Not live"); };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) close();
    else if (!source) open();
  });
  addEventListener("pagehide", close);
  if (!document.hidden) open();
  return close;
}
function live(state, text) {
  const pulse = $("#pulse");
  pulse.className = `pulse ${state}`;
  pulse.title = text;
  $(".unseen", pulse).textContent = text;
}

// ---- keys

const rows = () => $$("[data-row]").filter((row) => row.offsetParent !== null);
const handle = (row) => $("a", row);

export function move(by) {
  const all = rows();
  const here = all.findIndex((row) => row.contains(document.activeElement));
  const next = here < 0 ? (by > 0 ? all.findIndex((row) => row.getBoundingClientRect().top >= 44) : all.length - 1) : here + by;
  const row = all[Math.max(0, Math.min(all.length - 1, next))];
  if (!row) return;
  handle(row).focus({ preventScroll: true });
  row.scrollIntoView({ block: "nearest" });
}

let prefix = "";
const places = { r: "/", h: "/waiting", q: "/queues", s: "/schedules", w: "/workers", t: "/trails" };
const go = (selector) => { const link = $(selector); if (link) link.click(); return Boolean(link); };
const keys = {
  j: () => move(1),
  k: () => move(-1),
  ArrowDown: () => $(":focus")?.closest?.("[data-row]") && move(1),
  ArrowUp: () => $(":focus")?.closest?.("[data-row]") && move(-1),
  "/": () => { const search = $("#search"); search?.focus(); search?.select(); },
  "?": () => $("#keys").showModal(),
  t: turn,
  n: () => go("#older"),
  p: () => (document.referrer && $("#newer") ? history.back() : go("#newer")),
  x: () => { const box = $(":focus")?.closest?.("[data-row]")?.querySelector("input[type=checkbox]"); box?.click(); },
  c: () => go("[data-opens=end-dialog][data-do=cancel]") || go("#picked:not([hidden]) [data-opens]"),
  1: () => go(".views a:nth-child(1)"),
  2: () => go(".views a:nth-child(2)"),
  3: () => go(".views a:nth-child(3)"),
  4: () => go(".views a:nth-child(4)"),
  g: () => { prefix = "g"; setTimeout(() => { prefix = ""; }, 1200); },
  Escape: () => document.dispatchEvent(new CustomEvent("escape")),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || $("dialog[open]")) return;
  const typing = event.target.matches("textarea, select, input:not([type=checkbox])");
  if (typing) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (prefix === "g" && places[event.key]) {
    event.preventDefault();
    prefix = "";
    location.href = places[event.key];
    return;
  }
  const act = keys[event.key];
  if (!act) return;
  const moves = event.key.startsWith("Arrow");
  if (act() || !moves) event.preventDefault();
});
