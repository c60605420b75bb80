import { constants as bufferConstants } from 'node:buffer';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { isDeepStrictEqual } from 'node:util';
import { type DataType, dataTypeFromOnnx, dataTypes } from '../base/data-type.js';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { invalidArgType, TensorRTError } from '../base/errors.js';
import { type Bytes, bytesOf, checkOptions, checkPath, refuseCloning } from '../base/options.js';
import { type Profile, rangeOf, type ShapeRange } from '../base/shapes.js';
import type { Dims } from '../base/tensor-like.js';
import type { CastBfloat16Report, CastFloat16Report } from '../onnx/precision/cast-precision.js';
import { writeAtomically } from '../system/files/atomic-file.js';
import { engineMagic as magic, otherThanBinary, planMagics, seenBytes } from '../system/files/file-format.js';
import { readStart, withOpenFile } from '../system/files/file-range.js';
import { type NativeBytes, native, requireArrayLength } from '../system/native.js';
import type { Flavour } from '../system/nvidia-support.js';

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
  readonly precision: 'as-exported' | 'fp32' | 'tf32' | 'fp16' | 'bf16';
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

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const each of Object.values(value)) deepFreeze(each);
  return Object.freeze(value);
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

/** An engine's plan: a handle of the caller's, which releases it. @throws TensorRTError ERR_DISPOSED */
export let planOf: (engine: Engine) => NativeBytes;

/** Bytes of an engine's plan. @throws TensorRTError ERR_DISPOSED */
export let planByteLength: (engine: Engine) => number;

/** The flavours that an engine's plan can be of: the one that compiled it; a bare plan's first bytes leave two. */
export function flavourOfPlan(
  engine: Engine,
  plan: Pick<NativeBytes, 'byteLength' | 'read'>,
): readonly ('trt10' | 'trt11' | 'rtx')[] {
  if (isDescribed(engine)) return [engine.manifest.library.flavour];
  const start = Buffer.alloc(Math.min(4, plan.byteLength));
  plan.read(0, start);
  return start.toString('latin1') === 'vtrt' ? ['rtx'] : ['trt11', 'trt10'];
}

/** Whether an engine has a manifest: a bare plan has none. */
export let isDescribed: (engine: Engine) => boolean;

/**
 * A model compiled by TensorRT. Immutable. Its plan, however large, lies outside the JavaScript heap: in memory where it
 * was just built or was given as bytes, else in its file.
 */
export class Engine {
  static {
    planOf = (engine) => engine.#live().plan.share();
    planByteLength = (engine) => engine.#live().plan.byteLength;
    isDescribed = (engine) => engine.#contents !== undefined;
  }

  #file: Container | undefined;
  readonly #contents: Contents | undefined;
  /** Of a bare plan. */
  #bindings: Bindings | undefined;
  /** Whether {@link buildEngine} found it in its cache, and compiled nothing. */
  readonly fromCache: boolean;

  private constructor(file: Container, contents: Contents | undefined, fromCache = false) {
    this.#file = file;
    this.fromCache = fromCache;
    this.#contents = contents && { ...contents, manifest: deepFreeze(contents.manifest) };
    refuseCloning(this);
  }

  /**
   * Opens an engine file, or takes its bytes, which are copied. The container is checked whole (magic, version, lengths,
   * SHA-256, the latter on a thread) before anything in it is used. The plan stays in the file, and is read when a
   * session is created: a file that is written to until then is refused with ERR_IO. A file that is replaced, as
   * {@link save} does it, or removed may be used on.
   *
   * A bare TensorRT plan can run code of its maker's choice when TensorRT loads it, and carries no checksum: it needs
   * `trusted`. What its inputs and outputs are, TensorRT says where there is a GPU that can run it.
   * @throws (rejects) TensorRTError ERR_ENGINE_CORRUPT, ERR_ENGINE_INCOMPATIBLE, ERR_MODEL_NOT_FOUND, ERR_IO,
   *   ERR_OUT_OF_MEMORY; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  static async load(file: string | Bytes, options: { trusted?: boolean } = {}): Promise<Engine> {
    checkOptions(options, 'options', ['trusted'], {});
    const isPath = typeof file === 'string';
    if (isPath) checkPath(file, 'file');
    const source = isPath ? file : bytesOf(file, 'file');
    if (source === undefined) throw invalidArgType('file', 'a path, a Uint8Array or an ArrayBuffer', file);
    const label = isPath ? file : 'The engine';
    const container = typeof source === 'string' ? await Container.open(source) : Container.of(source, label);
    if (container.head.length > 0) return new Engine(container, await container.check(label));
    if (options.trusted !== true) {
      container.release();
      throw new TensorRTError(
        'ERR_ENGINE_CORRUPT',
        `${label} is a bare TensorRT plan, not an engine file of node-tensorrt: it has no checksum. ` +
          'If you trust where it comes from, pass { trusted: true }.',
      );
    }
    const engine = new Engine(container, undefined);
    engine.#bindings = await readBindings(engine);
    return engine;
  }

  /**
   * An engine file of the cache's, of which it records that it was used.
   * @internal
   */
  static async loadCached(file: string): Promise<Engine> {
    const container = await Container.open(file);
    const contents = await container.check(file);
    container.plan.markUsed();
    return new Engine(container, contents, true);
  }

  /**
   * The engine of a finished build.
   * @param plan becomes the engine's
   * @internal
   */
  static assemble(
    manifest: EngineManifest,
    layers: readonly LayerInfo[],
    plan: NativeBytes,
    fromCache = false,
  ): Engine {
    const texts = [manifest, layers].map((part) => Buffer.from(JSON.stringify(part)));
    // As the file says it: without what is undefined.
    const contents = { manifest: JSON.parse(String(texts[0])), layers };
    return new Engine(Container.build(texts, plan), contents, fromCache);
  }

  /**
   * This engine; or, if its manifest says otherwise than `provenance`, another of the same plan, and this one is
   * disposed.
   * @internal
   */
  withProvenance(provenance: Provenance): Engine {
    const { manifest, layers } = this.#described();
    const { model, parent, lineage } = manifest;
    if (isDeepStrictEqual({ name: model.name, parent, lineage }, provenance)) return this;
    const { name, ...line } = provenance;
    const changed = { ...manifest, ...line, model: { ...model, name } };
    const plan = planOf(this);
    this.dispose();
    return Engine.assemble(changed, layers, plan, this.fromCache);
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
    const file = this.#live();
    file.sealSync();
    return engineIdOf(file.head)!;
  }

  /** @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, which says nothing about itself */
  get manifest(): EngineManifest {
    return this.#described().manifest;
  }

  /** Bytes of the file that {@link save} writes. */
  get byteLength(): number {
    return this.#live().byteLength;
  }

  /**
   * Writes the engine file, from a thread. It appears whole or not at all: it is written beside its place, then renamed.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async save(file: string): Promise<void> {
    checkPath(file, 'file');
    await this.#live().write(file);
  }

  /**
   * Writes the bare TensorRT plan, what trtexec and Triton load, as {@link save} writes the engine file.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async savePlan(file: string): Promise<void> {
    checkPath(file, 'file');
    await this.#live().writePlan(file);
  }

  /**
   * A copy of the bare TensorRT plan in the JavaScript heap. Blocks while it is copied, or read from its file.
   * {@link savePlan} writes one of any length to a file.
   * @throws TensorRTError ERR_BUFFER_TOO_LARGE for more bytes than a Uint8Array holds (4 GiB on Node 20), ERR_IO,
   *   ERR_DISPOSED
   */
  plan(): Uint8Array {
    const { plan } = this.#live();
    requireArrayLength(plan, 'The plan', 'Engine.savePlan(file), or `node-tensorrt build --plan FILE`,');
    const bytes = new Uint8Array(plan.byteLength);
    plan.read(0, bytes);
    return bytes;
  }

  /**
   * The layers of the network as it went to TensorRT's compiler, which fuses most of them.
   * @throws (rejects) TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, ERR_DISPOSED
   */
  async inspect(): Promise<LayerInfo[]> {
    return structuredClone([...this.#described().layers]);
  }

  /** Frees the memory, or closes the file; sessions that were created from it go on. May be called again. */
  dispose(): void {
    this.#file?.release();
    this.#file = undefined;
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #live(): Container {
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
  const { native } = await import('../system/native.js');
  // One of them may be of the kind that the plan is for.
  const { gpus } = await native().probeCuda();
  for (const ordinal of gpus.keys()) {
    const bindings = await readBindingsOn(ordinal, engine);
    if (bindings) return bindings;
  }
  return undefined;
}

async function readBindingsOn(ordinal: number, engine: Engine): Promise<Bindings | undefined> {
  const { findGpu } = await import('../system/gpu.js');
  const { loadEngine } = await import('../execution/load-plan.js');
  const { native } = await import('../system/native.js');
  try {
    const session = new (native().NativeSession)({ concurrency: 1, maxQueue: 1 });
    const request = {
      engine,
      gpu: await findGpu(ordinal),
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

/** An engine file: what comes before the plan (nothing, if it is a bare one), and the plan. */
class Container {
  readonly head: Uint8Array;
  readonly plan: NativeBytes;
  /** The checksum of a new engine is computed for who saves it or asks for its id, and for no one else. */
  #isSealed = true;
  /** How many threads are at work with the plan on behalf of this. */
  #users = 0;
  #isReleased = false;

  private constructor(head: Uint8Array, plan: NativeBytes) {
    this.head = head;
    this.plan = plan;
  }

  /** @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_IO; what {@link planOffset} throws */
  static open(file: string): Promise<Container> {
    return withOpenFile(file, 'engine', async (descriptor, size) => {
      const start = await readStart(descriptor, Math.min(size, seenBytes));
      const offset = planOffset(start, size, file);
      const head = await readStart(descriptor, offset);
      return new Container(head, new (native().NativeBytes)(file, descriptor, offset, size - offset));
    });
  }

  /** Copies the bytes. */
  static of(bytes: Uint8Array, label: string): Container {
    const offset = planOffset(bytes, bytes.length, label);
    // A Buffer's slice() would be no copy.
    const head = new Uint8Array(bytes.subarray(0, offset));
    return new Container(head, new (native().NativeBytes)(bytes.subarray(offset)));
  }

  static build(texts: readonly Buffer[], plan: NativeBytes): Container {
    const head = Buffer.concat([Buffer.alloc(headerBytes), ...texts]);
    head.set(magic);
    head.writeUInt32LE(formatVersion, magic.length);
    [...texts.map((text) => text.length), plan.byteLength].forEach((length, i) => {
      head.writeBigUInt64LE(BigInt(length), 16 + 8 * i);
    });
    const built = new Container(head, plan);
    built.#isSealed = false;
    return built;
  }

  get byteLength(): number {
    return this.head.length + this.plan.byteLength;
  }

  /** What is said of the plan. Releases it where the file is damaged. @throws (rejects) ERR_ENGINE_CORRUPT, ERR_IO */
  async check(label: string): Promise<Contents> {
    try {
      const hash = await this.plan.sha256(this.#hashed());
      if (!Buffer.from(hash).equals(this.head.subarray(hashOffset, headerBytes))) {
        throw corrupt(label, 'is damaged: its SHA-256 does not match');
      }
      return parseContents(this.head, label);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  async write(file: string): Promise<void> {
    await this.#use(async (plan) => {
      if (!this.#isSealed) this.#seal(await plan.sha256(this.#hashed()));
      await writeAtomically(file, [this.head, plan], 'engine');
    });
  }

  async writePlan(file: string): Promise<void> {
    await this.#use((plan) => writeAtomically(file, [plan], 'plan'));
  }

  sealSync(): void {
    if (!this.#isSealed) this.#seal(this.plan.sha256Sync(this.#hashed()));
  }

  #seal(hash: Uint8Array): void {
    this.head.set(hash, hashOffset);
    this.#isSealed = true;
  }

  release(): void {
    this.#isReleased = true;
    if (this.#users === 0) this.plan.release();
  }

  /** A plan that is being written is released after that. */
  async #use(use: (plan: NativeBytes) => Promise<void>): Promise<void> {
    this.#users++;
    try {
      await use(this.plan);
    } finally {
      this.#users--;
      if (this.#isReleased && this.#users === 0) this.plan.release();
    }
  }

  /** What the checksum is of, before the plan. */
  #hashed(): Uint8Array {
    return Buffer.concat([this.head.subarray(0, hashOffset), this.head.subarray(headerBytes)]);
  }
}

function corrupt(label: string, problem: string, cause?: unknown): TensorRTError {
  return new TensorRTError('ERR_ENGINE_CORRUPT', `${label} ${problem}. Build it again.`, { cause });
}

/**
 * Where the plan begins in a file of `size` bytes that begins with `start`: 0 for a bare plan.
 * @throws TensorRTError ERR_ENGINE_CORRUPT, ERR_ENGINE_INCOMPATIBLE
 */
function planOffset(start: Uint8Array, size: number, label: string): number {
  const bytes = Buffer.from(start.buffer, start.byteOffset, start.length);
  if (planMagics.includes(bytes.subarray(0, 4).toString('latin1'))) return 0;
  if (size === 0) throw corrupt(label, 'is empty');
  if (!magic.equals(bytes.subarray(0, magic.length))) {
    const other = otherThanBinary(start);
    const problem = 'is not an engine file of node-tensorrt';
    if (!other) throw corrupt(label, problem);
    throw new TensorRTError('ERR_ENGINE_CORRUPT', `${label} ${problem}. It is ${other}`);
  }
  if (size < headerBytes) throw corrupt(label, `ends within its header, after ${size} bytes`);
  const version = bytes.readUInt32LE(magic.length);
  if (version !== formatVersion) {
    throw new TensorRTError(
      'ERR_ENGINE_INCOMPATIBLE',
      `${label} has format version ${version}; this node-tensorrt reads version ${formatVersion}. ` +
        'Build it again, or use the version that wrote it.',
    );
  }
  const [manifestLength, layersLength, planLength] = [16, 24, 32].map((at) => bytes.readBigUInt64LE(at));
  const offset = BigInt(headerBytes) + manifestLength! + layersLength!;
  const expected = offset + planLength!;
  if (expected !== BigInt(size)) {
    const relation = expected > size ? 'is cut short' : 'has bytes after its end';
    throw corrupt(label, `${relation}: it should have ${expected} bytes and has ${size}`);
  }
  // What becomes a string, which is read before the checksum says whose it is.
  if (offset > bufferConstants.MAX_STRING_LENGTH) {
    throw corrupt(label, `has a manifest that can't be read: it has ${offset} bytes`);
  }
  return Number(offset);
}

/** @throws TensorRTError ERR_ENGINE_CORRUPT */
function parseContents(head: Uint8Array, label: string): Contents {
  // The checksum guards against accidents, not against a maker of bad files: shapes are checked too.
  const bytes = Buffer.from(head.buffer, head.byteOffset, head.length);
  const layersOffset = headerBytes + Number(bytes.readBigUInt64LE(16));
  try {
    const manifest = JSON.parse(bytes.toString('utf8', headerBytes, layersOffset));
    const layers = JSON.parse(bytes.toString('utf8', layersOffset));
    if (!nestsWithin(maxNesting, manifest, layers)) throw new Error(`it nests more than ${maxNesting} deep`);
    if (!isManifest(manifest) || !isArrayOf(layers, isLayer))
      throw new Error('a field is missing or of another type');
    return { manifest, layers };
  } catch (cause) {
    throw corrupt(label, `has a manifest that can't be read: ${(cause as Error).message}`, cause);
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
