// What the node scripts here share: the same request and answers as jobs.py, and TensorFlow.js on one thread of WASM.
//
//     node ask_something.cjs REQUEST.json ANSWERS.jsonl ENVIRONMENT

"use strict";
const fs = require("fs");
const path = require("path");
const { createRequire } = require("module");

const [, , requestFile, answersFile, environment] = process.argv;
const request = JSON.parse(fs.readFileSync(requestFile, "utf8"));
const modules = path.join(environment, "node_modules");
const load = createRequire(path.join(environment, "package.json"));
const WARM_UP = 3; // the first calls compile

async function tensorflow() {
  const tf = load("@tensorflow/tfjs");
  const wasm = load("@tensorflow/tfjs-backend-wasm");
  wasm.setWasmPaths(path.join(modules, "@tensorflow/tfjs-backend-wasm/dist/"));
  wasm.setThreadsCount(1);
  await tf.setBackend("wasm");
  await tf.ready();
  return tf;
}

async function attempt(read, image) {
  try {
    return await read(image);
  } catch (error) {
    return { error: `${error.name}: ${error.message}` }; // whatever a package throws is its answer
  }
}

// Calls read({data: Uint8Array RGB, height, width}) for every job and writes what it resolves to, with milliseconds.
async function answerAll(read) {
  const pixels = fs.openSync(request.pixels, "r");
  const out = fs.openSync(answersFile, "w");
  const crop = ({ offset, height, width }) => {
    const data = new Uint8Array(height * width * 3);
    fs.readSync(pixels, data, 0, data.length, offset);
    return { data, height, width };
  };
  for (const job of request.jobs.slice(0, WARM_UP)) await attempt(read, crop(job));
  for (const job of request.jobs) {
    const image = crop(job);
    const begin = process.cpuUsage(); // the processor's time, as in jobs.py
    const found = await attempt(read, image);
    const { user, system } = process.cpuUsage(begin);
    const milliseconds = (user + system) / 1000;
    fs.writeSync(out, JSON.stringify({ file: job.file, milliseconds, ...found }) + "\n");
  }
  fs.closeSync(out);
}

module.exports = { answerAll, load, modules, options: request.options, tensorflow };
