import type { TensorLike } from '../../base/tensor-like.js';
import { Unrecognised } from './lift.js';
import type { Mask } from './match-attention.js';
import type { Step, StepPart, StepValues } from './step-values.js';
import { numbers } from './tensor-numbers.js';

/** A mask that lets a query see all keys up to its own position, or only the last ones, within a window. */
export interface CausalMask {
  /** The largest number of keys that a query sees, its own included; undefined for all. */
  readonly window: number | undefined;
}

/**
 * A mask's number at or below this counts as minus infinity, because exporters add FP16's lowest number or a lower one.
 */
const hidden = -1e4;

/**
 * Proves which keys a layer's masks let queries see, by computing the masks for steps of many sizes.
 *
 * @throws Unrecognised if a mask isn't causal, or does something else as well (prefixes, biases by distance …)
 */
export async function proveMask(
  masks: readonly Mask[],
  steps: StepValues,
  maxLength: number,
): Promise<CausalMask> {
  for (const { value } of masks) {
    if (!steps.has(value)) throw new Unrecognised(`the mask "${value}" depends on tokens`);
  }
  const part = await steps.part(masks.map(({ value }) => value));
  if (!part) throw new Unrecognised(`the mask "${masks[0]!.value}" depends on more than sizes and positions`);
  await using _ = part;
  const last = (await seen(part, masks, { rows: 1, new: 1, past: maxLength - 1 }))[0]!;
  const count = last.filter(Boolean).length;
  const isSuffix = last.slice(maxLength - count).every(Boolean);
  const window = count < maxLength && isSuffix ? count : undefined;
  const around = window ? [window - 2, window - 1, window, window + 1, 2 * window] : [];
  const pasts = [...new Set([0, 1, 5, ...around])].filter((past) => past >= 0 && past < maxLength);
  const sizes: Step[] = [
    { rows: 1, new: 1, past: maxLength - 1 },
    ...pasts.flatMap((past) => [
      { rows: 2, new: 1, past },
      { rows: 1, new: Math.min(7, maxLength - past), past },
    ]),
  ];
  if (window && 2 * window <= Math.min(maxLength, 512)) sizes.push({ rows: 1, new: 2 * window, past: 0 });
  for (const step of sizes) {
    const rows = await seen(part, masks, step);
    rows.forEach((keys, i) => {
      const position = step.past + (i % step.new);
      const wrong = keys.findIndex((isSeen, key) => isSeen !== isVisible(key, position, window));
      if (wrong < 0) return;
      const names = masks.map(({ value }) => `"${value}"`).join(' and ');
      const expected = window ? `a causal window of ${window}` : 'causal';
      throw new Unrecognised(
        `the mask ${names} is not ${expected}: of ${step.past + step.new} keys, position ${position} ` +
          `${keys[wrong] ? 'sees' : 'does not see'} number ${wrong}`,
      );
    });
  }
  return { window };
}

export function isVisible(key: number, position: number, window: number | undefined): boolean {
  return key <= position && (window === undefined || key > position - window);
}

/** Returns the keys that each query sees, in all rows and heads. */
async function seen(part: StepPart, masks: readonly Mask[], step: Step): Promise<boolean[][]> {
  const total = step.past + step.new;
  const values = masks.length > 0 ? await part.run(step) : {};
  const isSeen = masks.map(({ value, kind }) => visibility(values[value]!, kind, value));
  const leading = masks.map(({ value }) => values[value]!.dims.slice(0, -2));
  const count = leading.reduce(
    (most, dims) =>
      Math.max(
        most,
        dims.reduce((a, b) => a * b, 1),
      ),
    1,
  );
  return Array.from({ length: count * step.new }, (_, row) =>
    Array.from({ length: total }, (_, key) =>
      masks.every(({ value }, m) => {
        const { dims } = values[value]!;
        const [queries = 1, keys = 1] = [dims.at(-2), dims.at(-1)];
        // If a mask has more keys than exist, the last ones are cut off. Otherwise, only a dimension of 1 is broadcast.
        if ((queries !== 1 && queries !== step.new) || (keys !== 1 && keys < total)) {
          throw new Unrecognised(`the mask "${value}" has dimensions [${dims}] for ${total} keys`);
        }
        const group = Math.floor(row / step.new) % leading[m]!.reduce((a, b) => a * b, 1);
        const query = queries === 1 ? 0 : row % step.new;
        return isSeen[m]!((group * queries + query) * keys + (keys === 1 ? 0 : key));
      }),
    ),
  );
}

function visibility(tensor: TensorLike, kind: Mask['kind'], name: string): (i: number) => boolean {
  if (tensor.type === 'bool') {
    const flags = tensor.data as Uint8Array;
    return kind === 'hidden' ? (i) => flags[i] === 0 : (i) => flags[i] !== 0;
  }
  if (!tensor.type.startsWith('float') || kind !== 'added') {
    throw new Unrecognised(`the mask "${name}" is ${tensor.type}`);
  }
  const added = numbers(tensor);
  return (i) => {
    const number = added[i]!;
    if (number === 0) return true;
    if (number <= hidden) return false;
    throw new Unrecognised(`"${name}" adds ${number} to scores, which is neither 0 nor minus infinity`);
  };
}
