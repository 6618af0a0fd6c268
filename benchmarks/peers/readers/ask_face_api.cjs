// npm @vladmandic/face-api: its own predictAgeAndGender on the crop; its detector is left out.

"use strict";
const path = require("path");
const { answerAll, load, modules, tensorflow } = require("./jobs.cjs");

(async () => {
  const tf = await tensorflow();
  const faceapi = load("@vladmandic/face-api/dist/face-api.node-wasm.js");
  await faceapi.nets.ageGenderNet.loadFromDisk(path.join(modules, "@vladmandic/face-api/model"));
  await answerAll(async ({ data, height, width }) => {
    const image = tf.tensor3d(data, [height, width, 3], "int32");
    const { age, gender } = await faceapi.nets.ageGenderNet.predictAgeAndGender(image);
    image.dispose();
    return { age, gender };
  });
})();
