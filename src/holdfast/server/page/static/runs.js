// The list of runs: ticks, the dialog that cancels many, and rows as they change.

import { $, $$, follow } from "./shell.js";

const body = $("#rows");
const bulk = $("#bulk");
const most = 200;

// ---- selecting

const boxes = () => $$("input[name=run]", body).filter((box) => !box.disabled);
const ticked = () => boxes().filter((box) => box.checked);

function count() {
  const number = ticked().length;
  $("#picked").hidden = number === 0;
  $("#picked-count").textContent = `${number} selected`;
  const all = $("#all");
  all.checked = number > 0 && number === boxes().length;
  all.indeterminate = number > 0 && !all.checked;
}
body.addEventListener("change", count);
$("#all").addEventListener("change", (event) => {
  for (const box of boxes()) box.checked = event.target.checked;
  count();
});
$("#unpick").addEventListener("click", () => {
  for (const box of ticked()) box.checked = false;
  count();
});
document.addEventListener("escape", () => $("#unpick").click());
count();

const dialog = $("#cancel-dialog");
dialog.addEventListener("opens", ({ detail }) => {
  const everything = detail.scope === "everything";
  const number = ticked().length;
  $("#cancel-what").textContent = everything
    ? "All runs that match the filter and have not ended are asked to cancel."
    : `${number} selected run${number === 1 ? " is" : "s are"} asked to cancel.`;
  $(".filter-told").hidden = !everything;
  $("#cancel-go").name = everything ? "everything" : "";
  $("#cancel-go").value = everything ? "yes" : "";
  $("#cancel-go").textContent = everything ? "Cancel all that match" : "Cancel them";
});
bulk.addEventListener("submit", (event) => {
  if (event.submitter !== $("#cancel-go")) event.preventDefault();
});

// ---- filtering

$("#workflow").addEventListener("change", (event) => event.target.form.requestSubmit());

// ---- live

const template = document.createElement("template");
const element = (html) => {
  template.innerHTML = html;
  return template.content.firstElementChild;
};

function update({ rows, tabs }) {
  if (tabs) $("#tabs").innerHTML = tabs;
  for (const news of rows.sort((a, b) => a.created - b.created)) {
    const old = body.querySelector(`[data-run="${CSS.escape(encoded(news.run))}"]`);
    if (old) replace(old, news);
    else if (news.fits && body.dataset.top) insert(news);
  }
  while (body.rows.length > most) body.rows[body.rows.length - 1].remove();
  $(".empty").hidden = body.rows.length > 0;
  count();
}

function replace(old, news) {
  const fresh = element(news.html);
  const focused = old.contains(document.activeElement);
  $("input", fresh).checked = $("input", old).checked && !$("input", fresh).disabled;
  fresh.classList.toggle("gone", !news.fits); // it stays where it is, so that nothing jumps under the pointer
  old.replaceWith(fresh);
  if (focused) $("a", fresh).focus({ preventScroll: true });
}

function insert(news) {
  const before = $$("tr", body).find((row) => Number(row.dataset.created) <= news.created);
  const fresh = element(news.html);
  if (!before && body.rows.length >= 100) return;
  fresh.classList.add("fresh");
  body.insertBefore(fresh, before ?? null);
}

// As Jinja's `urlencode` writes it.
const encoded = (text) => encodeURIComponent(text).replace(/%2F/g, "/").replace(/[!'()*]/g, (c) => `%${c.charCodeAt(0).toString(16).toUpperCase()}`);

follow(() => body.dataset.live, { rows: update });
