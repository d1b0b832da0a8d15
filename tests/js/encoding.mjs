// SPDX-License-Identifier: Apache-2.0
// The bytes of the protocol: canonical JSON, containers, codecs, trees and signed types. No I/O.
// Written from docs/protocol.md and proto/vectors alone; vectors.mjs holds it against them.
import { createCipheriv, createHash } from "node:crypto";
import { getBytes, keccak256 as keccakHex } from "ethers";

export const hex = (bytes) => "0x" + Buffer.from(bytes).toString("hex");
export const bytes = (text) => Buffer.from(text.replace(/^0x/, ""), "hex");
export const sha256 = (data) => createHash("sha256").update(data).digest();
export const keccak256 = (data) => Buffer.from(getBytes(keccakHex(data)));
export const ZERO = Buffer.alloc(32);

/** RFC 8785. JavaScript's own numbers and strings are its model; names are sorted by UTF-16 units, as `sort` does. */
export function canonical(value) {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (value === null || typeof value !== "object") return JSON.stringify(value);
  const fields = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
  return `{${fields.join(",")}}`;
}

// --- signed types

const fields = (text) => text.split(",").map((field) => {
  const [type, name] = field.trim().split(" ");
  return { type, name };
});
export const TYPES = {
  Manifest: fields("address node,uint32 round,bytes32 seed,bytes32 spec,bytes32 base,bytes32 digest," +
    "bytes32 tensorRoot,bytes32 datasetRoot,uint64 size,uint64 examples,uint8 codec"),
  Receipt: fields("address node,uint32 round,bytes32 seed,bytes32 spec,bytes32 digest,bytes32 tensorRoot," +
    "bytes32 datasetRoot,uint64 weight,bytes32 manifest"),
  Session: fields("address node,bytes32 nonce,bytes32 certDigest,uint40 expires"),
  Statement: fields("bytes32 kind,bytes32 digest"),
  Join: fields("address node,address payee,uint32 seq,uint40 deadline"),
  Leave: fields("address node,uint32 seq,uint40 deadline"),
  RotateKey: fields("address node,address key,uint32 seq,uint40 deadline"),
  RegisterDataset: fields("address node,bytes32 root,uint64 records,uint32 seq,uint40 deadline"),
  RevokeDataset: fields("address node,bytes32 root,uint32 seq,uint40 deadline"),
  Invite: fields("address node,uint16 removals,uint40 deadline"),
};
/** The one type that is signed; ethers refuses types that the primary one does not use. */
export const typeOf = (name) => ({ [name]: TYPES[name] });
export const domainOf = (chainId, run) => ({ name: "FLBRun", version: "1", chainId, verifyingContract: run });
export const statement = (kind, payload) => ({ kind: keccak256(Buffer.from(kind)), digest: keccak256(payload) });

// --- membership: compact signatures of EIP-2098, and an invite as text

/** r ‖ s ‖ v as r ‖ vs. */
export function compact(signature) {
  const out = Buffer.from(bytes(signature).subarray(0, 64));
  if (bytes(signature)[64] === 28) out[32] |= 0x80;
  return out;
}

/** The invite that a line of `flb chain invite` holds, as the contract takes it. */
export function inviteFrom(text) {
  let value = 0n, bits = 0n;
  for (const letter of text.trim().toLowerCase()) {
    const five = "abcdefghijklmnopqrstuvwxyz234567".indexOf(letter);
    if (five < 0) throw new Error("the invite holds a sign that is none of base32");
    [value, bits] = [(value << 5n) | BigInt(five), bits + 5n];
  }
  const raw = Buffer.from((value >> (bits % 8n)).toString(16).padStart(Number(bits / 8n) * 2, "0"), "hex");
  const body = raw.subarray(0, -4);
  if (body.length !== 70 || body[0] !== 1) throw new Error("the invite has another form");
  if (!keccak256(body).subarray(0, 4).equals(raw.subarray(-4))) throw new Error("the invite is not whole");
  return { deadline: body.readUIntBE(1, 5), r: hex(body.subarray(6, 38)), vs: hex(body.subarray(38)) };
}
export const NO_INVITE = { deadline: 0, r: hex(Buffer.alloc(32)), vs: hex(Buffer.alloc(32)) };

// --- codecs: numbers as they are signed, entries of a container, bytes of values

const little = (values, size, write) => {
  const out = Buffer.alloc(values.length * size);
  values.forEach((value, index) => out[write](value, index * size));
  return out;
};
const toBits = (value) => {
  const cell = Buffer.alloc(4);
  cell.writeFloatLE(value);
  return cell.readUInt32LE();
};

/** The upper half of binary32, rounded half to even. Values are finite. */
const bf16 = (values) => little(values.map((value) => {
  const bits = toBits(value);
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) >>> 16) & 0xffff;
}), 2, "writeUInt16LE");

const BLOCK = 32;

/** u of every element under a key: (2k + 1) / 2^17, k the little-endian 16-bit words of AES-256-CTR. */
export function dither(key) {
  const cipher = createCipheriv("aes-256-ctr", key, Buffer.alloc(16));
  return () => (2 * cipher.update(Buffer.alloc(2)).readUInt16LE() + 1) / 2 ** 17;
}

/** Key of an update's dither. */
export function ditherKey(run, step, node) {
  const number = Buffer.alloc(4);
  number.writeUInt32BE(step);
  return sha256(Buffer.concat([run, number, node, Buffer.from("codec")]));
}

/** Integers of at most `limit` in size and one exponent byte for 32 values; a node may choose its own u. */
function microscaled(values, limit, unit, u) {
  const integers = [], scales = Buffer.alloc(Math.ceil(values.length / BLOCK));
  for (let block = 0; block < scales.length; block++) {
    const part = values.slice(block * BLOCK, (block + 1) * BLOCK);
    const largest = Math.max(...part.map(Math.abs));
    let scale = 0;
    while (largest > limit * 2 ** (scale - unit)) scale++;
    scales[block] = scale;
    for (const x of part) integers.push(Math.floor(Math.fround(Math.fround(x * 2 ** (unit - scale)) + u())));
  }
  return { integers, scales };
}

const scaleOf = (tensor, scales) => ({ name: `${tensor.name}.scale`, dtype: "U8", shape: [scales.length], data: scales });

const product = (shape) => shape.reduce((a, b) => a * b, 1);
const plain = (dtype, encode) => (tensor, values) => [{ ...tensor, dtype, data: values && encode(values) }];
export const CODECS = {
  f32: { number: 1, entries: plain("F32", (values) => little(values, 4, "writeFloatLE")) },
  bf16: { number: 2, entries: plain("BF16", bf16) },
  mxint8: {
    number: 3,
    entries: (tensor, values, u = () => 0.5) => {
      const { integers, scales } = microscaled(values, 127, 133, u);
      return [{ ...tensor, dtype: "I8", data: little(integers, 1, "writeInt8") }, scaleOf(tensor, scales)];
    },
  },
  mxint4: {
    number: 4,
    entries: (tensor, values, u = () => 0.5) => {
      const { integers, scales } = microscaled(values, 7, 129, u);
      const packed = Buffer.alloc(Math.ceil(integers.length / 2));
      integers.forEach((m, index) => { packed[index >> 1] |= (m & 15) << (4 * (index & 1)); });
      return [{ ...tensor, dtype: "U8", shape: [packed.length], data: packed }, scaleOf(tensor, scales)];
    },
  },
};

// --- containers

/** A safetensors file in its one legal form. Entries: {name, dtype, shape, data}. */
export function container(entries, metadata) {
  const sorted = [...entries].sort((a, b) => Buffer.compare(Buffer.from(a.name), Buffer.from(b.name)));
  const header = [];
  const keys = Object.keys(metadata).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
  if (keys.length) {
    header.push(`"__metadata__":{${keys.map((k) => `${JSON.stringify(k)}:${JSON.stringify(metadata[k])}`).join(",")}}`);
  }
  let end = 0;
  for (const { name, dtype, shape, data } of sorted) {
    const start = end;
    end += data.length;
    header.push(`${JSON.stringify(name)}:${JSON.stringify({ dtype, shape, data_offsets: [start, end] })}`);
  }
  let text = Buffer.from(`{${header.join(",")}}`);
  text = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, " ")]);
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(text.length));
  return { header: Buffer.concat([prefix, text]), data: Buffer.concat(sorted.map((entry) => entry.data)) };
}

/** The tensors that a step sends. */
export function sent(spec, step) {
  if (spec.lora.mode !== "alternate") return spec.tensors;
  return spec.tensors.filter(({ name }) => name.endsWith(step % 2 ? ".lora_B.weight" : ".lora_A.weight"));
}

/** An update blob: `value(tensor, index)` gives the float32 values. */
export function update(spec, step, { salt, node, base, u }, value) {
  const codec = CODECS[spec.codec];
  if (!codec) throw new Error(`this client does not write codec ${spec.codec}`);
  const entries = sent(spec, step).flatMap((tensor) => {
    const values = Array.from({ length: product(tensor.shape) }, (_, index) => Math.fround(value(tensor, index)));
    return codec.entries(tensor, values, u);
  });
  const { header, data } = container(entries, { salt: hex(salt).slice(2), node: hex(node), base: hex(base) });
  return Buffer.concat([header, data]);
}

// --- uploads

export const CHUNK = 1 << 20;

/** [offset, length] of every chunk of an upload that goes on from `offset`. */
export function chunks(size, offset) {
  const cuts = [];
  for (let at = offset; at < size; at += CHUNK) cuts.push([at, Math.min(CHUNK, size - at)]);
  return cuts;
}

/** From where to send, by the answer to QueryUpload: what is held counts only under the update's own digest. */
export const resumeFrom = ({ committed, digest }, own) => (Buffer.from(digest).equals(own) ? Number(committed) : 0);

// --- trees

export const uint64 = (number) => {
  const out = Buffer.alloc(8);
  out.writeBigUInt64BE(BigInt(number));
  return out;
};
export const leaf = (...parts) => keccak256(Buffer.concat([Buffer.from([0]), ...parts]));

/** Root over leaves in their order, padded with zeros to the next power of two; zero for none. */
export function root(leaves) {
  if (!leaves.length) return ZERO;
  let level = [...leaves];
  while (level.length & (level.length - 1)) level.push(ZERO);
  while (level.length > 1) {
    const above = [];
    for (let i = 0; i < level.length; i += 2) {
      above.push(keccak256(Buffer.concat([Buffer.from([1]), level[i], level[i + 1]])));
    }
    level = above;
  }
  return level[0];
}

export const updateLeaf = (node, weight, digest, tensorRoot, datasetRoot) =>
  leaf(node, uint64(weight), digest, tensorRoot, datasetRoot);

/** Leaves by node address, between sentinels for the lowest and the highest address. */
export const updatesRoot = (leaves) => root([
  updateLeaf(Buffer.alloc(20), 0, ZERO, ZERO, ZERO), ...leaves, updateLeaf(Buffer.alloc(20, 255), 0, ZERO, ZERO, ZERO),
]);

/** Commitment of a node to its records: [salt, canonical bytes of the messages]. */
export const datasetRoot = (node, records) => keccak256(Buffer.concat([
  Buffer.from([2]), node, uint64(records.length), root(records.map(([salt, record]) => leaf(salt, record))),
]));
