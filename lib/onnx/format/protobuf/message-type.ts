/**
 * The protobuf wire format (https://protobuf.dev/programming-guides/encoding/), driven by tables of field
 * number, name and kind. `decode.ts` reads it, `encode.ts` writes it; what a message means is `schema.ts`'s business.
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
  /** The table of the message that a field of `kind: 'message'` holds. It is a function, since ONNX's messages refer to each other. */
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
  /** Estimated heap bytes of an empty message: see `decode.ts`. */
  readonly weight: number;
}

export type Message = Record<string, unknown> & { unknownFields?: Uint8Array[] };

/** ONNX graphs nest through attributes (If in If …); a hundred levels is also protobuf's own limit. */
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

/** The protobuf number of each kind's form on the wire. */
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
