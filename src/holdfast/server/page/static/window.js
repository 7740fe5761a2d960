// A long list of which only a window is in the page: rows of one height, asked for as they come into sight.

import { $ } from "./shell.js";

const CHUNK = 60;

export class Window {
  constructor(element, url) {
    this.element = element;
    this.url = url;
    this.total = Number(element.dataset.total);
    this.chunks = new Map();
    this.asked = new Map();
    this.height = this.measure();
    const first = Number(element.dataset.first);
    if (first === 0 && element.children.length) this.adopt();
    else element.replaceChildren();
    element.classList.add("windowed");
    this.resize();
    addEventListener("scroll", () => this.soon(), { passive: true });
    addEventListener("resize", () => { this.height = this.measure(); this.resize(); this.place(); this.soon(); });
    this.soon();
  }

  measure() {
    return parseFloat(getComputedStyle(this.element).getPropertyValue("--row")) || 28;
  }

  adopt() {
    const chunk = this.make(0);
    chunk.append(...this.element.children);
    this.element.append(chunk);
  }

  make(number) {
    const chunk = document.createElement("div");
    chunk.className = "chunk";
    chunk.setAttribute("role", "presentation");
    chunk.style.top = `${number * CHUNK * this.height}px`;
    this.chunks.set(number, chunk);
    return chunk;
  }

  place() {
    for (const [number, chunk] of this.chunks) chunk.style.top = `${number * CHUNK * this.height}px`;
  }

  resize() {
    this.element.style.height = `${this.total * this.height}px`;
  }

  // When scrolling rests, or four times a second: a leap over a long list asks for nothing on its way.
  soon() {
    clearTimeout(this.rest);
    this.rest = setTimeout(() => this.look(), 40);
    this.latest ??= setTimeout(() => this.look(), 250);
  }

  // The chunks in sight, with half a screen before and behind; others leave the page.
  look() {
    clearTimeout(this.rest);
    clearTimeout(this.latest);
    this.latest = null;
    const top = this.element.getBoundingClientRect().top;
    const margin = innerHeight / 2;
    const size = CHUNK * this.height;
    const last = Math.max(0, Math.ceil(this.total / CHUNK) - 1);
    const from = Math.min(last, Math.max(0, Math.floor((-top - margin) / size)));
    const to = Math.min(last, Math.max(0, Math.floor((innerHeight - top + margin) / size)));
    for (const [number, chunk] of this.chunks) {
      if ((number < from || number > to) && !chunk.contains(document.activeElement)) {
        chunk.remove();
        this.chunks.delete(number);
      }
    }
    for (let number = from; number <= to && this.total; number += 1) {
      if (!this.chunks.has(number)) this.load(number);
    }
  }

  async load(number) {
    if (this.asked.has(number)) {
      this.asked.set(number, true); // it has changed since it was asked for
      return;
    }
    this.asked.set(number, false);
    try {
      const answer = await fetch(this.url(number * CHUNK, CHUNK), { headers: { "X-Holdfast-Part": "1" } });
      if (!answer.ok) return;
      const text = await answer.text();
      const old = this.chunks.get(number);
      const focused = old?.contains(document.activeElement) ? document.activeElement.closest("[data-at]")?.dataset.at : null;
      const chunk = old ?? this.make(number);
      chunk.innerHTML = text;
      if (!old) this.put(number, chunk);
      if (focused) $(`[data-at="${focused}"] a`, chunk)?.focus({ preventScroll: true });
      this.element.dispatchEvent(new CustomEvent("drawn"));
    } finally {
      const again = this.asked.get(number);
      this.asked.delete(number);
      if (again) this.load(number);
      else if (this.chunks.has(number)) this.soon(); // it may be out of sight by now
    }
  }

  // In the order of the list, for those who read with the keyboard.
  put(number, chunk) {
    const later = [...this.chunks].filter(([other]) => other > number).sort((a, b) => a[0] - b[0])[0];
    this.element.insertBefore(chunk, later?.[1].isConnected ? later[1] : null);
  }

  // There are more rows, and those from `changed` on are others now.
  refresh(total, changed) {
    this.total = total;
    this.resize();
    for (const number of this.chunks.keys()) {
      if ((number + 1) * CHUNK > changed) this.load(number);
    }
    this.soon();
  }
}
