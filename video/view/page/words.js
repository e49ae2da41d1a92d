// The table of words, newest first. What strangers wrote onto signs is only ever set as text.
import { clock, ofDay } from "./times.js";

const SHOWN = 100; // rows until "Show more"
const SURE = 0.9; // confidence from which a word is marked as sure, and
const UNSURE = 0.6; // below which as unsure: as on contact sheets

export class Words {
  constructor(parts, mark) {
    this.parts = parts;
    this.body = parts.table.tBodies[0];
    this.onMark = mark;
    this.words = new Map();
    this.names = [];
    this.kept = this.found = 0;
    this.most = SHOWN;
    this.marked = "";
    for (const part of ["text", "source", "present"]) parts[part].addEventListener("input", () => this.anew());
    parts.more.addEventListener("click", () => {
      this.most += SHOWN;
      this.soon();
    });
  }

  begin(names, kept) {
    this.names = names;
    this.kept = kept;
    this.words.clear();
    const chosen = this.parts.source.value;
    this.parts.source.replaceChildren(option("all sources", ""), ...names.map((name, number) => option(name, String(number))));
    this.parts.source.value = chosen < names.length ? chosen : "";
    this.parts.table.classList.toggle("single", names.length < 2);
    this.parts.source.hidden = names.length < 2;
    this.anew();
  }

  take(words) {
    for (const word of words) {
      const key = `${word.source}:${word.track}`;
      const row = this.words.get(key)?.row ?? this.row(key);
      this.words.set(key, { ...word, key, row, search: word.text.toLocaleLowerCase() });
      this.fill(this.words.get(key));
    }
    this.soon();
  }

  status({ first, words }) {
    for (const [key, word] of this.words) if (word.number < first) this.words.delete(key);
    this.found = words;
    this.soon();
  }

  mark(key) {
    this.marked = key;
    for (const word of this.words.values()) word.row.classList.toggle("marked", word.key === key);
  }

  row(key) {
    const row = document.createElement("tr");
    for (const name of ["crop", "word", "number confidence", "since", "until", "number reads", "of"]) {
      row.insertCell().className = name;
    }
    const button = document.createElement("button");
    button.type = "button";
    row.cells[1].append(button);
    const on = (chosen) => {
      const word = this.words.get(key);
      if (word) this.onMark(word.source, word.track, chosen);
    };
    button.addEventListener("click", () => on(true));
    button.addEventListener("focus", () => on(false));
    button.addEventListener("blur", () => this.onMark(0, null, false));
    row.addEventListener("pointerenter", () => on(false));
    row.addEventListener("pointerleave", () => this.onMark(0, null, false));
    row.classList.toggle("marked", key === this.marked);
    return row;
  }

  fill(word) {
    const [crop, , confidence, since, until, reads, of] = word.row.cells;
    const button = word.row.querySelector("button");
    const address = `crop?source=${word.source}&track=${word.track}&shot=${word.crop}&word=${word.number}`;
    if (crop.dataset.address !== address) {
      crop.dataset.address = address;
      const image = new Image();
      image.alt = "";
      image.loading = "lazy";
      image.addEventListener("error", () => image.remove());
      image.src = address;
      crop.replaceChildren(image);
    }
    button.textContent = word.text;
    button.title = "show it in the picture";
    confidence.textContent = `${Math.round(100 * word.confidence)} %`;
    confidence.dataset.sure = word.confidence >= SURE ? "yes" : word.confidence >= UNSURE ? "some" : "no";
    when(since, word, word.start);
    const ended = word.event === "word_ended";
    if (ended) when(until, word, word.end);
    else until.textContent = "in view";
    word.row.classList.toggle("present", !ended);
    reads.textContent = ended ? word.reads : "";
    of.textContent = of.title = this.names[word.source] ?? "";
  }

  anew() {
    this.most = SHOWN;
    this.soon();
  }

  soon() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.render();
    });
  }

  render() {
    const { text, source, present, count, empty, more } = this.parts;
    const wanted = text.value.trim().toLocaleLowerCase();
    const fits = (word) =>
      word.search.includes(wanted) &&
      (source.value === "" || word.source === Number(source.value)) &&
      (!present.checked || word.event !== "word_ended");
    const found = [...this.words.values()].filter(fits).sort((a, b) => b.number - a.number);
    const rows = found.slice(0, this.most).map((word) => word.row);
    const stay = new Set(rows);
    for (const row of [...this.body.rows]) if (!stay.has(row)) row.remove();
    rows.forEach((row, place) => {
      if (this.body.rows[place] !== row) this.body.insertBefore(row, this.body.rows[place] ?? null);
    });
    const all = this.words.size;
    const older = this.found > all ? `; ${this.found} were found, the newest ${this.kept} are kept` : "";
    say(count, found.length === all ? `${all} ${all === 1 ? "word" : "words"}${older}` : `${found.length} of ${all} words${older}`);
    say(empty, all ? "No word fits." : "No words yet.");
    empty.hidden = found.length > 0;
    more.hidden = found.length <= this.most;
  }
}

// value: seconds of the source's own time. Of live sources the time of day is told.
function when(cell, word, value) {
  cell.textContent = word.began === null ? clock(value) : ofDay(word.began + value - word.start);
  cell.title = `${clock(value)} of the source's time`;
}

function option(name, value) {
  const made = document.createElement("option");
  made.textContent = name;
  made.value = value;
  return made;
}

function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
