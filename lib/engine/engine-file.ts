import { constants as bufferConstants } from 'node:buffer';
import { closeSync, constants, openSync, readSync } from 'node:fs';
import { TensorRTError } from '../base/errors.js';
import { writeAtomically } from '../system/files/atomic-file.js';
import { engineMagic as magic, otherThanBinary, planMagics, seenBytes } from '../system/files/file-format.js';
import { readStart, withOpenFile } from '../system/files/file-range.js';
import type { NativeBytes } from '../system/native/bytes.js';
import { native } from '../system/native.js';
import type { EngineContents } from './manifest.js';
import { parseContents } from './parse-manifest.js';

// The format of an engine file: the header, then the manifest and the layers (JSON), then the plan, up to the file's
// end.
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

/** The {@link Engine.id} in an engine file's first bytes, not yet verified; undefined for anything else. */
export function engineIdOf(start: Uint8Array): string | undefined {
  if (start.length < headerBytes || !magic.equals(start.subarray(0, magic.length))) return undefined;
  return Buffer.from(start.subarray(hashOffset, headerBytes)).toString('hex');
}

/** True if a file begins as engine files do; false if it can't be read. Blocks while it reads 8 bytes. */
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

/**
 * An engine file, or the contents of one that isn't written yet: everything before the plan (empty for a bare plan),
 * and the plan.
 */
export class EngineFile {
  /** Everything before the plan. */
  readonly head: Uint8Array;
  readonly plan: NativeBytes;
  /** False while the checksum of a new engine isn't computed. Only saving it or asking for its id computes it. */
  #isSealed = true;
  /** The number of threads that are using the plan for this object. */
  #users = 0;
  #isReleased = false;

  private constructor(head: Uint8Array, plan: NativeBytes) {
    this.head = head;
    this.plan = plan;
  }

  /** @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_IO; the errors of {@link planOffset} */
  static open(file: string): Promise<EngineFile> {
    return withOpenFile(file, 'engine', async (descriptor, size) => {
      const start = await readStart(descriptor, Math.min(size, seenBytes));
      const offset = planOffset(start, size, file);
      const head = await readStart(descriptor, offset);
      return new EngineFile(head, new (native().NativeBytes)(file, descriptor, offset, size - offset));
    });
  }

  /** Copies the bytes. */
  static of(bytes: Uint8Array, label: string): EngineFile {
    const offset = planOffset(bytes, bytes.length, label);
    // A Buffer's slice() doesn't copy.
    const head = new Uint8Array(bytes.subarray(0, offset));
    return new EngineFile(head, new (native().NativeBytes)(bytes.subarray(offset)));
  }

  /** @param texts the manifest and the layers, in UTF-8 */
  static build(texts: readonly Buffer[], plan: NativeBytes): EngineFile {
    const head = Buffer.concat([Buffer.alloc(headerBytes), ...texts]);
    head.set(magic);
    head.writeUInt32LE(formatVersion, magic.length);
    [...texts.map((text) => text.length), plan.byteLength].forEach((length, i) => {
      head.writeBigUInt64LE(BigInt(length), 16 + 8 * i);
    });
    const built = new EngineFile(head, plan);
    built.#isSealed = false;
    return built;
  }

  get byteLength(): number {
    return this.head.length + this.plan.byteLength;
  }

  /** True if it holds nothing but the plan: no manifest, no checksum. */
  get isBarePlan(): boolean {
    return this.head.length === 0;
  }

  /** Its checksum, in hexadecimal. For a new engine it is computed first, which blocks. */
  get id(): string {
    if (!this.#isSealed) this.#seal(this.plan.sha256Sync(this.#hashed()));
    return engineIdOf(this.head)!;
  }

  /**
   * Verifies the checksum and returns the manifest and layers. Releases the plan if the file is damaged.
   * @throws (rejects) ERR_ENGINE_CORRUPT, ERR_IO
   */
  async check(label: string): Promise<EngineContents> {
    try {
      const hash = await this.plan.sha256(this.#hashed());
      if (!Buffer.from(hash).equals(this.head.subarray(hashOffset, headerBytes))) {
        throw corrupt(label, 'is damaged: its SHA-256 does not match');
      }
      return this.#parse(label);
    } catch (error) {
      this.release();
      throw error;
    }
  }

  /** @throws TensorRTError ERR_ENGINE_CORRUPT */
  #parse(label: string): EngineContents {
    const { buffer, byteOffset, length } = this.head;
    const bytes = Buffer.from(buffer, byteOffset, length);
    const layersOffset = headerBytes + Number(bytes.readBigUInt64LE(16));
    try {
      return parseContents(
        bytes.toString('utf8', headerBytes, layersOffset),
        bytes.toString('utf8', layersOffset),
      );
    } catch (cause) {
      throw corrupt(label, `has a manifest that can't be read: ${(cause as Error).message}`, cause);
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

  #seal(hash: Uint8Array): void {
    this.head.set(hash, hashOffset);
    this.#isSealed = true;
  }

  release(): void {
    this.#isReleased = true;
    if (this.#users === 0) this.plan.release();
  }

  /** If the plan is disposed while it is being written, it is released afterwards. */
  async #use(use: (plan: NativeBytes) => Promise<void>): Promise<void> {
    this.#users++;
    try {
      await use(this.plan);
    } finally {
      this.#users--;
      if (this.#isReleased && this.#users === 0) this.plan.release();
    }
  }

  /** The part before the plan that the checksum covers. */
  #hashed(): Uint8Array {
    return Buffer.concat([this.head.subarray(0, hashOffset), this.head.subarray(headerBytes)]);
  }
}

function corrupt(label: string, problem: string, cause?: unknown): TensorRTError {
  return new TensorRTError('ERR_ENGINE_CORRUPT', `${label} ${problem}. Build it again.`, { cause });
}

/**
 * The plan's offset in a file of `size` bytes that begins with `start`: 0 for a bare plan.
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
    throw corrupt(label, `${relation}: it should have ${expected} bytes but has ${size}`);
  }
  // The manifest and layers become strings, before the checksum has been verified.
  if (offset > bufferConstants.MAX_STRING_LENGTH) {
    throw corrupt(label, `has a manifest that can't be read: it has ${offset} bytes`);
  }
  return Number(offset);
}
