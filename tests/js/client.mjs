// SPDX-License-Identifier: Apache-2.0
// One node of a run in JavaScript: joins, waits for the round, sends one update and keeps its receipt.
//
//     node client.mjs --rpc URL --run ADDRESS --key FILE [--deploy-block N] [--invite TEXT]
//
// It trains nothing: its update holds small fixed numbers. It breaks its first upload in the middle on purpose and goes
// on from the committed offset. Prints one line of JSON: {"receipt": ..., "resumed_from": n}.
import { readFileSync } from "node:fs";
import { createHmac } from "node:crypto";
import { parseArgs } from "node:util";
import { Contract, JsonRpcProvider, NonceManager, TypedDataEncoder, Wallet, ZeroAddress, verifyTypedData }
  from "ethers";
import { connect, types } from "./channel.mjs";
import { CHUNK, CODECS, NO_INVITE, ZERO, bytes, canonical, chunks, datasetRoot, domainOf, hex, inviteFrom, resumeFrom,
  sha256, statement, typeOf, update } from "./encoding.mjs";

const { values: options } = parseArgs({ options: {
  rpc: { type: "string" }, run: { type: "string" }, key: { type: "string" },
  "deploy-block": { type: "string", default: "0" }, invite: { type: "string" },
} });
const ABI = JSON.parse(readFileSync(new URL("../../flb/chain/abi/FLBRun.json", import.meta.url))).abi;
const WAIT_MS = 120_000;

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const check = (fact, sentence) => { if (!fact) throw new Error(sentence); };

/** Asks until the answer is something. */
async function until(ask, what) {
  for (const end = Date.now() + WAIT_MS; Date.now() < end; await pause(100)) {
    const answer = await ask();
    if (answer !== undefined) return answer;
  }
  throw new Error(`timed out waiting for ${what}`);
}

// --- the chain: who we are, what the run is, which round is open

const provider = new JsonRpcProvider(options.rpc, undefined, { pollingInterval: 100, cacheTimeout: -1 });
const wallet = new Wallet(hex(bytes(readFileSync(options.key, "utf8").trim())), provider);
const contract = new Contract(options.run, ABI, new NonceManager(wallet));
const chainId = Number((await provider.getNetwork()).chainId);
const domain = domainOf(chainId, options.run);
const node = bytes(wallet.address);

const logs = (name) => contract.queryFilter(name, Number(options["deploy-block"]));
const mined = async (sent) => (await sent).wait();

/** Joins and commits to two records. Salts come from the key, so that the root is the same after a restart. */
async function enter() {
  const salt = (index) => createHmac("sha256", bytes(wallet.privateKey)).update(`record ${index}`).digest();
  const records = [0, 1].map((index) => [salt(index), Buffer.from(canonical([
    { role: "user", content: `${index}?` }, { role: "assistant", content: `It is ${index}.` },
  ]))]);
  const root = datasetRoot(node, records);
  const { status, datasets } = await contract.member(wallet.address);
  if (Number(status) !== 1) await mined(contract.join(ZeroAddress, options.invite ? inviteFrom(options.invite) : NO_INVITE));
  if (Number(status) !== 1 || Number(datasets) === 0) await mined(contract.registerDataset(wallet.address, root, records.length));
  return { root, count: records.length };
}

/** The open round: its number and step from `head`, seed and base from the event that opened it. */
async function opening() {
  const [round, sealed] = await contract.head();
  if (Number(round) === 0) return undefined;
  const opened = [...await logs("RunStarted"), ...await logs("RoundRolled"), ...await logs("RoundVoided")]
    .sort((a, b) => a.blockNumber - b.blockNumber || a.index - b.index);
  const base = opened.findLast((event) => event.args.adapterDigest).args.adapterDigest;
  const last = opened.at(-1).args;
  if (Number(last.round ?? 0) + 1 !== Number(round)) return undefined; // the chain moved on between the questions
  return { round: Number(round), step: Number(sealed) + 1, seed: bytes(last.seed), base: bytes(base) };
}

async function signedBy(name, message, signature) {
  const signer = verifyTypedData(domain, typeOf(name), message, hex(signature));
  check(signer === await contract.aggregator(), `the ${name} is not signed by the run's aggregator`);
}

// --- the aggregator: spec, session, round, adapter

async function getRun(service) {
  const answer = await service.call("GetRun", {});
  const digest = sha256(answer.spec);
  check(hex(digest) === await contract.spec(), "the run spec is not the one on chain");
  await signedBy("Statement", statement("flb.v1.GetRun", answer.spec), answer.signature);
  const spec = JSON.parse(answer.spec);
  check(canonical(spec) === answer.spec.toString(), "the run spec is not canonical JSON");
  return { spec, digest };
}

async function openSession(service, certDigest) {
  const registry = { chain_id: chainId, run: bytes(options.run) };
  const { challenge } = await until(() => service.call("OpenSession", { node, ...registry }).catch((error) => {
    if (error.flb !== "not-in-cohort") throw error; // the aggregator has not seen our joining yet
  }), "the aggregator to know this member");
  const session = { node, nonce: challenge.nonce, cert_digest: certDigest, expires: challenge.expires };
  const signed = { node, nonce: challenge.nonce, certDigest, expires: challenge.expires };
  const signature = bytes(await wallet.signTypedData(domain, typeOf("Session"), { ...signed, node: wallet.address }));
  service.token = (await service.call("OpenSession", { session: { ...session, signature }, ...registry })).token;
}

/** Follows the aggregator's signed announcements until its intake is open, then compares them with the chain. */
async function awaitRound(service) {
  for await (const { state, signature } of service.stream("WatchRounds", {})) {
    await signedBy("Statement", statement("flb.v1.RoundState", state), signature);
    const round = types.RoundState.deserialize(state);
    check(round.phase !== "ROUND_PHASE_FINISHED", "the run is over");
    if (round.phase !== "ROUND_PHASE_INTAKE") continue;
    const opened = await until(opening, "the round on chain");
    if (opened.round !== round.round) continue;
    check(opened.seed.equals(round.seed) && opened.base.equals(round.base), "the aggregator announces another round");
    check(round.cohort.some((member) => member.equals(node)), "this node is not in the cohort of the round");
    return opened;
  }
}

/** A blob by its digest; a broken stream goes on from the first byte that is missing. */
async function download(service, digest) {
  let held = Buffer.alloc(0), size;
  for (let tries = 0; size === undefined || held.length < size; tries++) {
    try {
      for await (const part of service.stream("DownloadBlob", { digest, offset: held.length })) {
        if (Number(part.size)) size = Number(part.size);
        held = Buffer.concat([held, part.data]);
      }
    } catch (error) {
      if (error.flb || tries === 5) throw error;
    }
  }
  check(sha256(held).equals(digest), "the adapter does not have the digest that is on chain");
  return held;
}

// --- the upload

/** Starts an upload; `answer` settles with the receipt or the refusal. */
function upload(service, manifest, offset) {
  let call;
  const answer = new Promise((resolve, reject) => {
    call = service.open("UploadUpdate", (error, response) => (error ? reject(error) : resolve(response)));
  });
  call.write({ header: { manifest, offset, codec_error: 0 } });
  return { call, answer };
}

/** Sends a first part, waits until the aggregator holds it, and hangs up. */
async function breakOff(service, manifest, blob) {
  const first = Math.min(CHUNK, Math.ceil(blob.length / 2));
  const { call, answer } = upload(service, manifest, 0);
  const ended = answer.catch((error) => error);
  call.write({ data: blob.subarray(0, first) });
  const { round, seed } = manifest;
  await until(async () => {
    const held = await service.call("QueryUpload", { round, seed });
    return Number(held.committed) === first ? held : undefined;
  }, "the first part to arrive");
  call.cancel();
  check((await ended) instanceof Error, "an upload that was broken off was answered");
}

/** Goes on from the committed offset; the receipt, and where the upload went on. */
async function deliver(service, manifest, blob) {
  const { round, seed } = manifest;
  const held = await service.call("QueryUpload", { round, seed });
  if (held.receipt) return { receipt: held.receipt, from: blob.length };
  const from = resumeFrom(held, manifest.digest);
  const { call, answer } = upload(service, manifest, from);
  for (const [at, length] of chunks(blob.length, from)) {
    if (!call.write({ data: blob.subarray(at, at + length) })) {
      await Promise.race([new Promise((resolve) => call.once("drain", resolve)), answer]);
    }
  }
  call.end();
  return { receipt: (await answer).receipt, from };
}

/** Names of the wire to names of EIP-712, bytes to hex. */
const typed = (name, message) => Object.fromEntries(typeOf(name)[name].map(({ name: field, type }) => {
  const value = message[field.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`)];
  if (Buffer.isBuffer(value)) return [field, hex(value)];
  return [field, type === "uint8" ? CODECS[value.replace("CODEC_", "").toLowerCase()].number : value];
}));

async function checkReceipt(receipt, manifest, statedHash, records) {
  const expected = { ...manifest, manifest: bytes(statedHash), weight: receipt.weight };
  await signedBy("Receipt", typed("Receipt", receipt), receipt.signature);
  const same = canonical(typed("Receipt", receipt)) === canonical(typed("Receipt", expected));
  check(same, "the receipt is for another update");
  check(Number(receipt.weight) >= 1 && Number(receipt.weight) <= records, "the receipt's weight is wrong");
}

async function main() {
  const dataset = await enter();
  const published = async () => (await logs("EndpointSet")).findLast((event) => event.args.uri)?.args;
  const endpoint = await until(published, "the aggregator's endpoint on chain");
  const { service, certDigest } = await connect(endpoint);
  const { spec, digest: specDigest } = await getRun(service);
  await openSession(service, certDigest);
  const { round, step, seed, base } = await awaitRound(service);
  await download(service, base);
  const salt = createHmac("sha256", bytes(wallet.privateKey)).update(`update ${step}`).update(base).digest();
  const blob = update(spec, step, { salt, node, base }, (_, index) => ((index * 37 + node[0]) % 201 - 100) / 65536);
  const manifest = {
    node, round, seed, spec: specDigest, base, digest: sha256(blob), tensor_root: ZERO, dataset_root: dataset.root,
    size: blob.length, examples: dataset.count, codec: `CODEC_${spec.codec.toUpperCase()}`,
  };
  const message = typed("Manifest", manifest);
  manifest.signature = bytes(await wallet.signTypedData(domain, typeOf("Manifest"), message));
  await breakOff(service, manifest, blob);
  const { receipt, from } = await deliver(service, manifest, blob);
  const statedHash = TypedDataEncoder.hashStruct("Manifest", typeOf("Manifest"), message);
  await checkReceipt(receipt, manifest, statedHash, dataset.count);
  console.log(JSON.stringify({ receipt: typed("Receipt", receipt), size: blob.length, resumed_from: from }));
  service.close();
  provider.destroy();
}

try {
  await main();
} catch (error) {
  console.error(`${error.message}${error.flb ? ` [${error.flb}]` : ""}`);
  process.exit(1);
}
