// Pictures in, cards with their words out. Names and words are text, never markup.
import { markPart, markShot } from "./marking.js";
import { hasGpu, Reader } from "./reader.js";

const $ = (id) => document.getElementById(id);
const CROP = 700; // pixels: a larger picture is a photo, in which the word is to be marked
const MOST_PIXELS = 64e6; // as clip4str read

let reader = null; // a promise
let jobs = 0;

function say(text, bad = false) {
  $("status").textContent = text;
  $("status").classList.toggle("bad", bad);
}

function open() {
  const gpu = $("gpu").checked, before = reader;
  $("progress").hidden = false;
  reader = (async () => {
    (await before?.catch(() => null))?.close();
    const megabytes = (value) => (value / 1e6).toFixed(1);
    let total = 0;
    const opened = await Reader.open(gpu, (done, all) => {
      total = all;
      $("progress").value = done / all;
      say(done < all ? `Loading the network: ${megabytes(done)} of ${megabytes(all)} MB` : "Starting the network");
    });
    say(`Ready, on ${gpu ? "the GPU" : "the processor"}: ${megabytes(total)} MB loaded`);
    return opened;
  })();
  reader.catch((error) => {
    if (!gpu) return say(`The network does not start: ${error.message}`, true);
    $("gpu").checked = false;
    $("gpu").disabled = true;
    open();
  }).finally(() => { $("progress").hidden = true; });
}

// A file, or what else is a picture -> a canvas, upright, on white
async function drawn(picture) {
  const bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none" });
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [bitmap.width, bitmap.height];
  if (bitmap.width * bitmap.height > MOST_PIXELS) throw new Error("over 64 million pixels");
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0);
  bitmap.close();
  return canvas;
}

async function read(canvas, name, photo = canvas) {
  const card = $("card").content.firstElementChild.cloneNode(true);
  const at = (kind) => card.querySelector(`.${kind}`);
  canvas.setAttribute("role", "img");
  canvas.setAttribute("aria-label", `Picture ${name}`);
  at("crop").append(canvas);
  at("name").textContent = at("name").title = name;
  at("word").textContent = "…";
  at("part").onclick = () => mark(photo, name);
  at("part").setAttribute("aria-label", `Mark a part of ${name}`);
  $("words").append(card);
  $("empty").hidden = true;
  $("clear").hidden = false;
  jobs += 1;
  try {
    const { word, confidence, settled, milliseconds } = await (await reader).read(canvas);
    at("word").textContent = word || "no word";
    at("word").classList.toggle("none", !word);
    card.querySelector("meter").value = confidence;
    at("percent").textContent = `${(100 * confidence).toFixed(1)} %`;
    at("sure").title = `${milliseconds.toFixed(0)} ms${settled ? "" : ", not settled"}`;
    card.dataset.state = "read";
  } catch (error) {
    at("word").textContent = `not read: ${error.message}`;
    at("word").classList.add("none");
    card.dataset.state = "failed";
  }
  jobs -= 1;
  document.body.dataset.reading = jobs;
}

async function mark(photo, name) {
  const part = await markPart(photo);
  if (part) await read(part, name, photo);
}

async function take(files) {
  const pictures = [...files];
  for (const file of pictures) {
    try {
      const canvas = await drawn(file);
      const large = Math.max(canvas.width, canvas.height) > CROP;
      if (large && pictures.length === 1) await mark(canvas, file.name);
      else void read(canvas, file.name);
    } catch {
      say(`${file.name}: not a picture that this browser reads`, true);
    }
  }
}

async function samples() {
  $("samples").disabled = true;
  try {
    for (const name of await (await fetch("samples/samples.json")).json()) {
      const picture = await (await fetch(`samples/${encodeURIComponent(name)}`)).blob();
      void read(await drawn(picture), name);
    }
  } catch (error) {
    say(`The sample words do not load: ${error.message}`, true);
  }
  $("samples").disabled = false;
}

async function camera() {
  try {
    const part = await markShot();
    if (part) await read(part, "camera");
  } catch (error) {
    say(`There is no camera for this page: ${error.message}`, true);
  }
}

$("files").onchange = () => {
  void take($("files").files);
  $("files").value = "";
};
$("samples").onclick = samples;
$("camera").onclick = camera;
$("clear").onclick = () => {
  $("words").replaceChildren();
  $("empty").hidden = false;
  $("clear").hidden = true;
  $("files").focus();
};
$("gpu").onchange = open;
$("gpu-choice").hidden = !hasGpu();
for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
  document.addEventListener(kind, (event) => {
    event.preventDefault();
    $("drop").classList.toggle("over", kind === "dragenter" || kind === "dragover");
    if (kind === "drop") void take(event.dataTransfer.files);
  });
}
document.addEventListener("paste", (event) => void take(event.clipboardData.files));
open();
