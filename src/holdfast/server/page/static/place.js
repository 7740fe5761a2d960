// Hooks and timers, queues, schedules, workers: one part of the page, new as the store changes.

import { $, $$, follow } from "./shell.js";

const place = $("#place");

// What had the focus has it again; while a row's button is on its way, nothing changes under it.
function update({ html }) {
  if ($("button:disabled", place)) return;
  const row = document.activeElement.closest("#place [data-row]");
  const [key, number] = row ? [row.dataset.key, held(row).indexOf(document.activeElement)] : [];
  place.innerHTML = html;
  const same = row && $$("[data-row]", place).find((other) => other.dataset.key === key);
  if (same) (held(same)[number] ?? $("a", same)).focus({ preventScroll: true });
}
const held = (row) => $$("a, button", row);

$("#forget-dialog")?.addEventListener("opens", ({ detail }) => {
  $("#forget-name").textContent = detail.workflow;
  $("#forget-workflow").value = detail.workflow;
});

follow(() => place.dataset.live, { place: update });
