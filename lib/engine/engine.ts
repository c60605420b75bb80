import { isDeepStrictEqual } from 'node:util';
import { invalidArgType, TensorRTError } from '../base/errors.js';
import { type Bytes, bytesOf, checkOptions, checkPath, refuseCloning } from '../base/options.js';
import { type NativeBytes, requireArrayLength } from '../system/native/bytes.js';
import type { EngineFile } from './engine-file.js';
import {
  type Bindings,
  bindingsOf,
  type EngineContents,
  type EngineManifest,
  type EngineTensor,
  type LayerInfo,
  type Provenance,
} from './manifest.js';

/** It is loaded when it is first needed, at once: load() copies a caller's bytes before it returns. */
const engineFile = () => (require('./engine-file.js') as typeof import('./engine-file.js')).EngineFile;

/**
 * The file of each engine that wasn't disposed. It isn't a private field, because the functions below read it; they are
 * internal to this package, so they aren't methods.
 */
const files = new WeakMap<Engine, EngineFile>();

/** @throws TensorRTError ERR_DISPOSED */
function fileOf(engine: Engine): EngineFile {
  const file = files.get(engine);
  if (!file) throw new TensorRTError('ERR_DISPOSED', 'The engine was disposed.');
  return file;
}

/** An engine's plan, as a handle that the caller releases. @throws TensorRTError ERR_DISPOSED */
export function planOf(engine: Engine): NativeBytes {
  return fileOf(engine).plan.share();
}

/** How many bytes an engine's plan has. @throws TensorRTError ERR_DISPOSED */
export function planByteLength(engine: Engine): number {
  return fileOf(engine).plan.byteLength;
}

/** True if an engine has a manifest, which a bare plan hasn't. @throws TensorRTError ERR_DISPOSED */
export function isDescribed(engine: Engine): boolean {
  return !fileOf(engine).isBarePlan;
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const each of Object.values(value)) deepFreeze(each);
  return Object.freeze(value);
}

/**
 * A model that TensorRT has compiled. It is immutable. Its plan, however large, lies outside the JavaScript heap: in
 * native memory if it was just built or given as bytes, else in its file.
 *
 * @example
 * ```js
 * import { buildEngine, Engine } from 'node-tensorrt';
 *
 * await (await buildEngine('model.onnx', { target: 'sm_89' })).save('model.engine');
 * const engine = await Engine.load('model.engine');
 * console.log(engine.id, engine.manifest.targets, engine.inputs);
 * engine.dispose();
 * ```
 */
export class Engine {
  readonly #contents: EngineContents | undefined;
  /** Inputs and outputs of a bare plan, which has no manifest, from TensorRT; undefined for an engine file. */
  readonly #bindings: Bindings | undefined;
  /** True if {@link buildEngine} took the engine from its cache instead of compiling it. */
  readonly fromCache: boolean;

  /** @param known the file's manifest and layers, or a bare plan's inputs and outputs */
  private constructor(
    file: EngineFile,
    known: { contents?: EngineContents; bindings?: Bindings | undefined },
    fromCache = false,
  ) {
    files.set(this, file);
    this.fromCache = fromCache;
    const { contents, bindings } = known;
    this.#contents = contents && { ...contents, manifest: deepFreeze(contents.manifest) };
    this.#bindings = deepFreeze(bindings);
    refuseCloning(this);
  }

  /**
   * Opens an engine file, or takes the bytes of one, which are copied. The container is checked whole (magic, version,
   * lengths, and on a thread the SHA-256) before anything in it is used. The plan stays in the file until a session is
   * created: if the file is written to before that, the session is refused with ERR_IO. A file that is replaced, as
   * {@link save} does it, or removed may still be used.
   *
   * @param options.trusted accepts a bare TensorRT plan. A plan can run code of its maker's choice when TensorRT loads
   *   it, and a bare one carries no checksum. TensorRT tells its inputs and outputs if a GPU here can run it. Defaults to
   *   false
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
    const opened =
      typeof source === 'string' ? await engineFile().open(source) : engineFile().of(source, label);
    if (!opened.isBarePlan) return new Engine(opened, { contents: await opened.check(label) });
    if (options.trusted !== true) {
      opened.release();
      throw new TensorRTError(
        'ERR_ENGINE_CORRUPT',
        `${label} is a bare TensorRT plan, not an engine file of node-tensorrt: it has no checksum. ` +
          'If you trust where it comes from, pass { trusted: true }.',
      );
    }
    const { readBindings } = await import('./plan-bindings.js');
    return new Engine(opened, { bindings: await readBindings(opened.plan) });
  }

  /**
   * Loads an engine file of the cache, and records that it was used.
   * @internal
   */
  static async loadCached(file: string): Promise<Engine> {
    const opened = await engineFile().open(file);
    const contents = await opened.check(file);
    opened.plan.markUsed();
    return new Engine(opened, { contents }, true);
  }

  /**
   * Makes the engine of a finished build.
   * @param plan the compiled plan, which the engine owns from now on
   * @internal
   */
  static assemble(
    manifest: EngineManifest,
    layers: readonly LayerInfo[],
    plan: NativeBytes,
    fromCache = false,
  ): Engine {
    const texts = [manifest, layers].map((part) => Buffer.from(JSON.stringify(part)));
    // The manifest as the file has it: without properties that are undefined.
    const contents = { manifest: JSON.parse(String(texts[0])), layers };
    return new Engine(engineFile().build(texts, plan), { contents }, fromCache);
  }

  /**
   * Returns this engine, or, if its manifest differs from `provenance`, a new one with the same plan; this one is then
   * disposed.
   * @internal
   */
  withProvenance(provenance: Provenance): Engine {
    const { manifest, layers } = this.#described();
    const { model, parent, lineage, masks } = manifest;
    if (
      isDeepStrictEqual({ name: model.name, parent, lineage, masks }, { masks: undefined, ...provenance })
    ) {
      return this;
    }
    const { name, ...line } = provenance;
    const changed = { ...manifest, ...line, model: { ...model, name } };
    const plan = planOf(this);
    this.dispose();
    return Engine.assemble(changed, layers, plan, this.fromCache);
  }

  /** The inputs, with their ranges. @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan that can't run here */
  get inputs(): readonly EngineTensor[] {
    return (this.#bindings ?? bindingsOf(this.manifest)).inputs;
  }

  /** The outputs. @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan that can't run here */
  get outputs(): readonly EngineTensor[] {
    return (this.#bindings ?? bindingsOf(this.manifest)).outputs;
  }

  /**
   * The engine file's checksum: the SHA-256 of every byte except the checksum itself, in hexadecimal. For an engine that
   * was built without the cache and not saved it is computed now, at about 1.5 GB/s.
   * @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, which has none
   */
  get id(): string {
    this.#described();
    return fileOf(this).id;
  }

  /** A description of the engine and its origin. @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan */
  get manifest(): EngineManifest {
    return this.#described().manifest;
  }

  /** How many bytes the file has that {@link save} writes. */
  get byteLength(): number {
    return fileOf(this).byteLength;
  }

  /**
   * Writes the engine file, on a thread. The file appears whole or not at all: it is written beside its place and then
   * renamed.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async save(file: string): Promise<void> {
    checkPath(file, 'file');
    await fileOf(this).write(file);
  }

  /**
   * Writes the bare TensorRT plan, which trtexec and Triton load, in the way that {@link save} writes the engine file.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async savePlan(file: string): Promise<void> {
    checkPath(file, 'file');
    await fileOf(this).writePlan(file);
  }

  /**
   * Copies the bare TensorRT plan into the JavaScript heap. It blocks while the plan is copied, or read from its file.
   * {@link savePlan} writes a plan of any length to a file.
   * @throws TensorRTError ERR_BUFFER_TOO_LARGE for more bytes than a Uint8Array holds (4 GiB on Node 20), ERR_IO,
   *   ERR_DISPOSED
   */
  plan(): Uint8Array {
    const { plan } = fileOf(this);
    requireArrayLength(plan, 'The plan', 'Engine.savePlan(file), or `node-tensorrt build --plan FILE`,');
    const bytes = new Uint8Array(plan.byteLength);
    plan.read(0, bytes);
    return bytes;
  }

  /**
   * Returns the layers of the network as TensorRT's compiler got it. The compiler fuses most of them.
   * @throws (rejects) TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, ERR_DISPOSED
   */
  async inspect(): Promise<LayerInfo[]> {
    return structuredClone([...this.#described().layers]);
  }

  /** Frees the memory, or closes the file. Sessions that were created from it go on. It may be called again. */
  dispose(): void {
    files.get(this)?.release();
    files.delete(this);
  }

  /** Disposes of the engine at the end of a `using` block. */
  [Symbol.dispose](): void {
    this.dispose();
  }

  #described(): EngineContents {
    fileOf(this);
    if (this.#contents) return this.#contents;
    throw new TensorRTError(
      'ERR_ENGINE_INCOMPATIBLE',
      'This engine is a bare TensorRT plan, which does not say what it holds. Save engines with Engine.save().',
    );
  }
}
