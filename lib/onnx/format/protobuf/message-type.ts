/**
 * The protobuf wire format (https://protobuf.dev/programming-guides/encoding/), driven by tables of field number, name
 * and kind. `decode.ts` reads it, `encode.ts` writes it, and `schema.ts` describes ONNX's messages.
 *
 * In memory, a message is a plain object. A singular field that is absent on the wire is absent from the object, so
 * presence survives a round trip. Fields that the table doesn't list are kept in `unknownFields`, as views of the
 * input, and are written back.
 */

/**
 * The type of a field on the wire and in JavaScript.
 *
 * | kind | wire | JavaScript |
 * | --- | --- | --- |
 * | `float` `double` | fixed 32, 64 bits | number |
 * | `int32` | varint | number (enums too) |
 * | `int53` | varint (int64) | number, refused outside ±(2⁵³ − 1); for counts, sizes and versions |
 * | `int64` `uint64` | varint | bigint; for the model's own data |
 * | `string` | length-delimited | string; must be UTF-8 |
 * | `text` | length-delimited | string; an unknown field if not UTF-8 or too long; for documentation |
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
 * The number of times that a field may occur.
 * - `one`: at most once; absent if not set. If a scalar occurs twice, the last one counts; a message that occurs twice
 *   is refused.
 * - `required`: like `one`, but it has the kind's zero if absent, and is always written.
 * - `list`: an array, empty if there is none.
 * - `rare`: an array, absent if there is none.
 * - `packed`: a typed array of the kind, absent if there is none. It is written packed and read in either form.
 */
export type FieldCount = 'one' | 'required' | 'list' | 'rare' | 'packed';

export interface Field {
  /** The field's number on the wire. */
  readonly number: number;
  /** The property's name in JavaScript. */
  readonly name: string;
  readonly kind: FieldKind;
  readonly count: FieldCount;
  /**
   * The table of the message that a field of `kind: 'message'` holds. It is a function, because ONNX's messages refer
   * to each other.
   */
  readonly message?: () => MessageType;
  /** Fields of one `oneof` exclude each other: reading one drops the others. */
  readonly oneof?: string;
}

export interface MessageType {
  /** The message's name in errors. */
  readonly name: string;
  /** The fields in ascending order of their numbers. They are written in this order. */
  readonly fields: readonly Field[];
  /** `byNumber[n]` is the field with number n. */
  readonly byNumber: readonly (Field | undefined)[];
  /** Makes a message with nothing set. */
  create(): Message;
  /** Estimated heap bytes of an empty message: see `decode.ts`. */
  readonly weight: number;
}

export type Message = Record<string, unknown> & { unknownFields?: Uint8Array[] };

/**
 * The largest number of levels that messages may nest. It is also protobuf's own limit. ONNX graphs nest through
 * attributes (If in If …).
 */
export const maxDepth = 100;

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
      // The order is always the same, so that messages of a type share V8's hidden class.
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

/** Returns protobuf's number for the wire type of a kind. */
export function wireType(kind: FieldKind): number {
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
