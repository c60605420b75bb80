import { constants } from 'node:buffer';
import { getHeapStatistics } from 'node:v8';
import { invalidArgType, TensorRTError } from '../../base/errors.js';

/**
 * The protobuf wire format (https://protobuf.dev/programming-guides/encoding/), driven by tables of field
 * number, name and kind. What a message means is `model.ts`'s business.
 *
 * In memory a message is a plain object. A singular field that is absent on the wire is absent from the object,
 * so presence survives a round trip. Fields the table doesn't know are kept, as views of the input, in
 * `unknownFields`, and written back.
 */

/**
 * What a field holds, on the wire and in JavaScript.
 *
 * | kind | wire | JavaScript |
 * | --- | --- | --- |
 * | `float` `double` | fixed 32, 64 bits | number |
 * | `int32` | varint | number (enums too) |
 * | `int53` | varint (int64) | number; outside ±(2⁵³ − 1) is refused. For counts, sizes and versions |
 * | `int64` `uint64` | varint | bigint. For the model's own data |
 * | `string` | length-delimited | string; must be UTF-8 |
 * | `text` | length-delimited | string; bytes that aren't UTF-8, or too many for a string, are kept as an unknown field (documentation) |
 * | `bytes` | length-delimited | Uint8Array, a view of the input |
 * | `message` | length-delimited | object |
 */
export type FieldKind =
  | 'float'
  | 'double'
  | 'int32'
  | 'int53'
  | 'int64'
  | 'uint64'
  | 'string'
  | 'text'
  | 'bytes'
  | 'message';

/**
 * How often a field occurs.
 * - `one`: at most once; absent when not set (scalars: the last one wins; a message twice is refused).
 * - `required`: like `one`, with the kind's zero when absent, and always written.
 * - `list`: an array, empty when there is none.
 * - `rare`: an array, absent when there is none.
 * - `packed`: a typed array of the kind, absent when there is none; written packed, read either way.
 */
export type FieldCount = 'one' | 'required' | 'list' | 'rare' | 'packed';

export interface Field {
  /** Number on the wire. */
  readonly number: number;
  /** Property name in JavaScript. */
  readonly name: string;
  readonly kind: FieldKind;
  readonly count: FieldCount;
  /** Of `kind: 'message'`: its table. A function, since ONNX's messages refer to each other. */
  readonly message?: () => MessageType;
  /** Fields of one `oneof` exclude each other: reading one forgets the others. */
  readonly oneof?: string;
}

export interface MessageType {
  /** The message's name, for error texts. */
  readonly name: string;
  /** Ascending by number, the order in which they are written. */
  readonly fields: readonly Field[];
  /** `byNumber[n]` is the field with number n. */
  readonly byNumber: readonly (Field | undefined)[];
  /** A message with nothing set. */
  create(): Message;
  /** Estimated heap bytes of an empty message: see {@link maxHeapBudget}. */
  readonly weight: number;
}

export type Message = Record<string, unknown> & { unknownFields?: Uint8Array[] };

/** ONNX graphs nest through attributes (If in If …); a hundred levels is also protobuf's own limit. */
const maxDepth = 100;

/**
 * Two bytes on the wire can become a message of hundreds of bytes in memory. What decoding may put on the
 * JavaScript heap, by estimate, so that a hostile file gets an error instead of ending the process.
 * A graph of a million nodes stays under half of it. A small heap has less: three quarters of its limit.
 */
const maxHeapBudget = 2 * 1024 ** 3;

/** protobuf's own limit for a message. */
const maxEncodedBytes = 2 ** 31 - 1;

const viewWeight = 160;
const bigintWeight = 32;
const stringWeight = 32;
/** A number in a list that grows: V8 ends the process when one would outgrow 2^27 elements. */
const listedNumberWeight = 32;

/** Builds a message's table. */
export function messageType(name: string, fields: readonly Field[]): MessageType {
  const ordered = [...fields].sort((a, b) => a.number - b.number);
  const byNumber: (Field | undefined)[] = [];
  for (const field of ordered) byNumber[field.number] = field;
  const preset = ordered.filter((f) => f.count === 'list' || f.count === 'required');
  const lists = preset.filter((f) => f.count === 'list').length;
  return {
    name,
    fields: ordered,
    byNumber,
    weight: 64 + 16 * preset.length + 32 * lists,
    create() {
      const message: Message = {};
      // Always in the same order: messages of a type then share V8's hidden class.
      for (const field of preset) message[field.name] = field.count === 'list' ? [] : zero(field.kind);
      return message;
    },
  };
}

function zero(kind: FieldKind): unknown {
  switch (kind) {
    case 'string':
    case 'text':
      return '';
    case 'bytes':
      return new Uint8Array(0);
    case 'int64':
    case 'uint64':
      return 0n;
    default:
      return 0;
  }
}

type Packed = Float32Array | Float64Array | Int32Array | BigInt64Array | BigUint64Array;

function packedArray(kind: FieldKind, length: number): Packed {
  switch (kind) {
    case 'float':
      return new Float32Array(length);
    case 'double':
      return new Float64Array(length);
    case 'int32':
      return new Int32Array(length);
    case 'int64':
      return new BigInt64Array(length);
    case 'uint64':
      return new BigUint64Array(length);
    default:
      throw new TypeError(`A packed field can't hold ${kind}.`);
  }
}

const wireTypeNames = ['varint', '64-bit', 'length-delimited', 'group start', 'group end', '32-bit'];

function wireType(kind: FieldKind): number {
  switch (kind) {
    case 'double':
      return 1;
    case 'float':
      return 5;
    case 'string':
    case 'text':
    case 'bytes':
    case 'message':
      return 2;
    default:
      return 0;
  }
}

// ---- decode ------------------------------------------------------------------------------------------------------

/**
 * Decodes one message. `bytes` fields and unknown fields are views of `bytes`: it must not change while the
 * message lives.
 *
 * @throws TensorRTError ERR_MODEL_INVALID, naming the byte offset, for whatever isn't a message of this type;
 * ERR_OUT_OF_MEMORY when the packed data doesn't fit in memory.
 */
export function decodeMessage(type: MessageType, bytes: Uint8Array): Message {
  return new Decoder(bytes).message(type, bytes.length, 1);
}

/** A typed array that grows by doubling: a hostile field is unpacked in a million pieces as fast as in one. */
class GrowingArray {
  #array: Packed;
  #length = 0;

  constructor(readonly field: Field) {
    this.#array = packedArray(field.kind, 0);
  }

  /** Room for `n` more elements, known to be on the wire; returns the array and where they start. */
  extend(n: number): { array: Packed; at: number } {
    const at = this.#length;
    this.#length += n;
    if (this.#length > this.#array.length) {
      const capacity = at === 0 ? n : Math.max(this.#length, 2 * this.#array.length);
      let grown: Packed;
      try {
        grown = packedArray(this.field.kind, capacity);
      } catch (cause) {
        throw new TensorRTError('ERR_OUT_OF_MEMORY', `No memory for ${capacity} elements of ONNX data.`, {
          cause,
        });
      }
      (grown as Float32Array).set(this.#array as Float32Array);
      this.#array = grown;
    }
    return { array: this.#array, at };
  }

  finish(): Packed {
    return this.#array.length === this.#length ? this.#array : this.#array.slice(0, this.#length);
  }
}

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #buffer: Buffer;
  readonly #view: DataView;
  #at = 0;
  #heap = 0;
  readonly #heapBudget = Math.min(maxHeapBudget, 0.75 * getHeapStatistics().heap_size_limit);
  /** The 64 bits of the varint read last. */
  #low = 0;
  #high = 0;

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes;
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  }

  message(type: MessageType, end: number, depth: number): Message {
    if (depth > maxDepth) this.#fail(this.#at, `messages nest more than ${maxDepth} deep`);
    this.#spend(type.weight);
    const message = type.create();
    let growing: GrowingArray[] | undefined;
    let unknownEnd = -1;
    let unknownStart = -1;

    const keepUnknown = (start: number): void => {
      // Neighbours share one view.
      if (start === unknownEnd) {
        message.unknownFields?.pop();
      } else {
        unknownStart = start;
        this.#spend(viewWeight);
      }
      unknownEnd = this.#at;
      message.unknownFields ??= [];
      message.unknownFields.push(this.#bytes.subarray(unknownStart, unknownEnd));
    };

    while (this.#at < end) {
      const start = this.#at;
      this.#varint(end, type.name);
      const tag = this.#low;
      const number = tag >>> 3;
      const wire = tag & 7;
      if (this.#high !== 0 || number === 0) this.#fail(start, `${type.name} has an impossible field number`);
      const field = number < type.byNumber.length ? type.byNumber[number] : undefined;
      if (field === undefined) {
        this.#skip(wire, number, start, end, depth);
        keepUnknown(start);
        continue;
      }
      const expected = wireType(field.kind);
      const repeated = field.count === 'list' || field.count === 'rare' || field.count === 'packed';
      const isPacked = repeated && expected !== 2 && wire === 2;
      if (wire !== expected && !isPacked) {
        this.#fail(
          start,
          `${type.name}.${field.name} has wire type ${wireTypeNames[wire] ?? wire}, not ${wireTypeNames[expected]}`,
        );
      }

      if (field.count === 'packed') {
        let target = growing?.find((g) => g.field === field);
        if (target === undefined) {
          target = new GrowingArray(field);
          growing ??= [];
          growing.push(target);
        }
        if (isPacked) {
          const stop = this.#length(end, type, field);
          this.#readPacked(target, stop, type);
        } else {
          const value = this.#scalar(field, end, type) as never;
          const { array, at } = target.extend(1);
          array[at] = value;
        }
        continue;
      }

      if (repeated) {
        const name = field.name;
        let list = message[name] as unknown[] | undefined;
        if (list === undefined) {
          list = [];
          message[name] = list;
        }
        if (isPacked) {
          const stop = this.#length(end, type, field);
          while (this.#at < stop) {
            this.#spend(listedNumberWeight);
            list.push(this.#scalar(field, stop, type));
          }
        } else {
          if (expected !== 2) this.#spend(listedNumberWeight);
          list.push(this.#value(field, end, type, depth));
        }
        continue;
      }

      if (field.kind === 'message' && message[field.name] !== undefined) {
        this.#fail(start, `${type.name}.${field.name} occurs twice`);
      }
      const value = this.#value(field, end, type, depth);
      if (value === notText) {
        keepUnknown(start);
        continue;
      }
      if (field.oneof !== undefined) {
        for (const other of type.fields) if (other.oneof === field.oneof) delete message[other.name];
      }
      message[field.name] = value;
    }
    if (growing) for (const g of growing) message[g.field.name] = g.finish();
    return message;
  }

  #value(field: Field, end: number, type: MessageType, depth: number): unknown {
    switch (field.kind) {
      case 'message': {
        const stop = this.#length(end, type, field);
        return this.message(field.message!(), stop, depth + 1);
      }
      case 'bytes': {
        const stop = this.#length(end, type, field);
        this.#spend(viewWeight);
        const value = this.#bytes.subarray(this.#at, stop);
        this.#at = stop;
        return value;
      }
      case 'string':
      case 'text': {
        const stop = this.#length(end, type, field);
        const start = this.#at;
        this.#at = stop;
        if (stop - start > constants.MAX_STRING_LENGTH) {
          if (field.kind === 'text') return notText;
          this.#fail(start, `${type.name}.${field.name} is longer than any string can be`);
        }
        this.#spend(stringWeight + (stop - start));
        const value = this.#buffer.toString('utf8', start, stop);
        // Buffer writes U+FFFD for what isn't UTF-8, but a string may well contain that character itself.
        if (value.includes('\ufffd') && !isUtf8(this.#bytes.subarray(start, stop))) {
          if (field.kind === 'text') return notText;
          this.#fail(start, `${type.name}.${field.name} isn't UTF-8`);
        }
        return value;
      }
      default:
        return this.#scalar(field, end, type);
    }
  }

  #scalar(field: Field, end: number, type: MessageType): number | bigint {
    switch (field.kind) {
      case 'float': {
        this.#need(4, end, type, field);
        const value = this.#view.getFloat32(this.#at, true);
        this.#at += 4;
        return value;
      }
      case 'double': {
        this.#need(8, end, type, field);
        const value = this.#view.getFloat64(this.#at, true);
        this.#at += 8;
        return value;
      }
      case 'int32':
        this.#varint(end, type.name);
        // Negative numbers are sign-extended to 64 bits on the wire.
        return this.#low | 0;
      case 'int53': {
        const start = this.#at;
        this.#varint(end, type.name);
        const value = (this.#high | 0) * 2 ** 32 + this.#low;
        if (!Number.isSafeInteger(value)) {
          this.#fail(start, `${type.name}.${field.name} is ${this.#bigint()}, beyond ±(2^53 - 1)`);
        }
        return value;
      }
      case 'int64':
        this.#varint(end, type.name);
        this.#spend(bigintWeight);
        return this.#bigint();
      default:
        this.#varint(end, type.name);
        this.#spend(bigintWeight);
        return BigInt.asUintN(64, this.#bigint());
    }
  }

  /** The varint read last, as a signed 64-bit number. */
  #bigint(): bigint {
    if (this.#high === 0) return BigInt(this.#low);
    return (BigInt(this.#high | 0) << 32n) | BigInt(this.#low);
  }

  #readPacked(target: GrowingArray, stop: number, type: MessageType): void {
    const { kind, name } = target.field;
    const bytes = stop - this.#at;
    if (kind === 'float' || kind === 'double') {
      const size = kind === 'float' ? 4 : 8;
      if (bytes % size !== 0) {
        this.#fail(this.#at, `${type.name}.${name} has ${bytes} bytes, not a multiple of ${size}`);
      }
      const { array, at } = target.extend(bytes / size);
      // Every machine this package runs on is little-endian, like the wire.
      new Uint8Array(array.buffer, array.byteOffset + at * size, bytes).set(
        this.#bytes.subarray(this.#at, stop),
      );
      this.#at = stop;
      return;
    }
    let count = 0;
    for (let i = this.#at; i < stop; i++) if (this.#bytes[i]! < 0x80) count++;
    const { array, at } = target.extend(count);
    for (let i = at; this.#at < stop; i++) {
      this.#varint(stop, type.name);
      if (kind === 'int32') array[i] = this.#low | 0;
      else if (kind === 'int64') array[i] = this.#bigint();
      else array[i] = BigInt.asUintN(64, this.#bigint());
    }
  }

  #varint(end: number, within: string): void {
    const bytes = this.#bytes;
    const start = this.#at;
    let low = 0;
    let high = 0;
    for (let i = 0; i < 10; i++) {
      if (this.#at >= end) this.#fail(start, `${within} ends within a number`);
      const byte = bytes[this.#at++]!;
      if (i < 4) low |= (byte & 0x7f) << (7 * i);
      else if (i === 4) {
        low |= (byte & 0x7f) << 28;
        high |= (byte & 0x7f) >> 4;
      } else high |= (byte & 0x7f) << (7 * (i - 5) + 3);
      if (byte < 0x80) {
        this.#low = low >>> 0;
        this.#high = high >>> 0;
        return;
      }
    }
    this.#fail(start, `${within} has a number longer than 10 bytes`);
  }

  /** Reads a length and returns where the field ends. */
  #length(end: number, type: MessageType, field: Field): number {
    const start = this.#at;
    this.#varint(end, type.name);
    const length = this.#high * 2 ** 32 + this.#low;
    if (length > end - this.#at) {
      this.#fail(
        start,
        `${type.name}.${field.name} claims ${length} bytes where ${end - this.#at} remain: the file is truncated or damaged`,
      );
    }
    return this.#at + length;
  }

  #need(bytes: number, end: number, type: MessageType, field: Field): void {
    if (end - this.#at < bytes) this.#fail(this.#at, `${type.name} ends within ${field.name}`);
  }

  #skip(wire: number, number: number, start: number, end: number, depth: number): void {
    switch (wire) {
      case 0:
        this.#varint(end, `field ${number}`);
        return;
      case 1:
      case 5: {
        const size = wire === 1 ? 8 : 4;
        if (end - this.#at < size) this.#fail(start, `the data ends within field ${number}`);
        this.#at += size;
        return;
      }
      case 2: {
        this.#varint(end, `field ${number}`);
        const length = this.#high * 2 ** 32 + this.#low;
        if (length > end - this.#at) {
          this.#fail(start, `field ${number} claims ${length} bytes where ${end - this.#at} remain`);
        }
        this.#at += length;
        return;
      }
      case 3:
        if (depth >= maxDepth) this.#fail(start, `messages nest more than ${maxDepth} deep`);
        for (;;) {
          const inner = this.#at;
          this.#varint(end, `group ${number}`);
          const tag = this.#low;
          if (this.#high !== 0 || tag >>> 3 === 0) this.#fail(inner, 'there is an impossible field number');
          if ((tag & 7) === 4) {
            if (tag >>> 3 !== number) this.#fail(inner, `group ${number} is closed as group ${tag >>> 3}`);
            return;
          }
          this.#skip(tag & 7, tag >>> 3, inner, end, depth + 1);
        }
      default:
        this.#fail(start, `field ${number} has wire type ${wireTypeNames[wire] ?? wire}`);
    }
  }

  #spend(bytes: number): void {
    this.#heap += bytes;
    if (this.#heap > this.#heapBudget) {
      this.#fail(
        this.#at,
        `decoding would take more than ${(this.#heapBudget / 1024 ** 3).toPrecision(2)} GiB of JavaScript objects`,
      );
    }
  }

  #fail(offset: number, problem: string): never {
    throw new TensorRTError(
      'ERR_MODEL_INVALID',
      `This isn't a valid ONNX file: at byte ${offset}, ${problem}.`,
    );
  }
}

/** Stands for a `text` field that isn't text. */
const notText = Symbol('not text');

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });

function isUtf8(bytes: Uint8Array): boolean {
  try {
    utf8.decode(bytes);
    return true;
  } catch {
    return false;
  }
}

// ---- encode ------------------------------------------------------------------------------------------------------

/**
 * Encodes one message, fields ascending by number and unknown fields last, into one allocation.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED above 2 GiB (protobuf's limit), ERR_MODEL_INVALID when messages nest
 * too deep or contain themselves; TypeError ERR_INVALID_ARG_TYPE for a field of the wrong type.
 */
export function encodeMessage(type: MessageType, message: object): Uint8Array {
  const encoder = new Encoder();
  const size = encoder.measure(type, message as Message, 1);
  if (size > maxEncodedBytes) {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `The model takes ${size} bytes, more than the 2 GiB an ONNX file can hold: store its weights as external data.`,
    );
  }
  return encoder.write(type, message as Message, size);
}

class Encoder {
  /** Lengths of strings, messages and packed fields in the order they are met: measured once, then used to write. */
  readonly #lengths: number[] = [];
  #next = 0;
  #bytes = new Uint8Array(0);
  #buffer = Buffer.alloc(0);
  #view = new DataView(this.#bytes.buffer);
  #at = 0;

  measure(type: MessageType, message: Message, depth: number): number {
    if (depth > maxDepth) {
      throw new TensorRTError('ERR_MODEL_INVALID', `The model's messages nest more than ${maxDepth} deep.`);
    }
    if (typeof message !== 'object' || message === null)
      throw invalidArgType(type.name, 'an object', message);
    let size = 0;
    for (const field of type.fields) {
      const value = message[field.name];
      if (value === undefined || value === null) {
        if (field.count === 'required') throw invalidArgType(`${type.name}.${field.name}`, 'set', value);
        continue;
      }
      const tag = varintSize(field.number * 8);
      if (field.count === 'one' || field.count === 'required') {
        size += tag + this.#measureValue(type, field, value, depth);
      } else if (field.count === 'packed') {
        const length = this.#measurePacked(type, field, value);
        this.#lengths.push(length);
        if (length > 0) size += tag + varintSize(length) + length;
      } else {
        if (!Array.isArray(value)) throw invalidArgType(`${type.name}.${field.name}`, 'an array', value);
        for (const element of value) size += tag + this.#measureValue(type, field, element, depth);
      }
    }
    if (message.unknownFields) for (const unknown of message.unknownFields) size += unknown.length;
    return size;
  }

  #measureValue(type: MessageType, field: Field, value: unknown, depth: number): number {
    switch (field.kind) {
      case 'float':
        if (typeof value !== 'number') throw invalidArgType(`${type.name}.${field.name}`, 'a number', value);
        return 4;
      case 'double':
        if (typeof value !== 'number') throw invalidArgType(`${type.name}.${field.name}`, 'a number', value);
        return 8;
      case 'int32':
        if (typeof value !== 'number' || (value | 0) !== value) {
          throw invalidArgType(`${type.name}.${field.name}`, 'a 32-bit integer', value);
        }
        return value < 0 ? 10 : varintSize(value);
      case 'int53':
        if (!Number.isSafeInteger(value))
          throw invalidArgType(`${type.name}.${field.name}`, 'a safe integer', value);
        return (value as number) < 0 ? 10 : varintSize(value as number);
      case 'int64':
      case 'uint64': {
        if (
          typeof value !== 'bigint' ||
          BigInt[field.kind === 'int64' ? 'asIntN' : 'asUintN'](64, value) !== value
        ) {
          throw invalidArgType(`${type.name}.${field.name}`, `a bigint in the range of ${field.kind}`, value);
        }
        return bigintSize(value);
      }
      case 'string':
      case 'text': {
        if (typeof value !== 'string') throw invalidArgType(`${type.name}.${field.name}`, 'a string', value);
        const length = Buffer.byteLength(value, 'utf8');
        this.#lengths.push(length);
        return varintSize(length) + length;
      }
      case 'bytes':
        if (!(value instanceof Uint8Array))
          throw invalidArgType(`${type.name}.${field.name}`, 'a Uint8Array', value);
        return varintSize(value.length) + value.length;
      case 'message': {
        const slot = this.#lengths.push(0) - 1;
        const length = this.measure(field.message!(), value as Message, depth + 1);
        this.#lengths[slot] = length;
        return varintSize(length) + length;
      }
    }
  }

  #measurePacked(type: MessageType, field: Field, value: unknown): number {
    const expected = packedArray(field.kind, 0).constructor as {
      new (n: number): Packed;
      readonly name: string;
    };
    if (!(value instanceof expected))
      throw invalidArgType(`${type.name}.${field.name}`, `a ${expected.name}`, value);
    if (value instanceof Float32Array || value instanceof Float64Array) return value.byteLength;
    let size = 0;
    if (value instanceof Int32Array) for (const n of value) size += n < 0 ? 10 : varintSize(n);
    else for (const n of value as BigInt64Array) size += bigintSize(n);
    return size;
  }

  write(type: MessageType, message: Message, size: number): Uint8Array {
    this.#bytes = new Uint8Array(size);
    this.#buffer = Buffer.from(this.#bytes.buffer);
    this.#view = new DataView(this.#bytes.buffer);
    this.#message(type, message);
    return this.#bytes;
  }

  #message(type: MessageType, message: Message): void {
    for (const field of type.fields) {
      const value = message[field.name];
      if (value === undefined || value === null) continue;
      const wire = wireType(field.kind);
      if (field.count === 'one' || field.count === 'required') {
        this.#varint(field.number * 8 + wire);
        this.#value(field, value);
      } else if (field.count === 'packed') {
        const length = this.#lengths[this.#next++]!;
        if (length === 0) continue;
        this.#varint(field.number * 8 + 2);
        this.#varint(length);
        this.#packed(value as Packed);
      } else {
        for (const element of value as unknown[]) {
          this.#varint(field.number * 8 + wire);
          this.#value(field, element);
        }
      }
    }
    if (message.unknownFields) for (const unknown of message.unknownFields) this.#copy(unknown);
  }

  #value(field: Field, value: unknown): void {
    switch (field.kind) {
      case 'float':
        this.#view.setFloat32(this.#at, value as number, true);
        this.#at += 4;
        return;
      case 'double':
        this.#view.setFloat64(this.#at, value as number, true);
        this.#at += 8;
        return;
      case 'int32':
      case 'int53':
        if ((value as number) < 0) this.#bigVarint(BigInt(value as number));
        else this.#varint(value as number);
        return;
      case 'int64':
      case 'uint64':
        this.#bigVarint(value as bigint);
        return;
      case 'string':
      case 'text': {
        const length = this.#lengths[this.#next++]!;
        this.#varint(length);
        this.#buffer.write(value as string, this.#at, length, 'utf8');
        this.#at += length;
        return;
      }
      case 'bytes':
        this.#varint((value as Uint8Array).length);
        this.#copy(value as Uint8Array);
        return;
      case 'message':
        this.#varint(this.#lengths[this.#next++]!);
        this.#message(field.message!(), value as Message);
        return;
    }
  }

  #packed(value: Packed): void {
    if (value instanceof Float32Array || value instanceof Float64Array) {
      this.#copy(new Uint8Array(value.buffer, value.byteOffset, value.byteLength));
    } else if (value instanceof Int32Array) {
      for (const n of value) {
        if (n < 0) this.#bigVarint(BigInt(n));
        else this.#varint(n);
      }
    } else for (const n of value) this.#bigVarint(n);
  }

  #copy(bytes: Uint8Array): void {
    this.#bytes.set(bytes, this.#at);
    this.#at += bytes.length;
  }

  /** A whole number from 0 to 2⁵³ − 1. */
  #varint(value: number): void {
    let rest = value;
    while (rest >= 0x80) {
      this.#bytes[this.#at++] = (rest % 0x80) | 0x80;
      rest = Math.floor(rest / 0x80);
    }
    this.#bytes[this.#at++] = rest;
  }

  #bigVarint(value: bigint): void {
    if (value >= 0n && value <= 0xffff_ffffn) {
      this.#varint(Number(value));
      return;
    }
    let rest = BigInt.asUintN(64, value);
    while (rest >= 0x80n) {
      this.#bytes[this.#at++] = Number(rest & 0x7fn) | 0x80;
      rest >>= 7n;
    }
    this.#bytes[this.#at++] = Number(rest);
  }
}

function varintSize(value: number): number {
  let size = 1;
  for (let rest = value; rest >= 0x80; rest = Math.floor(rest / 0x80)) size++;
  return size;
}

function bigintSize(value: bigint): number {
  if (value < 0n) return 10;
  if (value <= 0xffff_ffffn) return varintSize(Number(value));
  let size = 0;
  for (let rest = value; rest > 0n; rest >>= 7n) size++;
  return size;
}
