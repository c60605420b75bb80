import type { Hash } from 'node:crypto';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { type DataType, dataTypeFromOnnx, dataTypes } from './data-type.js';
import { invalidArgType, TensorRTError } from './errors.js';
import { writeAtomically } from './files/atomic-file.js';
import { engineMagic as magic, otherThanBinary, planMagics } from './files/file-format.js';
import type { DecoderGraph } from './native.js';
import type { CastBfloat16Report, CastFloat16Report } from './onnx/cast-precision.js';
import { readWhole } from './onnx/file-range.js';
import { checkOptions } from './options.js';
import { type Profile, rangeOf, type ShapeRange } from './shapes.js';
import type { Flavour } from './system/nvidia-support.js';
import type { Dims } from './tensor.js';

/** A value in a compiled network. */
export interface TensorInfo {
  readonly name: string;
  /** null for a type that no {@link DataType} names. */
  readonly type: DataType | null;
  /** -1 is a dynamic dimension. */
  readonly dims: Dims;
}

/** An engine's input or output. */
export interface EngineTensor extends TensorInfo {
  /** Of an input, its range in each optimization profile; none where it is static, and for outputs. */
  readonly profiles: readonly ShapeRange[];
}

/** One layer of the network that was compiled. */
export interface LayerInfo {
  readonly name: string;
  /** TensorRT's term, e.g. 'MATRIX_MULTIPLY'. */
  readonly type: string;
  readonly inputs: readonly string[];
  readonly outputs: readonly TensorInfo[];
}

/** Where an engine comes from. Plain JSON. */
export interface EngineManifest {
  /** What compiled it, and what can run it. */
  readonly library: { readonly flavour: Flavour; readonly version: string };
  /** Version of node-tensorrt. */
  readonly builder: string;
  /** GPUs it was compiled for, e.g. 'sm_89'. */
  readonly targets: readonly string[];
  readonly precision: 'as-exported' | 'fp32' | 'fp16' | 'bf16';
  /** With 'fp16' and 'bf16': what every node became, and why. */
  readonly cast?: CastFloat16Report | CastBfloat16Report;
  /** Empty where every input is static. */
  readonly profiles: readonly Profile[];
  /** Of a decoder with a KV cache: how it is driven. */
  readonly decoder?: DecoderGraph;
  readonly model: {
    /** The file's name, without its folder; absent if the model was given as bytes. */
    readonly name?: string;
    /** Hexadecimal SHA-256 of the ONNX file. */
    readonly sha256: string;
    /** Hexadecimal SHA-256 of its weights' (the main graph's initializers') names, types, dimensions and elements. */
    readonly weightsSha256: string;
    /** What exported it. */
    readonly producer: string;
  };
  /** The {@link Engine.id} of the engine that this one descends from. */
  readonly parent?: string;
  /** What the builder of the engine chose to say about where it comes from. */
  readonly lineage?: Readonly<Record<string, unknown>>;
  /** Build options that are not defaults. */
  readonly options: Readonly<Record<string, unknown>>;
  /** When it was built, ISO 8601. */
  readonly created: string;
  /** What TensorRT warned of. */
  readonly warnings: readonly string[];
  readonly inputs: readonly TensorInfo[];
  readonly outputs: readonly TensorInfo[];
}

// An engine file: the header, then the manifest and the layers (JSON), then the plan, to the end of the file.
//
//   0  magic: 0x89 'N' 'T' 'R' 'T' CR LF 0x1a
//   8  format version, uint32 (all numbers are little-endian)
//  12  zero, uint32
//  16  bytes of the manifest, uint64
//  24  bytes of the layers, uint64
//  32  bytes of the plan, uint64
//  40  SHA-256 of bytes 0 to 39 and of all that follows this field
//  72  manifest
const formatVersion = 1;
const hashOffset = 40;
const headerBytes = 72;

/** Hashing in pieces of this size, the event loop is held up 2 ms at most. */
const pieceBytes = 2 ** 20;

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const each of Object.values(value)) deepFreeze(each);
  return Object.freeze(value);
}

interface FileBytes {
  readonly head: Uint8Array;
  readonly plan: Uint8Array;
  /** Of a new engine, whose head has no checksum before someone asks for it. */
  readonly seal?: Seal;
}

interface Bindings {
  readonly inputs: readonly EngineTensor[];
  readonly outputs: readonly EngineTensor[];
}

interface Contents {
  readonly manifest: EngineManifest;
  readonly layers: readonly LayerInfo[];
}

/** What a manifest says that has no part in the plan. */
export interface Provenance {
  /** The model file's. */
  readonly name: string | undefined;
  readonly parent: string | undefined;
  readonly lineage: Readonly<Record<string, unknown>> | undefined;
}

/** The bytes of an engine's plan themselves, which nobody may change or transfer. @throws TensorRTError ERR_DISPOSED */
export let planOf: (engine: Engine) => Uint8Array;

/** The flavours that an engine's plan can be of: the one that compiled it; a bare plan's first bytes leave two. */
export function flavourOfPlan(engine: Engine): readonly ('trt10' | 'trt11' | 'rtx')[] {
  const plan = planOf(engine);
  const start = Buffer.from(plan.buffer, plan.byteOffset, Math.min(4, plan.length)).toString('latin1');
  if (isDescribed(engine)) return [engine.manifest.library.flavour];
  return start === 'vtrt' ? ['rtx'] : ['trt11', 'trt10'];
}

let isDescribed: (engine: Engine) => boolean;

/** A model compiled by TensorRT, in memory. Immutable. */
export class Engine {
  static {
    planOf = (engine) => engine.#live().plan;
    isDescribed = (engine) => engine.#contents !== undefined;
  }

  /** The file's bytes: what comes before the plan (nothing, if it is a bare one), and the plan. */
  #file: FileBytes | undefined;
  readonly #contents: Contents | undefined;
  /** Of a bare plan. */
  #bindings: Bindings | undefined;
  /** Whether {@link buildEngine} found it in its cache, and compiled nothing. */
  readonly fromCache: boolean;

  private constructor(file: FileBytes, contents: Contents | undefined, fromCache = false) {
    this.#file = file;
    this.fromCache = fromCache;
    this.#contents = contents && { ...contents, manifest: deepFreeze(contents.manifest) };
  }

  /**
   * Reads an engine file, or its bytes, which are copied. The container is checked whole (magic, version, lengths,
   * SHA-256) before anything in it is used. A bare TensorRT plan can run code of its maker's choice when TensorRT
   * loads it, and carries no checksum: it needs `trusted`. What its inputs and outputs are, TensorRT says where there
   * is a GPU that can run it.
   * @throws (rejects) TensorRTError ERR_ENGINE_CORRUPT, ERR_ENGINE_INCOMPATIBLE, ERR_MODEL_NOT_FOUND, ERR_IO;
   *   TypeError ERR_INVALID_ARG_TYPE
   */
  static async load(file: string | Uint8Array, options: { trusted?: boolean } = {}): Promise<Engine> {
    checkOptions(options, 'options', ['trusted'], []);
    const isPath = typeof file === 'string';
    if (!isPath && !(file instanceof Uint8Array))
      throw invalidArgType('file', 'a path or a Uint8Array', file);
    const [bytes, hash] = isPath ? await readHashed(file) : await hashed(new Uint8Array(file));
    const label = isPath ? file : 'The engine';
    if (planMagics.includes(Buffer.from(bytes.subarray(0, 4)).toString('latin1'))) {
      if (options.trusted === true) {
        const engine = new Engine({ head: new Uint8Array(), plan: bytes }, undefined);
        engine.#bindings = await readBindings(engine);
        return engine;
      }
      throw new TensorRTError(
        'ERR_ENGINE_CORRUPT',
        `${label} is a bare TensorRT plan, not an engine file of node-tensorrt: it has no checksum. ` +
          'If you trust where it comes from, pass { trusted: true }.',
      );
    }
    const { file: parts, ...contents } = parseContainer(bytes, hash, label);
    return new Engine(parts, contents);
  }

  /**
   * An engine file of the cache's.
   * @internal
   */
  static async loadCached(file: string): Promise<Engine> {
    const { file: parts, ...contents } = parseContainer(...(await readHashed(file)), file);
    return new Engine(parts, contents, true);
  }

  /** The engine of a finished build. */
  static async assemble(
    manifest: EngineManifest,
    layers: readonly LayerInfo[],
    plan: Uint8Array,
    fromCache = false,
  ): Promise<Engine> {
    const texts = [manifest, layers].map((part) => Buffer.from(JSON.stringify(part)));
    const head = Buffer.concat([Buffer.alloc(headerBytes), ...texts]);
    head.set(magic);
    head.writeUInt32LE(formatVersion, magic.length);
    [...texts, plan].forEach((part, i) => {
      head.writeBigUInt64LE(BigInt(part.length), 16 + 8 * i);
    });
    const seal = new Seal(head, plan, await ContainerHash.create());
    // As the file says it: without what is undefined.
    return new Engine({ head, plan, seal }, { manifest: JSON.parse(String(texts[0])), layers }, fromCache);
  }

  /**
   * This engine, or another of the same plan if its manifest says otherwise than `provenance`.
   * @internal
   */
  async withProvenance(provenance: Provenance): Promise<Engine> {
    const { manifest, layers } = this.#described();
    const { model, parent, lineage } = manifest;
    if (isDeepStrictEqual({ name: model.name, parent, lineage }, provenance)) return this;
    const { name, ...line } = provenance;
    const changed = { ...manifest, ...line, model: { ...model, name } };
    return Engine.assemble(changed, layers, this.#live().plan, this.fromCache);
  }

  /** @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan that this machine can't run */
  get inputs(): readonly EngineTensor[] {
    if (this.#bindings) return this.#bindings.inputs;
    const { inputs, profiles } = this.manifest;
    return inputs.map((input) => ({
      ...input,
      profiles: profiles.flatMap((profile) => rangeOf(profile, input.name) ?? []),
    }));
  }

  /** @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan that this machine can't run */
  get outputs(): readonly EngineTensor[] {
    if (this.#bindings) return this.#bindings.outputs;
    return this.manifest.outputs.map((output) => ({ ...output, profiles: [] }));
  }

  /**
   * Hexadecimal SHA-256 of the engine file, its checksum: of every byte except the checksum itself. Of an engine that
   * was just built without the cache and not saved, it is computed now, at some 1.5 GB/s.
   * @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, which has none
   */
  get id(): string {
    this.#described();
    const { head, seal } = this.#live();
    seal?.finish();
    return engineIdOf(head)!;
  }

  /** @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, which says nothing about itself */
  get manifest(): EngineManifest {
    return this.#described().manifest;
  }

  /** Bytes of the file that {@link save} writes. */
  get byteLength(): number {
    const { head, plan } = this.#live();
    return head.length + plan.length;
  }

  /**
   * Writes the engine file. It appears whole or not at all: it is written beside its place, then renamed.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE
   */
  async save(file: string): Promise<void> {
    if (typeof file !== 'string') throw invalidArgType('path', 'a string', file);
    const { head, plan, seal } = this.#live();
    await seal?.finishInPieces();
    await writeAtomically(file, [head, plan], 'engine');
  }

  /** A copy of the bare TensorRT plan: what trtexec and Triton load. */
  plan(): Uint8Array {
    return new Uint8Array(this.#live().plan);
  }

  /**
   * The layers of the network as it went to TensorRT's compiler, which fuses most of them.
   * @throws (rejects) TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, ERR_DISPOSED
   */
  async inspect(): Promise<LayerInfo[]> {
    return structuredClone([...this.#described().layers]);
  }

  /** Lets go of the memory. May be called again. */
  dispose(): void {
    this.#file = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(): FileBytes {
    if (!this.#file) throw new TensorRTError('ERR_DISPOSED', 'The engine was disposed.');
    return this.#file;
  }

  #described(): Contents {
    this.#live();
    if (this.#contents) return this.#contents;
    throw new TensorRTError(
      'ERR_ENGINE_INCOMPATIBLE',
      'This engine is a bare TensorRT plan, which does not say what it holds. Save engines with Engine.save().',
    );
  }
}

/** What TensorRT says of a bare plan; undefined where no GPU and library here can run it. */
async function readBindings(engine: Engine): Promise<Bindings | undefined> {
  const { findGpu } = await import('./system/gpu.js');
  const { loadEngine } = await import('./load-engine.js');
  const { native } = await import('./native.js');
  try {
    const session = new (native().NativeSession)({ concurrency: 1, maxQueue: 1 });
    const request = {
      engine,
      gpu: await findGpu(0),
      libraryPath: undefined,
      cudaGraph: false,
      deviceOutputs: false,
    };
    const loaded = await loadEngine(session, request);
    if (!loaded) return undefined;
    await session.close();
    const describe = ({ name, type, shape }: (typeof loaded.inputs)[number]): EngineTensor => ({
      name,
      type: dataTypeFromOnnx(type) ?? null,
      dims: shape.map((size) => (typeof size === 'number' ? size : -1)),
      profiles: loaded.profiles.flatMap((profile) => rangeOf(profile, name) ?? []),
    });
    return deepFreeze({ inputs: loaded.inputs.map(describe), outputs: loaded.outputs.map(describe) });
  } catch (error) {
    if (error instanceof TensorRTError) return undefined;
    throw error;
  }
}

/** The {@link Engine.id} that an engine file's first bytes claim; undefined for anything else. */
export function engineIdOf(start: Uint8Array): string | undefined {
  if (start.length < headerBytes || !magic.equals(start.subarray(0, magic.length))) return undefined;
  return Buffer.from(start.subarray(hashOffset, headerBytes)).toString('hex');
}

/** Whether a file begins as engine files do; false where there is none to read. Blocks for 8 bytes. */
export function isEngineFile(file: string): boolean {
  let descriptor: number | undefined;
  try {
    descriptor = openSync(file, constants.O_RDONLY | constants.O_NONBLOCK);
    const start = Buffer.alloc(magic.length);
    readSync(descriptor, start);
    return start.equals(magic);
  } catch {
    return false;
  } finally {
    if (descriptor !== undefined) closeSync(descriptor);
  }
}

/** SHA-256 of all bytes of an engine file but those of the hash. Of what is no engine file, nothing is hashed. */
class ContainerHash {
  readonly #hash: Hash;
  #isEngine = false;

  private constructor(hash: Hash) {
    this.#hash = hash;
  }

  static async create(): Promise<ContainerHash> {
    const { createHash } = await import('node:crypto');
    return new ContainerHash(createHash('sha256'));
  }

  /** @param piece what comes next, from `at` */
  update(piece: Uint8Array, at: number): void {
    if (at === 0) this.#isEngine = magic.equals(piece.subarray(0, magic.length));
    if (!this.#isEngine) return;
    if (at < hashOffset) this.#hash.update(piece.subarray(0, hashOffset - at));
    if (at + piece.length > headerBytes) this.#hash.update(piece.subarray(Math.max(0, headerBytes - at)));
  }

  /** Gives the event loop its turn in between. */
  async updateInPieces(bytes: Uint8Array, at: number): Promise<void> {
    for (let done = 0; done < bytes.length; done += pieceBytes) {
      this.update(bytes.subarray(done, done + pieceBytes), at + done);
      await nextTurn();
    }
  }

  digest(): Uint8Array {
    return this.#hash.digest();
  }
}

/** Puts the checksum of a new engine into its head: work for who saves it or asks for its id, and for no one else. */
class Seal {
  readonly #head: Uint8Array;
  readonly #plan: Uint8Array;
  readonly #hash: ContainerHash;
  /** Bytes of the plan that are hashed. */
  #done = 0;
  #isFinished = false;

  constructor(head: Uint8Array, plan: Uint8Array, hash: ContainerHash) {
    this.#head = head;
    this.#plan = plan;
    this.#hash = hash;
    hash.update(head, 0);
  }

  finish(): void {
    while (!this.#isFinished) this.#hashPiece();
  }

  /** Gives the event loop its turn in between, in which another may finish it. */
  async finishInPieces(): Promise<void> {
    while (!this.#isFinished) {
      this.#hashPiece();
      await nextTurn();
    }
  }

  #hashPiece(): void {
    const piece = this.#plan.subarray(this.#done, this.#done + pieceBytes);
    this.#hash.update(piece, this.#head.length + this.#done);
    this.#done += piece.length;
    if (this.#done < this.#plan.length) return;
    this.#head.set(this.#hash.digest(), hashOffset);
    this.#isFinished = true;
  }
}

type Hashed = [bytes: Uint8Array, hash: ContainerHash];

async function hashed(bytes: Uint8Array): Promise<Hashed> {
  const hash = await ContainerHash.create();
  await hash.updateInPieces(bytes, 0);
  return [bytes, hash];
}

/** A file, hashed while it is read: half the time on two cores. */
async function readHashed(file: string): Promise<Hashed> {
  const hash = await ContainerHash.create();
  return [await readWhole(file, 'engine', (piece, at) => hash.update(piece, at)), hash];
}

function parseContainer(
  bytes: Uint8Array,
  hash: ContainerHash,
  label: string,
): Contents & { file: FileBytes } {
  const corrupt = (problem: string, cause?: unknown) =>
    new TensorRTError('ERR_ENGINE_CORRUPT', `${label} ${problem}. Build it again.`, { cause });
  if (bytes.length === 0) throw corrupt('is empty');
  if (!magic.equals(bytes.subarray(0, magic.length))) {
    const other = otherThanBinary(bytes);
    const problem = 'is not an engine file of node-tensorrt';
    if (!other) throw corrupt(problem);
    throw new TensorRTError('ERR_ENGINE_CORRUPT', `${label} ${problem}. It is ${other}`);
  }
  if (bytes.length < headerBytes) throw corrupt(`ends within its header, after ${bytes.length} bytes`);
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  const version = view.getUint32(magic.length, true);
  if (version !== formatVersion) {
    throw new TensorRTError(
      'ERR_ENGINE_INCOMPATIBLE',
      `${label} has format version ${version}; this node-tensorrt reads version ${formatVersion}. ` +
        'Build it again, or use the version that wrote it.',
    );
  }
  const [manifestLength, layersLength, planLength] = [16, 24, 32].map((at) => view.getBigUint64(at, true));
  const expected = BigInt(headerBytes) + manifestLength! + layersLength! + planLength!;
  if (expected !== BigInt(bytes.length)) {
    const relation = expected > bytes.length ? 'is cut short' : 'has bytes after its end';
    throw corrupt(`${relation}: it should have ${expected} bytes and has ${bytes.length}`);
  }
  const layersOffset = headerBytes + Number(manifestLength);
  const planOffset = layersOffset + Number(layersLength);
  const file = { head: bytes.subarray(0, planOffset), plan: bytes.subarray(planOffset) };
  if (!Buffer.from(hash.digest()).equals(bytes.subarray(hashOffset, headerBytes))) {
    throw corrupt('is damaged: its SHA-256 does not match');
  }
  // The checksum guards against accidents, not against a maker of bad files: shapes are checked too.
  const text = (from: number, to: number) =>
    Buffer.from(bytes.buffer, bytes.byteOffset + from, to - from).toString();
  try {
    const manifest = JSON.parse(text(headerBytes, layersOffset));
    const layers = JSON.parse(text(layersOffset, planOffset));
    if (!nestsWithin(maxNesting, manifest, layers)) throw new Error(`it nests more than ${maxNesting} deep`);
    if (!isManifest(manifest) || !isArrayOf(layers, isLayer))
      throw new Error('a field is missing or of another type');
    return { manifest, layers, file };
  } catch (cause) {
    throw corrupt(`has a manifest that can't be read: ${(cause as Error).message}`, cause);
  }
}

// ---- what JSON from a file has to be ----

/** What walks a manifest, such as structuredClone, recurses. */
export const maxNesting = 64;

/** Whether JSON values nest so deep at most. */
export function nestsWithin(levels: number, ...values: readonly unknown[]): boolean {
  let level = values;
  for (let i = 0; i <= levels; i++) {
    level = level.flatMap((value) => (isObject(value) || Array.isArray(value) ? Object.values(value) : []));
    if (level.length === 0) return true;
  }
  return false;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

function isArrayOf<T>(value: unknown, is: (element: unknown) => element is T): value is T[] {
  return Array.isArray(value) && value.every(is);
}

const isString = (value: unknown): value is string => typeof value === 'string';
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isDim = (value: unknown): value is number => value === -1 || isCount(value);

function isTensor(value: unknown): value is TensorInfo {
  return (
    isObject(value) &&
    isString(value.name) &&
    (value.type === null || (isString(value.type) && Object.hasOwn(dataTypes, value.type))) &&
    isArrayOf(value.dims, isDim)
  );
}

function isLayer(value: unknown): value is LayerInfo {
  return (
    isObject(value) &&
    isString(value.name) &&
    isString(value.type) &&
    isArrayOf(value.inputs, isString) &&
    isArrayOf(value.outputs, isTensor)
  );
}

function isRange(value: unknown): value is ShapeRange {
  if (!isObject(value)) return false;
  const { min, opt, max } = value;
  return (
    isArrayOf(min, isCount) &&
    isArrayOf(opt, isCount) &&
    isArrayOf(max, isCount) &&
    opt.length === min.length &&
    max.length === min.length
  );
}

function isProfile(value: unknown): value is Profile {
  return isObject(value) && Object.values(value).every(isRange);
}

function isCast(value: unknown): boolean {
  if (!isObject(value) || !isObject(value.ranges)) return false;
  const { ranges, nodes, kept } = value;
  const isSaid = (element: unknown): element is object =>
    isObject(element) && isString(element.node) && isString(element.reason);
  const counts = value.float16 ?? value.bfloat16;
  return (
    isObject(counts) &&
    Object.values(counts).every(isCount) &&
    isString(ranges.source) &&
    isArrayOf(nodes, isSaid) &&
    isArrayOf(kept, isSaid) &&
    [value.casts, value.weights, value.weightBytes].every(isCount)
  );
}

function isDecoder(value: unknown): value is DecoderGraph {
  if (!isObject(value) || !isObject(value.inputs)) return false;
  const { mode, inputs, caches, logits, top } = value;
  const isCache = (element: unknown): element is object =>
    isObject(element) &&
    [element.input, element.output].every(isString) &&
    [element.kvHeads, element.headDim].every(isCount);
  return (
    mode === 'in-place' &&
    Object.values(inputs).every(isString) &&
    isArrayOf(caches, isCache) &&
    isString(logits) &&
    (top === undefined || (isObject(top) && [top.logits, top.tokens, top.logSumExp].every(isString)))
  );
}

function isManifest(value: unknown): value is EngineManifest {
  if (!isObject(value) || !isObject(value.library) || !isObject(value.model) || !isObject(value.options))
    return false;
  const { library, model, cast, decoder, parent, lineage } = value;
  return (
    (decoder === undefined || isDecoder(decoder)) &&
    (cast === undefined || isCast(cast)) &&
    (parent === undefined || (isString(parent) && /^[0-9a-f]{64}$/.test(parent))) &&
    (lineage === undefined || isObject(lineage)) &&
    [library.flavour, library.version, value.builder, value.precision, value.created].every(isString) &&
    [model.sha256, model.weightsSha256, model.producer, model.name ?? ''].every(isString) &&
    isArrayOf(value.targets, isString) &&
    isArrayOf(value.warnings, isString) &&
    isArrayOf(value.profiles, isProfile) &&
    isArrayOf(value.inputs, isTensor) &&
    isArrayOf(value.outputs, isTensor)
  );
}
