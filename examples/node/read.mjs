// node read.mjs word.onnx PICTURE...: the word in each picture and how sure it is, a line each. word.onnx is written by
// clip4str export --resize --strings --output word.onnx
import ort from "onnxruntime-node";
import sharp from "sharp";

const [file, ...pictures] = process.argv.slice(2);
if (!file || pictures.length === 0) {
  console.error("usage: node read.mjs word.onnx PICTURE...");
  process.exit(2);
}
let failed = false;
try {
  const session = await ort.InferenceSession.create(file);
  if (!session.outputNames.includes("text")) {
    throw new Error("it gives no text: export it with --resize --strings");
  }
  for (const picture of pictures) {
    try {
      // upright, on white, three bytes a pixel: what the network was trained to read
      const image = sharp(picture).rotate().flatten({ background: "white" }).toColourspace("srgb");
      const { data, info } = await image.raw().toBuffer({ resolveWithObject: true });
      const pixels = new ort.Tensor("uint8", data, [1, info.height, info.width, info.channels]);
      const { text, confidence, settled } = await session.run({ pixels });
      console.log(JSON.stringify({
        picture, word: text.data[0], confidence: confidence.data[0], settled: Boolean(settled.data[0]),
      }));
    } catch (error) {
      failed = true;
      console.error(`${picture}: ${error.message.split("\n")[0]}`);
    }
  }
} catch (error) {
  failed = true;
  console.error(`${file}: ${error.message.split("\n")[0]}`);
}
process.exitCode = failed ? 2 : 0;
