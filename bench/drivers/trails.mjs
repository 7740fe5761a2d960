// What the processes of bench/trails.py do with the npm tool: `node trails.mjs PACKAGE ROLE FOLDER [ARG…]`.
// The roles, and what they say, are those of trails.py beside it.
import { readSync, writeSync } from "node:fs";
import { mkdir, writeFile } from "node:fs/promises";
import { pathToFileURL } from "node:url";

const [pkg, role, folder, ...args] = process.argv.slice(2);
const npm = await import(pathToFileURL(`${pkg}/dist/index.js`));
const TEXT = "The quick brown fox looked at the failing test and found a stale cache entry in it. ";
const WORDS = "login token retry schema worker lease parser timeout replay quota mirror".split(" ");
const storage = new npm.FileStorage(folder);
const say = (...words) => writeSync(1, words.join(" ") + "\n");
const ready = () => { say("ready"); readSync(0, Buffer.alloc(1)); };
const create = (title) =>
  npm.addChapter(npm.createTrajectory({ title }), { title: "Work", agentName: "ana" });
const note = (trail, content) => npm.addEvent(trail, { type: "note", content });
const each = async (count, save) => {
  for (let i = 0; i < count; i++) {
    try { say("+", await save(i)); } catch (error) { say("!", String(error)); }
  }
};
const saved = async (title) => { const trail = create(title); await storage.save(trail); return trail.id; };
const timed = async (what, call) => {
  const begun = performance.now();
  await call();
  say(JSON.stringify({ what, ms: performance.now() - begun }));
};
const all = () => storage.list({ limit: 1e9 });

const roles = {
  async "at-once"(number, rounds) {
    ready();
    for (let round = 0; round < rounds; round++)
      await Promise.all(Array.from({ length: number }, () => each(1, () => saved("saved at once"))));
  },
  async new(number) { ready(); await each(number, (i) => saved(`number ${i}`)); },
  async create() { ready(); say("+", await saved("shared")); },
  async shared(id, number) {
    ready();
    await each(number, async (i) => {
      const trail = await storage.get(id);
      if (!trail) throw new Error("no such trajectory");
      const content = `${process.pid}-${i}`;
      await storage.save(note(trail, content));
      return content;
    });
  },
  async live() {
    ready();
    for (let number = 0; ; number++) {
      let trail = create(`life ${number}`);
      await storage.save(trail);
      say("+", trail.id, 0, "active");
      for (let i = 0; i < 3; i++) {
        trail = note(trail, "x".repeat(21800));
        await storage.save(trail);
        say("+", trail.id, i + 1, "active");
      }
      trail = npm.completeTrajectory(trail, { summary: "done", approach: "a", confidence: 0.9 });
      await storage.save(trail);
      say("+", trail.id, 3, "completed");
    }
  },
  async fill() {
    ready();
    let trail = create("growing");
    await storage.save(trail);
    say("+", trail.id, 0, "active");
    for (let i = 0; ; i++) {
      trail = note(trail, TEXT.repeat(24));
      await storage.save(trail);
      say("+", trail.id, i + 1, "active");
    }
  },
  async look() {
    ready();
    for (const { id } of await all()) {
      const trail = await storage.get(id);
      if (!trail) continue;
      const events = trail.chapters.flatMap((chapter) => chapter.events.map((event) => event.content));
      say(JSON.stringify({ id, status: trail.status, events }));
    }
  },
  async build(number) {
    ready();
    const root = `${folder}/.agentworkforce/trajectories`;
    await mkdir(`${root}/completed`, { recursive: true });
    for (let i = 0; i < number; i++) {
      let trail = npm.createTrajectory({ title: `Task ${i}` });
      trail.startedAt = new Date(1760000000000 + i * 60000).toISOString();
      for (let c = 0; c < 3; c++) {
        trail = npm.addChapter(trail, { title: `Part ${c}`, agentName: "ana" });
        for (let e = 0; e < 5; e++)
          trail = npm.addEvent(trail, {
            type: "note", content: TEXT + TEXT + (e ? WORDS[(i + c + e) % WORDS.length] : `ticket${i % 500}`), significance: "medium" });
      }
      await mkdir(`${root}/active/${trail.id}`, { recursive: true });
      await writeFile(`${root}/active/${trail.id}/trajectory.json`, JSON.stringify(trail, null, 2));
    }
  },
  async scale() {
    ready();
    await timed("open (each command does this first)", () => storage.initialize());
    await timed("list", all);
    await timed("start", () => saved("one more"));
    const trail = create("another");
    await storage.save(trail);
    await timed("event", () => storage.save(note(trail, "noted")));
    await timed("complete", () =>
      storage.save(npm.completeTrajectory(trail, { summary: "done", approach: "a", confidence: 0.9 })));
    await timed("search, a miss", () => storage.search("xyzzy"));
  },
  async saves(number) {
    ready();
    let trail = create("durable");
    for (let i = 0; i < number; i++) {
      trail = note(trail, TEXT);
      await timed("event", () => storage.save(trail));
      await timed("new trail", () => saved("durable"));
    }
  },
};
if (!["build", "scale"].includes(role)) await storage.initialize();
await roles[role](...args);
