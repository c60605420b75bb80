import type { SessionOptions } from '../../index.js';
import { checkInputNames, type InputSource } from '../run/input-source.js';
import { UsageError } from './output.js';

/** @throws UsageError */
export function parseDevice(device: string): SessionOptions['device'] {
  if (/^(auto|cpu|cuda(:\d+)?)$/.test(device)) return device as SessionOptions['device'];
  throw new UsageError(`--device must be auto, cpu, cuda or cuda:N, not '${device}'.`);
}

/**
 * CUDA's number in a `--device` flag that must name a GPU.
 * @throws UsageError
 */
export function parseGpu(device: string): number {
  const [, number] = /^cuda:(\d+)$/.exec(device) ?? [];
  if (number !== undefined) return Number(number);
  throw new UsageError(`--device must be cuda:N, a GPU, not '${device}'.`);
}

/**
 * Checks `--input` flags before the model's names are known.
 * @throws UsageError for a flag that isn't NAME=SOURCE, and for one given twice
 */
export function checkInputFlags(flags: readonly string[]): void {
  const odd = flags.find((text) => text.indexOf('=', 1) < 0);
  if (odd !== undefined) {
    throw new UsageError(`--input must be NAME=FILE.npy or NAME=random:DIMS, not '${odd}'.`);
  }
  // With two '=', the name may end at either.
  const names = flags
    .map((text) => text.split('='))
    .flatMap(([name, ...rest]) => (rest.length === 1 ? [name] : []));
  if (new Set(names).size < names.length) throw new UsageError('--input gives one input twice.');
}

/**
 * Parses `--input` flags, by input name. A name may contain '=', so the longest of the model's names that the flag
 * begins with is taken.
 * @throws RangeError ERR_INVALID_ARG_VALUE for a name that isn't an input of the model; UsageError for an input given
 *   twice, and for a source that can't be parsed
 */
export function parseInputFlags(
  flags: readonly string[],
  inputNames: readonly string[],
): Map<string, InputSource> {
  const sources = new Map<string, InputSource>();
  for (const text of flags) {
    const [known] = inputNames
      .filter((name) => text.startsWith(`${name}=`))
      .sort((a, b) => b.length - a.length);
    const name = known ?? text.slice(0, text.indexOf('=', 1));
    checkInputNames('--input', [name], inputNames);
    if (sources.has(name)) throw new UsageError('--input gives one input twice.');
    sources.set(name, parseSource(name, text.slice(name.length + 1)));
  }
  return sources;
}

/** `FILE.npy` or `random:1x3x224x224`; `random:` alone is a scalar. @throws UsageError */
function parseSource(name: string, source: string): InputSource {
  if (!source.startsWith('random')) return { file: source };
  const [, dims] = /^random:((?:\d+(?:x\d+)*)?)$/.exec(source) ?? [];
  if (dims === undefined)
    throw new UsageError(`--input ${name}=${source}: give a shape such as random:1x3x224x224.`);
  return { random: dims === '' ? [] : dims.split('x').map(Number) };
}
