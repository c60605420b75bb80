import { constants } from 'node:buffer';
import { getHeapStatistics } from 'node:v8';
import { TensorRTError } from '../../../base/errors.js';
import { type Field, type Message, type MessageType, maxDepth, wireType } from './message-type.js';
import { GrowingArray } from './packed-array.js';

/**
 * The most bytes that decoding may put on the JavaScript heap, by estimate. Two bytes on the wire can become a message
 * of hundreds of bytes in memory; with this limit, a hostile file causes an error instead of ending the process. A
 * graph of a million nodes stays under half of it. If the heap is small, the limit is three quarters of the heap's own
 * limit.
 */
const maxHeapBudget = 2 * 1024 ** 3;

const viewWeight = 160;
const bigintWeight = 32;
const stringWeight = 32;
/** Bytes per number in a list that grows. V8 ends the process if a list would outgrow 2^27 elements. */
const listedNumberWeight = 32;

const wireTypeNames = ['varint', '64-bit', 'length-delimited', 'group start', 'group end', '32-bit'];

/**
 * Decodes one message. `bytes` fields and unknown fields are views of `bytes`, which must not change while the message
 * is in use.
 *
 * @throws TensorRTError ERR_MODEL_INVALID, naming the byte offset, if the bytes aren't a message of this type;
 *   ERR_OUT_OF_MEMORY if the packed data doesn't fit in memory
 */
export function decodeMessage(type: MessageType, bytes: Uint8Array): Message {
  return new Decoder(bytes).message(type, bytes.length, 1);
}

class Decoder {
  readonly #bytes: Uint8Array;
  readonly #buffer: Buffer;
  readonly #view: DataView;
  #at = 0;
  #heap = 0;
  readonly #heapBudget = Math.min(maxHeapBudget, 0.75 * getHeapStatistics().heap_size_limit);
  /** The 64 bits of the last varint read. */
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
      // Neighbouring unknown fields share one view.
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
        // Buffer replaces bytes that aren't UTF-8 with U+FFFD, but a valid string may also contain that character.
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

  /** Returns the last varint read, as a signed 64-bit number. */
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

/** Stands for the value of a `text` field that can't become a string. */
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
