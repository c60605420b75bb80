// Seeded mutations of ONNX, safetensors and engine files, and of saved sequences: each case follows from a seed and its number alone.
import { createHash } from 'node:crypto';

/** Numbers at which parsers go wrong: around powers of two, int32, int53 and int64. */
const oddNumbers = [
  0n,
  1n,
  2n,
  7n,
  127n,
  128n,
  255n,
  256n,
  16_383n,
  16_384n,
  65_535n,
  65_536n,
  0x7fff_fffen,
  0x7fff_ffffn,
  0x8000_0000n,
  0xffff_ffffn,
  0x1_0000_0000n,
  2n ** 53n - 1n,
  2n ** 53n,
  2n ** 62n,
  2n ** 63n - 1n,
  2n ** 63n,
  2n ** 64n - 1n,
];

/** A generator of uniform integers: mulberry32, whose first state is a hash of the seed and the case. */
export function generator(seed, number) {
  let state = createHash('sha256').update(`${seed}/${number}`).digest().readUInt32LE(0);
  /** An integer from 0 to `below` - 1. */
  const integer = (below) => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return Math.floor((((t ^ (t >>> 14)) >>> 0) / 2 ** 32) * below);
  };
  return { integer, one: (values) => values[integer(values.length)] };
}

/** One to three mutations of a file of the corpus. */
function mutateWith(mutations, corpus, random) {
  let bytes = Buffer.from(random.one(corpus));
  for (let n = random.one([1, 1, 2, 3]); n > 0; n--) bytes = random.one(mutations)(bytes, random, corpus);
  return bytes;
}

// ---- any file ----

function flipBits(bytes, random) {
  if (bytes.length === 0) return bytes;
  for (let n = 1 + random.integer(8); n > 0; n--)
    bytes[random.integer(bytes.length)] ^= 1 << random.integer(8);
  return bytes;
}

function setBytes(bytes, random) {
  if (bytes.length === 0) return bytes;
  for (let n = 1 + random.integer(4); n > 0; n--) {
    bytes[random.integer(bytes.length)] = random.one([0, 1, 0x0a, 0x7f, 0x80, 0xff, random.integer(256)]);
  }
  return bytes;
}

const truncate = (bytes, random) => bytes.subarray(0, random.integer(bytes.length + 1));

function splice(bytes, random, corpus) {
  const other = random.one(corpus);
  return Buffer.concat([
    bytes.subarray(0, random.integer(bytes.length + 1)),
    other.subarray(random.integer(other.length + 1)),
  ]);
}

function insert(bytes, random) {
  const at = random.integer(bytes.length + 1);
  const more = Buffer.from(Array.from({ length: 1 + random.integer(16) }, () => random.integer(256)));
  return Buffer.concat([bytes.subarray(0, at), more, bytes.subarray(at)]);
}

/** A piece of the file is left out, or comes up to 1,000 times. */
function repeat(bytes, random) {
  const from = random.integer(bytes.length + 1);
  const piece = bytes.subarray(from, from + 1 + random.integer(64));
  const times = random.one([0, 2, 3, 10, 1000]);
  const pieces = Array.from({ length: times }, () => piece);
  return Buffer.concat([bytes.subarray(0, from), ...pieces, bytes.subarray(from + piece.length)]);
}

const anyFile = [flipBits, setBytes, truncate, splice, insert, repeat];

// ---- ONNX: the protobuf wire format ----

function varint(value, padding = 0) {
  const bytes = [];
  let rest = value;
  while (rest > 0x7fn) {
    bytes.push(Number(rest & 0x7fn) | 0x80);
    rest >>= 7n;
  }
  bytes.push(Number(rest));
  for (let i = 0; i < padding; i++) {
    bytes[bytes.length - 1] |= 0x80;
    bytes.push(0);
  }
  return Buffer.from(bytes);
}

/** Where the varint at `at` ends. */
function varintEnd(bytes, at) {
  while (at < bytes.length && bytes[at] >= 0x80) at++;
  return at + 1;
}

/** The fields between two offsets, and those inside of them, as far as the bytes can be read as messages. */
function fieldsOf(bytes, from, to, depth, found) {
  let at = from;
  const fields = [];
  while (at < to) {
    const start = at;
    const wire = bytes[at] & 7;
    at = varintEnd(bytes, at);
    const value = at;
    if (wire === 0) at = varintEnd(bytes, at);
    else if (wire === 1) at += 8;
    else if (wire === 5) at += 4;
    else if (wire === 2) {
      const data = varintEnd(bytes, at);
      let length = 0;
      for (let i = at, shift = 1; i < data; i++, shift *= 128) length += (bytes[i] & 0x7f) * shift;
      at = data + length;
      if (at > to) return false;
      fields.push({ start, value, data, end: at, wire });
      continue;
    } else return false;
    if (at > to) return false;
    fields.push({ start, value, data: value, end: at, wire });
  }
  for (const field of fields) {
    found.push(field);
    if (field.wire === 2 && depth > 0) fieldsOf(bytes, field.data, field.end, depth - 1, found);
  }
  return true;
}

/** Another number in place of a varint or a length, or the same in more bytes than it needs. */
function editVarint(bytes, random) {
  const found = [];
  fieldsOf(bytes, 0, bytes.length, 8, found);
  const numbers = found.filter(({ wire }) => wire === 0 || wire === 2);
  if (numbers.length === 0) return flipBits(bytes, random);
  const { value } = random.one(numbers);
  const end = varintEnd(bytes, value);
  const padding = random.one([0, 0, 0, 1, 5, 9, 10]);
  const number = random.integer(4) === 0 ? BigInt(bytes[value] & 0x7f) + 1n : random.one(oddNumbers);
  return Buffer.concat([bytes.subarray(0, value), varint(number, padding), bytes.subarray(end)]);
}

/** A message as a tree: what can be read as a message within it is one. undefined for bytes that are no message. */
function treeOf(bytes, depth) {
  const found = [];
  if (bytes.length === 0 || !fieldsOf(bytes, 0, bytes.length, 0, found)) return undefined;
  return found.map(({ start, value, data, end, wire }) => ({
    tag: bytes.subarray(start, value),
    wire,
    data: bytes.subarray(data, end),
    fields: wire === 2 && depth > 0 ? treeOf(bytes.subarray(data, end), depth - 1) : undefined,
  }));
}

function treeBytes(fields) {
  return Buffer.concat(
    fields.flatMap(({ tag, wire, data, fields: inner }) => {
      const content = inner ? treeBytes(inner) : data;
      return wire === 2 ? [tag, varint(BigInt(content.length)), content] : [tag, content];
    }),
  );
}

/** Every list of fields in a tree that isn't empty. */
const listsOf = (fields) =>
  fields.length === 0
    ? []
    : [fields, ...fields.flatMap(({ fields: inner }) => (inner ? listsOf(inner) : []))];

/** A field goes, comes again, moves, or is another's or another one; all lengths around it stay right. */
function editTree(bytes, random, corpus) {
  const tree = treeOf(bytes, 8);
  const other = treeOf(random.one(corpus), 8);
  if (!tree || !other) return flipBits(bytes, random);
  const fields = random.one(listsOf(tree));
  const i = random.integer(fields.length);
  const field = fields[i];
  switch (random.integer(7)) {
    case 0:
      fields.splice(i, 1);
      break;
    case 1:
      fields.splice(i, 0, ...Array.from({ length: random.one([1, 2, 10, 1000]) }, () => field));
      break;
    case 2:
      random.one(listsOf(tree)).push(random.one(random.one(listsOf(other))));
      break;
    case 3:
      fields[i] = random.one(random.one(listsOf(other)));
      break;
    case 4:
      fields[i] = { ...field, tag: varint(BigInt((1 + random.integer(31)) * 8 + field.wire)) };
      break;
    default:
      if (field.wire === 0) field.data = varint(random.one(oddNumbers), random.one([0, 0, 1, 5]));
      else if (field.data.length > 0)
        field.data = random.one(anyFile)(Buffer.from(field.data), random, corpus);
      if (field.wire === 2) field.fields = undefined;
  }
  return treeBytes(tree);
}

const field = (number, data) =>
  Buffer.concat([varint(BigInt(number * 8 + 2)), varint(BigInt(data.length)), data]);

/** The file's graph as a node's attribute of a graph's node … (ModelProto.graph 7, node 1, attribute 5, g 6). */
function nestGraphs(bytes, random) {
  let graph = bytes.subarray(0, Math.min(bytes.length, 512));
  for (let n = random.one([1, 10, 32, 33, 34, 100, 500]); n > 0; n--) {
    graph = field(1, field(5, field(6, graph)));
  }
  return Buffer.concat([bytes, field(7, graph)]);
}

/** Types within types (TypeProto.sequence_type 4, elem_type 1), and groups within groups, which protobuf gave up. */
function nestOthers(bytes, random) {
  const depth = random.one([10, 49, 50, 99, 100, 101, 1000, 20_000]);
  if (random.integer(2) === 0)
    return Buffer.concat([bytes, Buffer.alloc(depth, (random.integer(16) << 3) | 3)]);
  let type = Buffer.alloc(0);
  for (let n = Math.min(depth, 1000); n > 0; n--) type = field(4, field(1, type));
  return Buffer.concat([bytes, field(7, field(11, field(2, type)))]);
}

const onnxMutations = [
  ...anyFile,
  ...Array.from({ length: 12 }, () => editTree),
  editVarint,
  editVarint,
  nestGraphs,
  nestOthers,
];

export const mutateOnnx = (corpus, random) => mutateWith(onnxMutations, corpus, random);

// ---- JSON within a file ----

const oddJson = [
  '-1',
  '0',
  '1.5',
  '1e999',
  '-0',
  '9007199254740993',
  '18446744073709551615',
  'null',
  'true',
  '""',
  '[]',
  '{}',
  '"__proto__"',
  '"\\ud800"',
  '"\\u0000"',
  '[[[[[[]]]]]]',
  '{"a":{"a":{"a":{}}}}',
];

/** A number, string or bracket of a JSON text becomes something else. */
function editJson(text, random) {
  const tokens = [...text.matchAll(/-?\d+(?:\.\d+)?|"(?:[^"\\]|\\.)*"|[[\]{},:]/g)];
  if (tokens.length === 0) return random.one(oddJson);
  const { index, 0: token } = random.one(tokens);
  const depth = random.one([100, 1000, 10_000, 50_000]);
  const nested = random.integer(2)
    ? `${'['.repeat(depth)}${']'.repeat(depth)}`
    : `${'{"a":'.repeat(depth)}0${'}'.repeat(depth)}`;
  if (token === '{' && random.integer(2) === 0) {
    const more = `"more":${random.one([nested, ...oddJson])}${text[index + 1] === '}' ? '' : ','}`;
    return text.slice(0, index + 1) + more + text.slice(index + 1);
  }
  const by = random.one([
    random.one(oddJson),
    random.one(oddJson),
    random.one(tokens)[0],
    '',
    `${token},${token}`,
    nested,
  ]);
  return text.slice(0, index) + by + text.slice(index + token.length);
}

function withNumber64(bytes, at, value) {
  if (bytes.length >= at + 8) bytes.writeBigUInt64LE(BigInt.asUintN(64, value), at);
  return bytes;
}

// ---- safetensors: the header's length, the header (JSON), data ----

const safetensorsMutations = [
  ...anyFile,
  (bytes, random) => withNumber64(bytes, 0, random.one(oddNumbers) + BigInt(random.integer(3) - 1)),
  ...Array.from({ length: 4 }, () => (bytes, random) => {
    if (bytes.length < 8) return bytes;
    const length = Number(bytes.readBigUInt64LE());
    if (length > bytes.length - 8) return bytes;
    const header = Buffer.from(editJson(bytes.toString('utf8', 8, 8 + length), random));
    const start = withNumber64(Buffer.alloc(8), 0, BigInt(header.length));
    return Buffer.concat([start, header, bytes.subarray(8 + length)]);
  }),
];

export const mutateSafetensors = (corpus, random) => mutateWith(safetensorsMutations, corpus, random);

// ---- engine files: see the layout in lib/engine/engine-file.ts ----

const headerBytes = 72;
const lengthOffsets = [16, 24, 32];

const engineMutations = [
  ...anyFile,
  (bytes, random) => withNumber64(bytes, random.one([8, ...lengthOffsets, 40]), random.one(oddNumbers)),
  ...Array.from({ length: 4 }, () => (bytes, random) => {
    if (bytes.length < headerBytes) return bytes;
    const lengths = lengthOffsets.map((at) => Number(bytes.readBigUInt64LE(at)));
    if (headerBytes + lengths[0] + lengths[1] + lengths[2] !== bytes.length) return bytes;
    const which = random.integer(2);
    const from = headerBytes + (which === 1 ? lengths[0] : 0);
    const text = Buffer.from(editJson(bytes.toString('utf8', from, from + lengths[which]), random));
    const head = withNumber64(
      Buffer.from(bytes.subarray(0, headerBytes)),
      lengthOffsets[which],
      BigInt(text.length),
    );
    return Buffer.concat([
      head,
      bytes.subarray(headerBytes, from),
      text,
      bytes.subarray(from + lengths[which]),
    ]);
  }),
];

/** An engine file with the checksum made right, as a maker of bad files would. */
function sealed(bytes) {
  const copy = Buffer.from(bytes);
  const hash = createHash('sha256').update(copy.subarray(0, 40)).update(copy.subarray(headerBytes));
  copy.set(hash.digest(), 40);
  return copy;
}

/** An engine file with the beginning of its plan alone: the plan is TensorRT's to read, and only slows this down. */
export function withShortPlan(bytes) {
  const [manifest, layers] = lengthOffsets.map((at) => Number(bytes.readBigUInt64LE(at)));
  const planBytes = 16;
  const short = Buffer.from(bytes.subarray(0, headerBytes + manifest + layers + planBytes));
  return sealed(withNumber64(short, lengthOffsets[2], BigInt(planBytes)));
}

/** Two in three get past the checksum. */
export function mutateEngine(corpus, random) {
  const bytes = mutateWith(engineMutations, corpus, random);
  return bytes.length < headerBytes || random.integer(3) === 0 ? bytes : sealed(bytes);
}

// ---- saved sequences: see the layout in native/core/sequence_state.cc ----

const stateHeaderBytes = 48;
const sumAt = 40;

/** Where the tokens begin and end, and the whole ends, by the header; undefined where it says more than there is. */
function stateParts(bytes) {
  if (bytes.length < stateHeaderBytes) return undefined;
  const [count, cached, perToken] = [16, 24, 32].map((at) => Number(bytes.readBigUInt64LE(at)));
  const tokens = stateHeaderBytes + bytes.readUInt32LE(12);
  const cache = tokens + 4 * count;
  return cache + cached * perToken === bytes.length ? { tokens, cache, count, cached, perToken } : undefined;
}

const oddTokens = [-1, -(2 ** 31), 0, 1, 317, 318, 319, 320, 321, 2 ** 31 - 1];
/** NaN, infinities, the largest numbers, the least ones, in float32. */
const oddFloats = [0x7fc00000, 0xffffffff, 0x7f800000, 0xff800000, 0x7f7fffff, 0xff7fffff, 1, 0x80000000];

const stateMutations = [
  ...anyFile,
  (bytes, random) => withNumber64(bytes, random.one([8, 16, 24, 32, sumAt]), random.one(oddNumbers)),
  // Numbers that agree with one another.
  ...Array.from({ length: 4 }, () => (bytes, random) => {
    const parts = stateParts(bytes);
    if (!parts) return bytes;
    const count = random.one([
      0,
      1,
      Math.max(parts.count - 1, 0),
      parts.count,
      parts.count + 1,
      64,
      65,
      1000,
    ]);
    const cached = random.one([0, 1, parts.cached, parts.count, Math.max(count - 1, 0), count, count + 1]);
    const resized = (from, to, size) => Buffer.concat([bytes.subarray(from, to)], size);
    const parted = Buffer.concat([
      bytes.subarray(0, parts.tokens),
      resized(parts.tokens, parts.cache, 4 * count),
      resized(parts.cache, bytes.length, Math.min(cached * parts.perToken, 2 ** 20)),
    ]);
    return withNumber64(withNumber64(parted, 16, BigInt(count)), 24, BigInt(cached));
  }),
  ...Array.from({ length: 4 }, () => (bytes, random) => {
    const parts = stateParts(bytes);
    if (!parts?.count) return bytes;
    bytes.writeInt32LE(random.one(oddTokens), parts.tokens + 4 * random.integer(parts.count));
    return bytes;
  }),
  ...Array.from({ length: 4 }, () => (bytes, random) => {
    const parts = stateParts(bytes);
    const floats = parts ? Math.floor((bytes.length - parts.cache) / 4) : 0;
    if (floats === 0) return bytes;
    for (let n = random.one([1, 1, 10]); n > 0; n--) {
      bytes.writeUInt32LE(random.one(oddFloats), parts.cache + 4 * random.integer(floats));
    }
    return bytes;
  }),
];

/** A saved sequence with the checksum made right. */
function sealedState(bytes) {
  const copy = Buffer.from(bytes);
  const sum = (from, start) => {
    const padded = Buffer.concat([from], Math.ceil(from.length / 8) * 8);
    let result = start;
    for (let at = 0; at < padded.length; at += 8) {
      result = BigInt.asUintN(64, (result ^ padded.readBigUInt64LE(at)) * 0x9e3779b97f4a7c15n);
      result ^= result >> 29n;
    }
    return result;
  };
  const rest = copy.subarray(stateHeaderBytes);
  withNumber64(copy, sumAt, BigInt(rest.length));
  return withNumber64(copy, sumAt, sum(rest, sum(copy.subarray(0, stateHeaderBytes), 0n)));
}

/** Four in five get past the checksum. */
export function mutateState(corpus, random) {
  const bytes = mutateWith(stateMutations, corpus, random);
  return bytes.length < stateHeaderBytes || random.integer(5) === 0 ? bytes : sealedState(bytes);
}
