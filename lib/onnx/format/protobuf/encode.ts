import { invalidArgType, TensorRTError } from '../../../base/errors.js';
import { type Field, type Message, type MessageType, maxDepth, wireType } from './message-type.js';
import { type Packed, packedArray } from './packed-array.js';

/** Protobuf's own limit for a message, in bytes. */
const maxEncodedBytes = 2 ** 31 - 1;

/**
 * Encodes one message in a single allocation. The fields are written in ascending order of their numbers, and unknown
 * fields last.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED above 2 GiB (protobuf's limit), ERR_MODEL_INVALID if messages nest too
 *   deep or contain themselves; TypeError ERR_INVALID_ARG_TYPE for a field of the wrong type
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
  /**
   * The lengths of strings, messages and packed fields, in the order in which they are written. Each is measured once.
   */
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

  /** Writes a whole number from 0 to 2⁵³ − 1. */
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
