// The picture of one source and the quads of its words. Asks for the next picture once it has drawn the last one: a slow
// viewer sees fewer of them, and none waits for it.
import { seconds } from "./times.js";

const SVG = "http://www.w3.org/2000/svg";
const AGAIN = 1000; // milliseconds after a failed request
const WORDS = { waiting: "no picture yet", ended: "this source has ended" };

export class Picture {
  constructor(stage, hover) {
    this.stage = stage;
    this.canvas = stage.querySelector("canvas");
    this.svg = stage.querySelector("svg");
    this.labels = stage.querySelector("#labels");
    this.notice = stage.querySelector("figcaption");
    this.hover = hover;
    this.source = 0;
    this.number = 0;
    this.marked = "";
    this.shapes = new Map(); // a track's polygon and label
    this.request = null;
  }

  watch(source, name) {
    if (source !== this.source) {
      this.source = source;
      this.clear();
      if (this.request) {
        this.disconnect();
        this.connect();
      }
    }
    this.canvas.setAttribute("aria-label", `Live picture of ${name}`);
    if (this.sources) this.status(this.sources);
  }

  clear() {
    this.number = 0;
    this.draw({ width: 16, height: 9, words: [] });
    this.canvas.getContext("2d").clearRect(0, 0, this.canvas.width, this.canvas.height);
  }

  connect() {
    if (this.request) return;
    if (this.why) this.number = 0; // of a program that may be another one
    this.why = "";
    this.request = new AbortController();
    this.fetch(this.request.signal);
    this.status(this.sources);
  }

  disconnect(why = "") {
    if (this.request) this.request.abort();
    this.request = null;
    this.why = why;
    if (why) this.say("dead", why);
  }

  async fetch(signal) {
    while (!signal.aborted) {
      try {
        const answer = await fetch(`picture?source=${this.source}&after=${this.number}`, { signal });
        if (answer.status === 200) await this.show(await answer.arrayBuffer(), signal);
        else if (answer.status !== 204) throw new Error(answer.statusText);
        else await pause(100);
      } catch {
        await pause(AGAIN);
      }
    }
  }

  async show(data, signal) {
    const length = new DataView(data).getUint32(0);
    const told = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
    const jpeg = new Blob([new Uint8Array(data, 4 + length)], { type: "image/jpeg" });
    const bitmap = jpeg.size ? await createImageBitmap(jpeg) : null; // none: the words alone
    if (signal.aborted) return;
    this.number = told.number;
    this.canvas.width = bitmap?.width ?? told.width;
    this.canvas.height = bitmap?.height ?? told.height;
    if (bitmap) this.canvas.getContext("2d").drawImage(bitmap, 0, 0);
    bitmap?.close();
    this.draw(told);
  }

  draw({ width, height, words }) {
    this.svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    this.canvas.parentElement.style.maxWidth = `calc(78vh * ${width / height})`;
    const gone = new Set(this.shapes.keys());
    for (const word of words) {
      const key = `${this.source}:${word.track}`;
      gone.delete(key);
      const { polygon, label } = this.shapes.get(key) ?? this.shape(key);
      polygon.setAttribute("points", word.quad.map((corner) => corner.join(",")).join(" "));
      polygon.classList.toggle("settled", word.settled);
      const top = Math.min(...word.quad.map((corner) => corner[1]));
      const left = Math.min(...word.quad.map((corner) => corner[0]));
      label.textContent = word.text;
      label.hidden = !word.text;
      label.style.left = `${(100 * Math.max(0, left)) / width}%`;
      label.style.top = `${(100 * Math.max(0, top)) / height}%`;
      label.classList.toggle("settled", word.settled);
      label.classList.toggle("below", top < 0.06 * height);
    }
    for (const key of gone) {
      const { polygon, label } = this.shapes.get(key);
      polygon.remove();
      label.remove();
      this.shapes.delete(key);
    }
  }

  shape(key) {
    const polygon = document.createElementNS(SVG, "polygon");
    const label = document.createElement("span");
    polygon.dataset.key = key;
    polygon.addEventListener("pointerenter", () => this.both(key, true));
    polygon.addEventListener("pointerleave", () => this.both(key, false));
    this.svg.append(polygon);
    this.labels.append(label);
    this.shapes.set(key, { polygon, label });
    this.highlight();
    return this.shapes.get(key);
  }

  both(key, on) {
    this.marked = on ? key : "";
    this.highlight();
    this.hover(this.marked);
  }

  mark(source, track) {
    this.marked = track === null ? "" : `${source}:${track}`;
    this.highlight();
  }

  highlight() {
    for (const [key, { polygon, label }] of this.shapes) {
      polygon.classList.toggle("marked", key === this.marked);
      label.classList.toggle("marked", key === this.marked);
    }
  }

  status(sources) {
    this.sources = sources;
    const now = sources?.[this.source];
    if (!now || this.why) return;
    const dead = now.state === "dead" ? `no picture for ${seconds(now.age)}` : "";
    const frozen = now.state === "frozen" ? "the picture stands still" : "";
    this.say(now.state, dead || frozen || WORDS[now.state] || "");
  }

  say(state, text) {
    this.stage.dataset.state = state;
    if (this.notice.textContent !== text) this.notice.textContent = text;
  }
}

function pause(milliseconds) {
  return new Promise((done) => setTimeout(done, milliseconds));
}
