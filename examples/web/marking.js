// A photo, from a file or the camera, and the box around a word in it.
const $ = (id) => document.getElementById(id);
const LEAST = 8; // pixels of the photo

let box = { x: 0, y: 0, width: 0, height: 0 }; // in pixels of the photo
let stream = null, finish = null;

// canvas -> a canvas of the marked part, or null
export function markPart(photo) {
  show(photo);
  return opened();
}

// null, or a canvas of the marked part of a picture that the camera takes
export async function markShot() {
  const video = $("video");
  stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  video.srcObject = stream;
  staged("video");
  const part = opened();
  await video.play();
  return part;
}

function opened() {
  $("marking").showModal();
  ($("read").hidden ? $("shoot") : $("box")).focus();
  return new Promise((done) => { finish = done; });
}

function staged(what) {
  const live = what === "video";
  for (const [id, shown] of [["video", live], ["shoot", live], ["photo", !live], ["box", !live], ["read", !live]]) $(id).hidden = !shown;
  $("marking-title").textContent = live ? "Take a picture of the word" : "Mark the word";
  $("marking-help").hidden = live;
}

function show(picture) {
  const [width, height] = [picture.videoWidth || picture.width, picture.videoHeight || picture.height];
  const photo = $("photo");
  [photo.width, photo.height] = [width, height];
  photo.getContext("2d", { willReadFrequently: true }).drawImage(picture, 0, 0);
  staged("photo");
  place({ x: width * 0.2, y: height * 0.35, width: width * 0.6, height: height * 0.3 });
}

function place(wanted) {
  const { width: most, height: tall } = $("photo");
  const width = Math.min(Math.max(wanted.width, Math.min(LEAST, most)), most);
  const height = Math.min(Math.max(wanted.height, Math.min(LEAST, tall)), tall);
  box = { width, height, x: Math.min(Math.max(wanted.x, 0), most - width), y: Math.min(Math.max(wanted.y, 0), tall - height) };
  const style = $("box").style;
  [style.left, style.width] = [box.x, box.width].map((value) => `${100 * value / most}%`);
  [style.top, style.height] = [box.y, box.height].map((value) => `${100 * value / tall}%`);
}

function close(part) {
  stream?.getTracks().forEach((track) => track.stop());
  stream = $("video").srcObject = null;
  $("marking").close();
  finish?.(part);
  finish = null;
}

function read() {
  const part = document.createElement("canvas");
  const [x, y, width, height] = [box.x, box.y, box.width, box.height].map(Math.round);
  [part.width, part.height] = [width, height];
  part.getContext("2d", { willReadFrequently: true }).drawImage($("photo"), x, y, width, height, 0, 0, width, height);
  close(part);
}

$("cancel").onclick = () => close(null);
$("marking").oncancel = () => close(null);
$("read").onclick = read;
$("shoot").onclick = () => {
  show($("video"));
  stream?.getTracks().forEach((track) => track.stop());
  $("box").focus();
};
$("box").onkeydown = (event) => {
  const [x, y] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0];
  if (event.key === "Enter") read();
  else if (!x && !y) return;
  const step = Math.max(2, $("photo").width / 100);
  if (event.shiftKey) place({ ...box, width: box.width + x * step, height: box.height + y * step });
  else place({ ...box, x: box.x + x * step, y: box.y + y * step });
  event.preventDefault();
};
$("photo").onpointerdown = (event) => {
  const photo = $("photo");
  const at = ({ clientX, clientY }) => {
    const { left, top, width, height } = photo.getBoundingClientRect();
    return [(clientX - left) * photo.width / width, (clientY - top) * photo.height / height];
  };
  const [x, y] = at(event);
  photo.setPointerCapture(event.pointerId);
  photo.onpointermove = (moved) => {
    const [u, v] = at(moved).map((value, i) => Math.min(Math.max(value, 0), i ? photo.height : photo.width));
    place({ x: Math.min(x, u), y: Math.min(y, v), width: Math.abs(u - x), height: Math.abs(v - y) });
  };
  photo.onpointerup = photo.onpointercancel = () => { photo.onpointermove = null; };
  event.preventDefault();
};
