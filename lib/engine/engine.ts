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

/**
 * The file of each engine that was not disposed. It isn't a private field, because the functions below read it: they are
 * for this package alone, so they aren't methods.
 */
const files = new WeakMap<Engine, EngineFile>();

/** @throws TensorRTError ERR_DISPOSED */
function fileOf(engine: Engine): EngineFile {
  const file = files.get(engine);
  if (!file) throw new TensorRTError('ERR_DISPOSED', 'The engine was disposed.');
  return file;
}

/** An engine's plan: a handle of the caller's, which releases it. @throws TensorRTError ERR_DISPOSED */
export function planOf(engine: Engine): NativeBytes {
  return fileOf(engine).plan.share();
}

/** Bytes of an engine's plan. @throws TensorRTError ERR_DISPOSED */
export function planByteLength(engine: Engine): number {
  return fileOf(engine).plan.byteLength;
}

/** Whether an engine has a manifest: a bare plan has none. @throws TensorRTError ERR_DISPOSED */
export function isDescribed(engine: Engine): boolean {
  return !fileOf(engine).isBarePlan;
}

function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value;
  for (const each of Object.values(value)) deepFreeze(each);
  return Object.freeze(value);
}

/**
 * A model compiled by TensorRT. Immutable. Its plan, however large, lies outside the JavaScript heap: in memory where it
 * was just built or was given as bytes, else in its file.
 */
export class Engine {
  readonly #contents: EngineContents | undefined;
  /** What TensorRT says of a bare plan, which has no manifest; undefined for an engine file. */
  readonly #bindings: Bindings | undefined;
  /** Whether {@link buildEngine} found it in its cache, and compiled nothing. */
  readonly fromCache: boolean;

  /** @param known what the file says, or what TensorRT says of a bare plan */
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
    const { EngineFile } = await import('./engine-file.js');
    const opened = typeof source === 'string' ? await EngineFile.open(source) : EngineFile.of(source, label);
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
   * An engine file of the cache's, of which it records that it was used.
   * @internal
   */
  static async loadCached(file: string): Promise<Engine> {
    const { EngineFile } = await import('./engine-file.js');
    const opened = await EngineFile.open(file);
    const contents = await opened.check(file);
    opened.plan.markUsed();
    return new Engine(opened, { contents }, true);
  }

  /**
   * The engine of a finished build.
   * @param plan becomes the engine's
   * @internal
   */
  static async assemble(
    manifest: EngineManifest,
    layers: readonly LayerInfo[],
    plan: NativeBytes,
    fromCache = false,
  ): Promise<Engine> {
    const { EngineFile } = await import('./engine-file.js');
    const texts = [manifest, layers].map((part) => Buffer.from(JSON.stringify(part)));
    // As the file says it: without what is undefined.
    const contents = { manifest: JSON.parse(String(texts[0])), layers };
    return new Engine(EngineFile.build(texts, plan), { contents }, fromCache);
  }

  /**
   * This engine; or, if its manifest says otherwise than `provenance`, another of the same plan, and this one is
   * disposed.
   * @internal
   */
  async withProvenance(provenance: Provenance): Promise<Engine> {
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
    return (this.#bindings ?? bindingsOf(this.manifest)).inputs;
  }

  /** @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan that this machine can't run */
  get outputs(): readonly EngineTensor[] {
    return (this.#bindings ?? bindingsOf(this.manifest)).outputs;
  }

  /**
   * Hexadecimal SHA-256 of the engine file, its checksum: of every byte except the checksum itself. Of an engine that
   * was just built without the cache and not saved, it is computed now, at some 1.5 GB/s.
   * @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, which has none
   */
  get id(): string {
    this.#described();
    return fileOf(this).id;
  }

  /** @throws TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, which says nothing about itself */
  get manifest(): EngineManifest {
    return this.#described().manifest;
  }

  /** Bytes of the file that {@link save} writes. */
  get byteLength(): number {
    return fileOf(this).byteLength;
  }

  /**
   * Writes the engine file, from a thread. It appears whole or not at all: it is written beside its place, then renamed.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async save(file: string): Promise<void> {
    checkPath(file, 'file');
    await fileOf(this).write(file);
  }

  /**
   * Writes the bare TensorRT plan, what trtexec and Triton load, as {@link save} writes the engine file.
   * @throws (rejects) TensorRTError ERR_IO, ERR_DISPOSED; TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
   */
  async savePlan(file: string): Promise<void> {
    checkPath(file, 'file');
    await fileOf(this).writePlan(file);
  }

  /**
   * A copy of the bare TensorRT plan in the JavaScript heap. Blocks while it is copied, or read from its file.
   * {@link savePlan} writes one of any length to a file.
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
   * The layers of the network as it went to TensorRT's compiler, which fuses most of them.
   * @throws (rejects) TensorRTError ERR_ENGINE_INCOMPATIBLE for a bare plan, ERR_DISPOSED
   */
  async inspect(): Promise<LayerInfo[]> {
    return structuredClone([...this.#described().layers]);
  }

  /** Frees the memory, or closes the file; sessions that were created from it go on. May be called again. */
  dispose(): void {
    files.get(this)?.release();
    files.delete(this);
  }

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
