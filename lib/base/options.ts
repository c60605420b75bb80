import { type InspectOptionsStylized, inspect, types } from 'node:util';
import { describe, invalidArgType, invalidArgValue } from './errors.js';

/**
 * Checks that `options` is an object whose keys are all known, so that a misspelled option is never ignored. `refused`
 * maps options that someone may expect here, e.g. onnxruntime-node's, to a message that says what to use instead.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function checkOptions(
  options: unknown,
  path: string,
  known: readonly string[],
  refused: Readonly<Record<string, string>>,
): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw invalidArgType(path, 'an object', options);
  }
  for (const [key, value] of Object.entries(options)) {
    if (known.includes(key) || value === undefined) continue;
    if (Object.hasOwn(refused, key)) throw invalidArgValue(`${path}.${key}`, refused[key]!);
    const meant = nearest(key, known);
    throw invalidArgValue(
      `${path}.${key}`,
      `is not an option${meant ? `; did you mean '${meant}'?` : `. Options are ${known.join(', ')}.`}`,
    );
  }
}

/**
 * Reads one option. Returns its meaning, or its default where `value` is undefined. Errors name the option by `path`.
 */
export type OptionReader<Meaning> = (value: unknown, path: string) => Meaning;

/** One reader for each option of an interface. The table is the only list of the options' names and values. */
export type OptionTable<Options> = { readonly [Name in keyof Options]-?: OptionReader<unknown> };

/** The settings that a table's readers return. */
export type OptionsOf<Table> = {
  readonly [Name in keyof Table]: Table[Name] extends OptionReader<infer Meaning> ? Meaning : never;
};

/**
 * Reads every option of a table, each once, after {@link checkOptions}.
 * @throws TypeError ERR_INVALID_ARG_TYPE, RangeError ERR_INVALID_ARG_VALUE
 */
export function readOptions<Table extends Readonly<Record<string, OptionReader<unknown>>>>(
  options: unknown,
  path: string,
  table: Table,
  refused: Readonly<Record<string, string>> = {},
): OptionsOf<Table> {
  const names = Object.keys(table);
  checkOptions(options, path, names, refused);
  const settings: Record<string, unknown> = {};
  for (const name of names) {
    settings[name] = table[name]!((options as Record<string, unknown>)[name], `${path}.${name}`);
  }
  return settings as OptionsOf<Table>;
}

/** Returns undefined where the option is left out. */
export function optional<Meaning>(read: OptionReader<Meaning>): OptionReader<Meaning | undefined> {
  return (value, path) => (value === undefined ? undefined : read(value, path));
}

/** Accepts one of the values; the first is the default. */
export function oneOf<const T extends string>(values: readonly [T, ...T[]]): OptionReader<T> {
  return (value, path) => {
    if (value === undefined) return values[0];
    const known = values.find((candidate) => candidate === value);
    if (known !== undefined) return known;
    const list = values.map((candidate) => `'${candidate}'`).join(', ');
    throw invalidArgValue(path, `must be one of ${list}, not ${describe(value)}.`);
  };
}

/** An integer from `min` to `max`. */
export function integer<T extends number | undefined>(fallback: T, min: number, max: number) {
  return numberOf('an integer', Number.isInteger, fallback, min, max);
}

/** A number from `min` to `max`. */
export function real<T extends number | undefined>(fallback: T, min: number, max: number) {
  return numberOf('a number', () => true, fallback, min, max);
}

function numberOf<T extends number | undefined>(
  kind: string,
  isOne: (value: number) => boolean,
  fallback: T,
  min: number,
  max: number,
): OptionReader<number | T> {
  return (value, path) => {
    if (value === undefined) return fallback;
    if (typeof value !== 'number') throw invalidArgType(path, 'a number', value);
    // NaN fails both comparisons.
    if (isOne(value) && value >= min && value <= max) return value;
    throw invalidArgValue(path, `must be ${kind} from ${min} to ${max}, not ${value}.`);
  };
}

export function boolean(fallback: boolean): OptionReader<boolean> {
  return (value = fallback, path) => {
    if (typeof value !== 'boolean') throw invalidArgType(path, 'a boolean', value);
    return value;
  };
}

export function text<T extends string | undefined>(fallback: T): OptionReader<string | T> {
  return (value, path) => {
    if (value === undefined) return fallback;
    if (typeof value !== 'string') throw invalidArgType(path, 'a string', value);
    return value;
  };
}

/** An array of strings; empty by default. */
export function strings(value: unknown, path: string): readonly string[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw invalidArgType(path, 'an array of strings', value);
  const odd = value.findIndex((element) => typeof element !== 'string');
  if (odd >= 0) throw invalidArgType(`${path}[${odd}]`, 'a string', value[odd]);
  return value;
}

export function callback<Callback>(value: unknown, path: string): Callback | undefined {
  if (value !== undefined && typeof value !== 'function') throw invalidArgType(path, 'a function', value);
  return value as Callback | undefined;
}

export function abortSignal(value: unknown, path: string): AbortSignal | undefined {
  if (value !== undefined && !(value instanceof AbortSignal)) {
    throw invalidArgType(path, 'an AbortSignal', value);
  }
  return value;
}

/** The path of a file or folder. */
export function pathOption(value: unknown, path: string): string | undefined {
  if (value === undefined) return undefined;
  checkPath(value, path);
  return value;
}

/** A source of bytes. Shared memory is copied before it is read, since other threads may write to it. */
export type Bytes = Uint8Array | ArrayBufferLike;

/**
 * The bytes of `value`; undefined if it isn't a source of bytes.
 * @throws RangeError ERR_INVALID_ARG_VALUE if its buffer was transferred
 */
export function bytesOf(value: unknown, path: string): Uint8Array | undefined {
  const isBuffer = types.isAnyArrayBuffer(value);
  if (!isBuffer && !types.isUint8Array(value)) return undefined;
  const buffer = isBuffer ? value : value.buffer;
  checkAttached(buffer, path);
  const bytes = isBuffer ? new Uint8Array(buffer) : value;
  return types.isSharedArrayBuffer(buffer) ? new Uint8Array(bytes) : bytes;
}

/** True if `buffer` was transferred. ArrayBuffer has `detached` only since Node 21. */
export function isDetached(buffer: ArrayBufferLike): boolean {
  try {
    new Uint8Array(buffer);
    return false;
  } catch {
    return true;
  }
}

/** @throws RangeError ERR_INVALID_ARG_VALUE if `buffer` was transferred */
export function checkAttached(buffer: ArrayBufferLike, path: string): void {
  if (!isDetached(buffer)) return;
  throw invalidArgValue(path, 'is detached: its ArrayBuffer was transferred. Use the receiving buffer.');
}

/**
 * Makes structuredClone() and postMessage() throw a DataCloneError for an object whose contents are native, since a
 * copy would silently lack them. Both refuse an object that has a function among its own properties. JSON.stringify()
 * and console.log() leave that function out.
 */
export function refuseCloning(handle: object): void {
  Object.defineProperty(handle, 'constructor', { value: handle.constructor, enumerable: true });
  Object.defineProperty(handle, inspect.custom, {
    value(this: object, depth: number, options: InspectOptionsStylized): string {
      const shown = Object.assign(Object.create(Object.getPrototypeOf(this)), this);
      delete shown.constructor;
      return inspect(shown, { ...options, depth });
    },
  });
}

export function checkPath(value: unknown, path: string): asserts value is string {
  if (typeof value !== 'string') throw invalidArgType(path, 'a path', value);
  if (value === '' || value.includes('\0')) throw invalidArgValue(path, `can't be ${describe(value)}.`);
}

interface AbortCallbacks {
  readonly callbacks: Set<() => void>;
  readonly listener: () => void;
}

/**
 * A server may give the same signal to all its requests, and Node warns of a leak at the eleventh listener. So each
 * signal gets one listener, which calls all these callbacks.
 */
const abortCallbacks = new WeakMap<AbortSignal, AbortCallbacks>();

/** Calls `callback` when the signal is aborted. The returned function removes the callback. */
export function onAbort(signal: AbortSignal | undefined, callback: () => void): () => void {
  if (!signal) return () => {};
  let entry = abortCallbacks.get(signal);
  if (!entry) {
    const callbacks = new Set<() => void>();
    const listener = () => {
      for (const each of callbacks) each();
    };
    entry = { callbacks, listener };
    abortCallbacks.set(signal, entry);
    signal.addEventListener('abort', listener, { once: true });
  }
  const { callbacks, listener } = entry;
  callbacks.add(callback);
  return () => {
    callbacks.delete(callback);
    if (callbacks.size > 0 || abortCallbacks.get(signal) !== entry) return;
    abortCallbacks.delete(signal);
    signal.removeEventListener('abort', listener);
  };
}

/** The option name closest to a misspelled one, ignoring case: at most two characters added, dropped or changed. */
function nearest(misspelled: string, names: readonly string[]): string | undefined {
  const distances = names.map((name) => distance(name.toLowerCase(), misspelled.toLowerCase()));
  const least = Math.min(...distances);
  return least <= 2 ? names[distances.indexOf(least)] : undefined;
}

/** The Levenshtein distance. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, j) => j);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const change = row[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(change, row[j]! + 1, next[j - 1]! + 1));
    }
    row = next;
  }
  return row[b.length]!;
}
