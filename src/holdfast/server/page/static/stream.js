// What a run publishes, as it comes: text that is appended, or chunks in a window.

import { $, $$ } from "./shell.js";

const MOST = 400_000; // characters of text that are in the page

export class Stream {
  constructor(rows) {
    this.rows = rows;
    this.shown = $("[data-stream]");
    this.position = Number(this.shown?.dataset.position ?? rows?.total ?? 0);
    if (this.text) this.text.scrollTop = this.text.scrollHeight;
  }

  get text() {
    return this.shown?.dataset.as === "text" ? this.shown : null;
  }

  // What the address of the news says: which stream, how it is shown, and what is here already.
  asks() {
    const { stream = "", as = "" } = this.shown?.dataset ?? {};
    return `&stream=${encodeURIComponent(stream)}&as=${as}&after=${this.position}`;
  }

  update(news) {
    if (!this.shown) {
      if (news.number) location.reload(); // its first stream is there
      return;
    }
    $("#streams").innerHTML = news.list;
    if (news.position === undefined) return;
    $("#stream-about").innerHTML = news.about;
    const before = this.position;
    this.position = news.position;
    if (this.text) this.append(news);
    else this.rows.refresh(news.position, this.attempted(news) ? 0 : before);
  }

  append({ html, anew, attempts }) {
    const atEnd = this.text.scrollHeight - this.text.scrollTop - this.text.clientHeight < 40;
    if (anew) this.text.replaceChildren();
    this.text.insertAdjacentHTML("beforeend", html);
    for (const passage of $$(".passage:not(.superseded)", this.text)) {
      if (Number(passage.dataset.attempt) < (attempts[passage.dataset.step] ?? 0)) passage.classList.add("superseded");
    }
    let length = this.text.textContent.length;
    while (length > MOST && this.text.children.length > 1) {
      length -= this.text.firstElementChild.textContent.length;
      this.text.firstElementChild.remove();
    }
    if (atEnd) this.text.scrollTop = this.text.scrollHeight;
  }

  // Whether another attempt writes now, which changes rows that were there.
  attempted({ attempts }) {
    const now = JSON.stringify(attempts);
    const changed = now !== this.attempts;
    this.attempts = now;
    return changed;
  }
}
