// The network, beside the page: the page stays usable while it reads.
let ort, session;

const doing = {
  // wasm, model: their bytes. Returns milliseconds.
  async open({ wasm, model, gpu }) {
    const start = performance.now();
    ort = await import(gpu ? "./ort/ort.jspi.min.mjs" : "./ort/ort.wasm.min.mjs");
    ort.env.wasm.wasmBinary = wasm;
    ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(4, navigator.hardwareConcurrency || 1) : 1;
    ort.env.logLevel = "error";
    session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: [gpu ? "webgpu" : "wasm"] });
    return { milliseconds: performance.now() - start };
  },

  // rgba: height x width x 4 bytes, nothing transparent.
  async read({ rgba, width, height }) {
    const rgb = new Uint8Array(width * height * 3);
    for (let from = 0, to = 0; from < rgba.length; from += 4) {
      rgb[to++] = rgba[from];
      rgb[to++] = rgba[from + 1];
      rgb[to++] = rgba[from + 2];
    }
    const start = performance.now();
    const found = await session.run({ pixels: new ort.Tensor("uint8", rgb, [1, height, width, 3]) });
    const { text, confidence, settled } = found;
    return {
      word: text.data[0], confidence: confidence.data[0], settled: Boolean(settled.data[0]),
      milliseconds: performance.now() - start,
    };
  },
};

// One after the other: a session runs one picture at a time.
let last = Promise.resolve();
self.onmessage = ({ data: { id, what, given } }) => {
  last = last.then(async () => {
    try {
      self.postMessage({ id, found: await doing[what](given) });
    } catch (error) {
      self.postMessage({ id, error: String(error.message ?? error).split("\n")[0] });
    }
  });
};
