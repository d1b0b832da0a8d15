// SPDX-License-Identifier: Apache-2.0
// Recomputes proto/vectors in JavaScript and fails on any difference. Prints how many cases of each file agree.
import assert from "node:assert/strict";
import { readFileSync, readdirSync } from "node:fs";
import { StandardMerkleTree } from "@openzeppelin/merkle-tree";
import { AbiCoder, TypedDataEncoder, Wallet, verifyTypedData } from "ethers";
import { types } from "./channel.mjs";
import { CODECS, bytes, canonical, chunks, compact, container, datasetRoot, dither, ditherKey, domainOf, hex, inviteFrom, keccak256, leaf,
  resumeFrom, root, sha256, statement, typeOf, uint64, update, updateLeaf, updatesRoot } from "./encoding.mjs";

const FOLDER = new URL("../../proto/vectors/", import.meta.url);
const same = (data, expected) => assert.equal(typeof data === "string" ? data : hex(data), expected);

const floats = (data) => Array.from({ length: data.length / 4 }, (_, index) => data.readFloatLE(4 * index));
const floatBytes = (values) => Buffer.concat(values.map((value) => {
  const cell = Buffer.alloc(4);
  cell.writeFloatLE(value);
  return cell;
}));
const fromBits = (bits) => {
  const cell = Buffer.alloc(4);
  cell.writeUInt32LE(bits >>> 0);
  return cell.readFloatLE();
};
const DECODE = {
  f32: ([data]) => floats(data),
  bf16: ([data]) => Array.from({ length: data.length / 2 }, (_, index) => fromBits(data.readUInt16LE(2 * index) << 16)),
  mxint8: ([data, scales]) => Array.from(data, (_, index) =>
    data.readInt8(index) * 2 ** (scales[Math.floor(index / 32)] - 133)),
  mxint4: ([data, scales], count) => Array.from({ length: count }, (_, index) => {
    const nibble = (data[index >> 1] >> (4 * (index & 1))) & 15;
    return (nibble < 8 ? nibble : nibble - 16) * 2 ** (scales[Math.floor(index / 32)] - 129);
  }),
};

/** Fields of messages.json as protobufjs takes them: hex to bytes. */
const plain = (value) => {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value === "string" && value.startsWith("0x")) return bytes(value);
  if (value === null || typeof value !== "object") return value;
  return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, plain(item)]));
};

/** hash of docs/registry.md: words of 32 bytes after the type's hash. */
const wordsHash = (type, given) => {
  const fields = /\((.*)\)/.exec(type)[1].split(",").map((field) => field.split(" "));
  const names = fields.map(([, name]) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`));
  const words = AbiCoder.defaultAbiCoder().encode(fields.map(([kind]) => kind), names.map((name) => given[name]));
  return keccak256(Buffer.concat([keccak256(Buffer.from(type)), bytes(words)]));
};
const ROLL = "Roll(uint32 round,bytes32 previous,bytes32 recordDigest,bytes32 adapterDigest,bytes32 updatesRoot," +
  "bytes32 scoresRoot,bytes32 payoutRoot,bytes32 seed,uint32 accepted,uint64 weightSum,uint40 deadline)";
const VOID = "Void(uint32 round,bytes32 previous,bytes32 seed,uint40 deadline)";

/** What a round's record says, against the signatures and the root in it. */
function checkRecord({ record, blob, sha256: digest }) {
  same(Buffer.from(canonical(record)), blob);
  same(sha256(bytes(blob)), digest);
  const domain = domainOf(record.chain_id, record.run);
  const leaves = record.updates.map(({ manifest, signature, weight }) => {
    const { tensor_root: tensorRoot, dataset_root: datasetRoot, codec, ...rest } = manifest;
    const message = { ...rest, tensorRoot, datasetRoot, codec: CODECS[codec].number };
    assert.equal(verifyTypedData(domain, typeOf("Manifest"), message, signature).toLowerCase(), manifest.node);
    return updateLeaf(...[manifest.node].map(bytes), weight, ...[manifest.digest, tensorRoot, datasetRoot].map(bytes));
  });
  same(updatesRoot(leaves), record.updates_root);
  for (const [column, held] of [["total", record.scores_root], ["payout", record.payout_root]]) {
    same(standardTree(record.standings.map((row) => [row.node, row[column]]))[0], held);
  }
}

/** Trees of scores and payouts, as docs/protocol.md has them. */
const pair = (one, other) => keccak256(Buffer.concat(Buffer.compare(one, other) < 0 ? [one, other] : [other, one]));
const standardLeaf = (entry) =>
  keccak256(keccak256(bytes(AbiCoder.defaultAbiCoder().encode(["address", "uint256"], entry))));
function standardTree(entries) {
  const leaves = entries.map(standardLeaf).sort(Buffer.compare), nodes = Array(2 * leaves.length - 1);
  leaves.forEach((one, index) => { nodes[nodes.length - 1 - index] = one; });
  for (let at = leaves.length - 2; at >= 0; at -= 1) nodes[at] = pair(nodes[2 * at + 1], nodes[2 * at + 2]);
  return nodes.map(hex);
}

const TREES = {
  plain: ({ leaves }) => root(leaves.map(bytes)),
  updates: ({ updates, leaves }) => {
    const made = updates.map((one) => updateLeaf(
      bytes(one.node), one.weight, ...[one.digest, one.tensor_root, one.dataset_root].map(bytes),
    ));
    assert.deepEqual(made.map(hex), leaves);
    return updatesRoot(made);
  },
  dataset: ({ node, records, leaves }) => {
    const salted = records.map(({ salt, messages }) => [bytes(salt), Buffer.from(canonical(messages))]);
    assert.deepEqual(salted.map((pair) => hex(leaf(...pair))), leaves);
    return datasetRoot(bytes(node), salted);
  },
  roster: ({ members }) => root(members.map((one) =>
    leaf(bytes(one.node), bytes(one.key), bytes(one.payee), bytes(one.dataset_root), uint64(one.records)))),
};

const TOPICS = {
  canonical_json(one) {
    same(Buffer.from(canonical(JSON.parse(one.json))), one.canonical);
    same(sha256(bytes(one.canonical)), one.sha256);
  },
  codecs(one) {
    const values = floats(bytes(one.values));
    assert.equal(CODECS[one.codec].number, one.number);
    const key = ditherKey(bytes(one.run), one.step, bytes(one.node));
    same(key, one.dither);
    const made = CODECS[one.codec].entries({ name: "", shape: [values.length] }, values, dither(key));
    const entries = made.map(({ name, data, ...rest }) => ({ suffix: name, ...rest, data: hex(data) }));
    assert.deepEqual(entries, one.entries);
    same(floatBytes(DECODE[one.codec](one.entries.map((entry) => bytes(entry.data)), values.length)), one.decoded);
  },
  container(one) {
    const made = container(one.entries.map((entry) => ({ ...entry, data: bytes(entry.data) })), one.metadata);
    same(made.header, one.header);
    same(Buffer.concat([made.header, made.data]), one.blob);
    same(sha256(bytes(one.blob)), one.sha256);
  },
  async eip712(one) {
    const name = one.type.split("(")[0], type = typeOf(name);
    assert.equal(TypedDataEncoder.from(type).encodeType(name), one.type);
    if (one.kind) {
      const { kind, digest } = statement(one.kind, bytes(one.payload));
      assert.deepEqual({ kind: hex(kind), digest: hex(digest) }, one.message);
    }
    same(TypedDataEncoder.hashDomain(one.domain), one.separator);
    same(TypedDataEncoder.hashStruct(name, type, one.message), one.struct_hash);
    same(TypedDataEncoder.hash(one.domain, type, one.message), one.digest);
    same(await new Wallet(one.key).signTypedData(one.domain, type, one.message), one.signature);
    same(verifyTypedData(one.domain, type, one.message, one.signature).toLowerCase(), one.signer);
  },
  async membership(one) {
    await this.eip712(one);
    same(compact(one.signature), one.compact);
    if (one.text) {
      const { deadline, r, vs } = inviteFrom(one.text);
      assert.equal(deadline, one.message.deadline);
      same(Buffer.concat([bytes(r), bytes(vs)]), one.compact);
    }
  },
  cohort(one) {
    // the fraction is the decimal as it is written: a product of floats would draw 8 of 100 for 0.07
    const [whole, part = ""] = String(one.fraction).split("."), unit = 10n ** BigInt(part.length);
    const share = Number((BigInt(whole + part) * BigInt(one.roster.length) + unit - 1n) / unit);
    const count = Math.min(one.max_cohort, Math.max(one.min_nodes, share));
    const lot = new Map(one.roster.map((node) => [node, hex(keccak256(Buffer.concat([bytes(one.seed), bytes(node)])))]));
    const drawn = [...one.roster].sort((a, b) => (lot.get(a) < lot.get(b) ? -1 : 1)).slice(0, count).sort();
    assert.deepEqual(drawn, one.cohort);
    assert.equal(Math.max(one.min_nodes, Math.ceil((2 * drawn.length) / 3)), one.quorum);
  },
  merkle(one) {
    same(TREES[one.tree](one), one.root);
  },
  messages(one) {
    const type = types[one.message];
    same(type.serialize(plain(one.fields)), one.serialized);
    same(type.serialize(type.deserialize(bytes(one.serialized))), one.serialized);
  },
  record(one) {
    if (one.record) checkRecord(one);
    else same(one.rolled ? wordsHash(ROLL, one.rolled) : wordsHash(VOID, one.voided), one.hash);
  },
  standard_tree(one) {
    const tree = standardTree(one.entries), made = StandardMerkleTree.of(one.entries, ["address", "uint256"]);
    assert.deepEqual(tree, one.tree);
    assert.deepEqual(made.dump().tree, one.tree);
    same(tree[0], one.root);
    for (const [index, entry] of one.entries.entries()) {
      same(one.tree[one.places[index]], hex(standardLeaf(entry)));
      same(one.proofs[index].map(bytes).reduce(pair, standardLeaf(entry)), one.root);
      assert.deepEqual(made.getProof(entry), one.proofs[index]);
    }
  },
  update(one) {
    const spec = JSON.parse(one.spec);
    const values = Object.fromEntries(Object.entries(one.values).map(([name, data]) => [name, floats(bytes(data))]));
    const { step } = one, [salt, node, base, run] = [one.salt, one.node, one.base, one.run].map(bytes);
    const u = dither(ditherKey(run, step, node));
    const blob = update(spec, step, { salt, node, base, u }, (tensor, index) => values[tensor.name][index]);
    same(blob, one.blob);
    assert.equal(String(blob.length), one.size);
    same(sha256(blob), one.sha256);
  },
  upload(one) {
    if (one.chunks) return assert.deepEqual(chunks(Number(one.size), Number(one.offset)), one.chunks);
    const from = resumeFrom({ ...one.query, digest: bytes(one.query.digest) }, bytes(one.digest));
    return assert.equal(String(from), one.resume_from);
  },
};

const counts = {};
for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".json"))) {
  const topic = file.replace(".json", "");
  const { cases } = JSON.parse(readFileSync(new URL(file, FOLDER)));
  for (const [index, one] of cases.entries()) {
    try {
      await TOPICS[topic](one);
    } catch (error) {
      console.error(`proto/vectors/${file}, case ${index}: ${error.message}`);
      process.exit(1);
    }
  }
  counts[topic] = cases.length;
}
console.log(JSON.stringify(counts));
