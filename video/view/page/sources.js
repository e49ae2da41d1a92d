// The list of sources: which one is watched, and how each is.
import { seconds } from "./times.js";

const STATES = { waiting: "waiting", live: "live", frozen: "stands still", dead: "dead", ended: "ended" };

export class Sources {
  constructor(field, selected) {
    this.field = field;
    this.selected = selected;
    this.rows = [];
    this.names = [];
  }

  begin(names) {
    const chosen = Math.max(0, this.rows.findIndex((row) => row.radio.checked));
    for (const row of this.rows) row.label.remove();
    this.names = names;
    this.rows = names.map((name, number) => this.row(name, number));
    this.select(Math.min(chosen, names.length - 1));
  }

  row(name, number) {
    const label = document.createElement("label");
    const radio = document.createElement("input");
    radio.type = "radio";
    radio.name = "watched";
    radio.addEventListener("change", () => this.selected(number));
    const parts = { label, radio };
    for (const part of ["name", "badge", "figures"]) {
      parts[part] = document.createElement("span");
      parts[part].className = part;
    }
    parts.name.textContent = name;
    parts.name.title = name;
    label.append(radio, parts.name, parts.badge, parts.figures);
    this.field.append(label);
    return parts;
  }

  name(number) {
    return this.names[number] ?? "";
  }

  select(number) {
    if (!this.rows[number]) return;
    this.rows[number].radio.checked = true;
    this.selected(number);
  }

  take(sources) {
    sources.forEach((now, number) => {
      const row = this.rows[number];
      if (!row) return;
      const age = now.state === "dead" ? ` for ${seconds(now.age)}` : "";
      row.badge.textContent = (STATES[now.state] ?? now.state) + age;
      row.badge.dataset.state = now.state;
      row.figures.textContent = figures(now).join(" · ");
    });
  }

  disconnect(why) {
    for (const row of this.rows) {
      row.badge.textContent = why;
      row.badge.dataset.state = "waiting";
    }
  }
}

function figures(now) {
  const told = [];
  if (now.width) told.push(`${now.width} x ${now.height}`);
  if (now.rate !== null && now.state !== "dead" && now.state !== "ended") told.push(`${now.rate.toFixed(1)} frames/s`);
  if (now.latency !== null) told.push(`latency ${Math.round(1000 * now.latency)} ms`);
  told.push(`${now.dropped} of ${now.frames + now.dropped} frames dropped`);
  if (now.damaged) told.push(`${now.damaged} damaged`);
  if (now.gaps) told.push(`${now.gaps} ${now.gaps === 1 ? "gap" : "gaps"}`);
  if (now.reconnects) told.push(`${now.reconnects} ${now.reconnects === 1 ? "reconnect" : "reconnects"}`);
  return told;
}
