// Calls every RPC of a running server with @grpc/grpc-js; ends with 0 when every answer is right.
//
// usage: node client.mjs HOST:PORT ROOT IMAGE LABEL    IMAGE: a file with one image of the demo, 3 x 32 x 32 bytes
import assert from "node:assert/strict";
import fs from "node:fs";
import path from "node:path";
import grpc from "@grpc/grpc-js";
import protoLoader from "@grpc/proto-loader";

const [target, root, imageFile, label] = process.argv.slice(2);
const image = fs.readFileSync(imageFile);
const labels = fs.readFileSync(path.join(root, "demo/models/glyphs/labels.txt"), "utf8").split("\n");

const definition = protoLoader.loadSync(["proto/inference.proto", "proto/health.proto"], {
  includeDirs: [root],
  keepCase: true,
  longs: Number,
  enums: String,
  defaults: true,
});
const packages = grpc.loadPackageDefinition(definition);
const called = new Set();

function open(Client) {
  const client = new Client(target, grpc.credentials.createInsecure());
  const deadline = () => ({ deadline: Date.now() + 20_000 });
  return {
    client,
    unary: (name, request = {}, metadata = new grpc.Metadata()) => {
      called.add(name);
      return new Promise((resolve, reject) => {
        client[name](request, metadata, deadline(), (error, response) => (error ? reject(error) : resolve(response)));
      });
    },
    stream: (name, ...words) => {
      called.add(name);
      return client[name](...words, new grpc.Metadata(), deadline());
    },
    close: () => client.close(),
  };
}

const inference = open(packages.inference.GRPCInferenceService);
const health = open(packages.grpc.health.v1.Health);

function imageRequest(changes = {}) {
  return {
    model_name: "glyphs",
    id: "from node",
    inputs: [{ name: "image", datatype: "UINT8", shape: [1, 3, 32, 32] }],
    raw_input_contents: [image],
    ...changes,
  };
}

function best(response) {
  const bytes = Buffer.from(response.raw_output_contents[0]); // a copy is aligned
  const logits = new Float32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
  return logits.indexOf(Math.max(...logits));
}

async function refused(code, promise, words) {
  await assert.rejects(promise, (error) => {
    assert.equal(error.code, code, error.message);
    assert.match(error.details, words);
    return true;
  });
  await inference.unary("ModelInfer", imageRequest());
}

async function infers() {
  for (const precision of ["fp32", "int8"]) {
    const parameters = { precision: { string_param: precision } };
    const response = await inference.unary("ModelInfer", imageRequest({ parameters }));
    assert.equal(response.parameters.precision.string_param, precision);
    assert.equal(response.id, "from node");
    assert.equal(response.model_version, "1");
    assert.equal(labels[best(response)], label);
  }
  const metadata = new grpc.Metadata();
  metadata.set("x-octet-precision", "int8");
  const byMetadata = await inference.unary("ModelInfer", imageRequest(), metadata);
  assert.equal(byMetadata.parameters.precision.string_param, "int8");
  const typed = imageRequest({
    inputs: [{ name: "image", datatype: "UINT8", shape: [1, 3, 32, 32], contents: { uint_contents: [...image] } }],
    raw_input_contents: [],
  });
  assert.equal(labels[best(await inference.unary("ModelInfer", typed))], label);
}

async function refuses() {
  const { INVALID_ARGUMENT, NOT_FOUND, UNAVAILABLE, RESOURCE_EXHAUSTED } = grpc.status;
  const infer = (changes) => inference.unary("ModelInfer", imageRequest(changes));
  const input = { name: "image", datatype: "UINT8", shape: [1, 3, 32, 32] };
  await refused(NOT_FOUND, infer({ model_name: "nobody" }), /^Request for unknown model/);
  await refused(NOT_FOUND, infer({ model_version: "9" }), /^Request for unknown model/);
  await refused(UNAVAILABLE, infer({ model_name: "garbage" }), /garbage/);
  await refused(INVALID_ARGUMENT, infer({ inputs: [{ ...input, name: "x" }] }), /unknown input "x"/);
  await refused(INVALID_ARGUMENT, infer({ inputs: [{ ...input, datatype: "FP64" }] }), /expected FP32 or UINT8, got FP64/);
  await refused(INVALID_ARGUMENT, infer({ inputs: [{ ...input, shape: [1, 3, 32] }] }), /shape, expected \[\?,3,32,32\]/);
  await refused(INVALID_ARGUMENT, infer({ inputs: [], raw_input_contents: [] }), /missing input "image"/);
  await refused(INVALID_ARGUMENT, infer({ inputs: [input, input], raw_input_contents: [image, image] }), /comes twice/);
  await refused(INVALID_ARGUMENT, infer({ raw_input_contents: [image.subarray(1)] }), /expected 3072 .* got 3071/);
  await refused(RESOURCE_EXHAUSTED, infer({ raw_input_contents: [Buffer.alloc(2 ** 20 + 1)] }), /./);
}

async function describes() {
  assert.equal((await inference.unary("ServerLive")).live, true);
  assert.equal((await inference.unary("ServerReady")).ready, true);
  assert.equal((await inference.unary("ModelReady", { name: "glyphs" })).ready, true);
  assert.equal((await inference.unary("ServerMetadata")).name, "octet");
  const metadata = await inference.unary("ModelMetadata", { name: "glyphs" });
  assert.deepEqual(metadata.inputs[0].shape, [-1, 3, 32, 32]);
  const { config } = await inference.unary("ModelConfig", { name: "glyphs" });
  assert.equal(config.input[0].data_type, "TYPE_FP32");
  assert.deepEqual(config.input[0].dims, [3, 32, 32]);
  const { model_stats: [statistics] } = await inference.unary("ModelStatistics", { name: "glyphs" });
  assert.ok(statistics.inference_count > 0);
  const { models } = await inference.unary("RepositoryIndex");
  assert.equal(models.find(({ name }) => name === "glyphs").state, "READY");
  assert.equal(models.find(({ name }) => name === "garbage").state, "UNAVAILABLE");
}

async function loadsAndUnloads() {
  await inference.unary("RepositoryModelUnload", {
    model_name: "nan",
    parameters: { unload_dependents: { bool_param: false } },
  });
  assert.equal((await inference.unary("ModelReady", { name: "nan" })).ready, false);
  await inference.unary("RepositoryModelLoad", { model_name: "nan" });
  assert.equal((await inference.unary("ModelReady", { name: "nan" })).ready, true);
  await refused(grpc.status.NOT_FOUND, inference.unary("RepositoryModelLoad", { model_name: "nobody" }), /nobody/);
}

async function saysWhatItHasNot() {
  for (const kind of ["System", "Cuda"]) {
    assert.deepEqual((await inference.unary(`${kind}SharedMemoryStatus`)).regions, {});
    await inference.unary(`${kind}SharedMemoryUnregister`);
    await refused(grpc.status.UNIMPLEMENTED, inference.unary(`${kind}SharedMemoryRegister`, { name: "a" }), /not supported/);
  }
  assert.deepEqual((await inference.unary("TraceSetting")).settings.trace_level.value, ["OFF"]);
}

async function changesTheLog() {
  const before = (await inference.unary("LogSettings")).settings;
  assert.equal(before.log_info.bool_param, true);
  const after = (await inference.unary("LogSettings", { settings: { log_info: { bool_param: false } } })).settings;
  assert.equal(after.log_info.bool_param, false);
  await inference.unary("LogSettings", { settings: { log_info: { bool_param: true } } });
  assert.deepEqual((await inference.unary("LogSettings")).settings, before);
}

async function streams() {
  const stream = inference.stream("ModelStreamInfer");
  const count = 40;
  for (let i = 0; i < count; i++) {
    const name = i % 10 === 3 ? "x" : "image";
    stream.write(imageRequest({ id: `${i}`, inputs: [{ name, datatype: "UINT8", shape: [1, 3, 32, 32] }] }));
  }
  stream.end();
  let next = 0;
  for await (const { error_message, infer_response } of stream) {
    assert.equal(infer_response.id, `${next}`);
    if (next % 10 === 3) assert.match(error_message, /unknown input "x"/);
    else assert.equal(labels[best(infer_response)], label);
    next++;
  }
  assert.equal(next, count);
}

async function isHealthy() {
  assert.equal((await health.unary("Check")).status, "SERVING");
  assert.equal((await health.unary("Check", { service: "glyphs" })).status, "SERVING");
  assert.equal((await health.unary("Check", { service: "garbage" })).status, "NOT_SERVING");
  const watch = health.stream("Watch", {});
  const first = await new Promise((resolve, reject) => watch.once("data", resolve).once("error", reject));
  assert.equal(first.status, "SERVING");
  watch.on("error", () => {}); // the cancellation itself
  watch.cancel();
}

for (const step of [infers, refuses, describes, loadsAndUnloads, saysWhatItHasNot, changesTheLog, streams, isHealthy]) {
  await step();
  console.log(`ok ${step.name}`);
}
const services = [packages.inference.GRPCInferenceService.service, packages.grpc.health.v1.Health.service];
assert.deepEqual(services.flatMap(Object.keys).filter((name) => !called.has(name)), []);
inference.close();
health.close();
