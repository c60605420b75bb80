import { TensorRTError } from '../../base/errors.js';
import { isObject, type Json } from '../../base/json.js';
import { otherFormat } from './file-format.js';
import { readFile } from './promises.js';

/** @throws (rejects) as {@link readText} */
async function readBytes(file: string): Promise<Buffer | undefined> {
  let bytes: Buffer;
  try {
    bytes = await readFile(file);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new TensorRTError('ERR_IO', `Can't read ${file}: ${(cause as Error).message}.`, { cause });
  }
  return bytes;
}

/**
 * The text of a file; undefined if the file doesn't exist.
 * @throws (rejects) TensorRTError ERR_MODEL_INVALID if it isn't UTF-8 text, ERR_IO
 */
export async function readText(file: string): Promise<string | undefined> {
  const bytes = await readBytes(file);
  const other = bytes && otherFormat(bytes);
  if (other) throw new TensorRTError('ERR_MODEL_INVALID', `${file} is ${other}`);
  return bytes?.toString('utf8');
}

/**
 * The object in a JSON file; undefined if the file doesn't exist.
 * @throws (rejects) TensorRTError ERR_MODEL_INVALID if it doesn't hold an object, ERR_IO
 */
export async function readJson(file: string): Promise<Json | undefined> {
  const bytes = await readBytes(file);
  if (bytes === undefined) return undefined;
  try {
    // Drop the byte-order mark that editors on Windows write.
    const values = asObject(parseJson(bytes.toString('utf8').replace(/^\uFEFF/, '')));
    if (values) return values;
  } catch (cause) {
    const reason = bytes.length === 0 ? 'it is empty' : (cause as Error).message;
    const problem = otherFormat(bytes) ?? `not valid JSON: ${reason}.`;
    throw new TensorRTError('ERR_MODEL_INVALID', `${file} is ${problem}`, { cause });
  }
  throw new TensorRTError('ERR_MODEL_INVALID', `${file} is not a JSON object.`);
}

/** Parses JSON as Python writes it, with Infinity, -Infinity and NaN; NaN becomes the string 'NaN'. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const numbers: Record<string, string> = { Infinity: '1e999', '-Infinity': '-1e999', NaN: '"NaN"' };
    const readable = text.replace(/"(?:[^"\\]|\\.)*"|-?Infinity|NaN/g, (found) => numbers[found] ?? found);
    if (readable === text) throw error;
    return JSON.parse(readable);
  }
}

/** The value if it is an object, else undefined. */
export function asObject(value: unknown): Json | undefined {
  return isObject(value) ? value : undefined;
}
