// Loads the network and asks the worker.
const WASM = { cpu: "ort/ort-wasm-simd-threaded.wasm.gz", gpu: "ort/ort-wasm-simd-threaded.jspi.wasm.gz" };
const MODEL = "word.onnx.gz";

export function hasGpu() {
  return "gpu" in navigator && "Suspending" in WebAssembly;
}

export class Reader {
  #worker;
  #waiting = new Map();
  #next = 0;

  // onBytes(loaded, total) while files come in.
  static async open(gpu, onBytes) {
    const reader = new Reader();
    const names = [WASM[gpu ? "gpu" : "cpu"], MODEL];
    const loaded = names.map(() => [0, 0]);
    const files = await Promise.all(names.map((name, i) => bytesOf(name, (done, all) => {
      loaded[i] = [done, all];
      onBytes(...[0, 1].map((k) => loaded.reduce((sum, each) => sum + each[k], 0)));
    })));
    const [wasm, model] = await Promise.all(files.map(unpacked));
    reader.milliseconds = (await reader.#ask("open", { wasm, model, gpu }, [wasm, model])).milliseconds;
    return reader;
  }

  constructor() {
    // Of a blob, which has the page's policy: like the page, the worker can reach no other place.
    const code = `import ${JSON.stringify(new URL("worker.js", import.meta.url).href)};`;
    const link = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
    this.#worker = new Worker(link, { type: "module" });
    this.#worker.onmessage = ({ data: { id, found, error } }) => {
      const { done, failed } = this.#waiting.get(id);
      this.#waiting.delete(id);
      error === undefined ? done(found) : failed(new Error(error));
    };
    this.#worker.onerror = (event) => {
      for (const { failed } of this.#waiting.values()) failed(new Error(event.message || "the worker does not start"));
      this.#waiting.clear();
    };
  }

  // canvas -> { word, confidence, settled, milliseconds }
  read(canvas) {
    const { width, height } = canvas;
    const rgba = canvas.getContext("2d", { willReadFrequently: true }).getImageData(0, 0, width, height).data;
    return this.#ask("read", { rgba, width, height }, [rgba.buffer]);
  }

  close() {
    this.#worker.terminate();
  }

  #ask(what, given, moved) {
    return new Promise((done, failed) => {
      const id = this.#next++;
      this.#waiting.set(id, { done, failed });
      this.#worker.postMessage({ id, what, given }, moved);
    });
  }
}

async function bytesOf(name, onBytes) {
  const answer = await fetch(name);
  if (!answer.ok) throw new Error(`${name}: ${answer.status} ${answer.statusText}`);
  const all = Number(answer.headers.get("Content-Length")) || 0;
  const parts = [];
  let done = 0;
  for (const stream = answer.body.getReader(); ;) {
    const { value, done: over } = await stream.read();
    if (over) break;
    parts.push(value);
    done += value.length;
    onBytes(done, Math.max(all, done));
  }
  return new Blob(parts);
}

// Servers that call a .gz an encoding have had it unpacked already.
async function unpacked(blob) {
  const [first, second] = new Uint8Array(await blob.slice(0, 2).arrayBuffer());
  if (first !== 0x1f || second !== 0x8b) return blob.arrayBuffer();
  return new Response(blob.stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}
