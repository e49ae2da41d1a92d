// The connection to the program: server-sent events in, everything else of the page told of them.
import { Picture } from "./picture.js";
import { Sources } from "./sources.js";
import { Words } from "./words.js";

const SILENCE = 6000; // milliseconds without a message (one a second is usual) until the connection is given up
const LONGEST_WAIT = 5000; // milliseconds from attempt to attempt

const $ = (id) => document.getElementById(id);
const picture = new Picture($("stage"), (key) => words.mark(key));
const sources = new Sources($("sources"), (number) => picture.watch(number, sources.name(number)));
const words = new Words(
  { text: $("text"), source: $("source"), present: $("present"), count: $("count"), empty: $("empty"), more: $("more"),
    table: $("words") },
  (source, track, chosen) => {
    if (chosen) sources.select(source);
    picture.mark(source, track);
  },
);

let events = null;
let last = ""; // identity of the last message, to go on from
let ended = false;
let attempts = 0;
let timer = 0;
let watchdog = 0;

function connect() {
  disconnect();
  if (document.hidden) return; // a browser opens few connections to one server: hidden tabs leave theirs to others
  events = new EventSource(`events?last=${encodeURIComponent(last)}`);
  events.onerror = lost;
  events.addEventListener("begin", (message) => {
    const about = heard(message);
    words.begin(about.sources, about.kept);
    sources.begin(about.sources);
  });
  events.addEventListener("words", (message) => words.take(heard(message)));
  events.addEventListener("status", (message) => {
    const status = heard(message);
    sources.take(status.sources);
    words.status(status);
    picture.status(status.sources);
    state("live", "connected");
    picture.connect();
  });
  events.addEventListener("end", () => {
    ended = true;
    lost();
  });
  watch();
}

function heard(message) {
  last = message.lastEventId || last;
  attempts = 0;
  ended = false;
  watch();
  return JSON.parse(message.data);
}

function watch() {
  clearTimeout(watchdog);
  watchdog = setTimeout(lost, SILENCE);
}

function disconnect() {
  clearTimeout(timer);
  clearTimeout(watchdog);
  if (events) events.close();
  events = null;
}

async function lost() {
  disconnect();
  const why = ended ? "the program has ended" : "connection lost";
  state(ended ? "ended" : "dead", ended ? why : `${why}, trying again`);
  picture.disconnect(why);
  sources.disconnect(ended ? "ended" : "not known");
  attempts += 1;
  timer = setTimeout(connect, Math.min(LONGEST_WAIT, 500 * 2 ** Math.min(attempts, 8)));
  if (await refused()) {
    state("dead", "not let in: open the address that clip4str printed");
  }
}

async function refused() {
  try {
    return (await fetch("./", { method: "HEAD" })).status === 401;
  } catch {
    return false;
  }
}

function state(kind, text) {
  const badge = $("connection");
  if (badge.textContent !== text) badge.textContent = text;
  badge.dataset.state = kind;
  $("download").toggleAttribute("inert", kind !== "live");
}

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    disconnect();
    picture.disconnect("paused while hidden");
  } else {
    connect();
  }
});
$("filter").addEventListener("submit", (event) => event.preventDefault());
connect();
