import { makeTensor } from '../onnx/format/initializer.js';
import type { ModelProto, TensorProto } from '../onnx/format/model.js';
import { findMlps, type Mlp, numbersOf } from './mlps.js';
import { nativeMaskOf, type SparseMask } from './sparse-mask.js';

/** The slices of a tensor that stay. */
export interface Taken {
  readonly axis: number;
  /** Their positions along the axis, in order. */
  readonly positions: Uint32Array;
}

/**
 * Removes the neurons that masks empty from a graph, in place: the shapes that name their number, and the dimensions of
 * their weights. Returns the slices of each weight that stay; the weights' elements are left to the caller.
 */
export function shrinkNeurons(
  { graph }: ModelProto,
  masked: ReadonlyMap<TensorProto, SparseMask>,
): Map<TensorProto, Taken> {
  const taken = new Map<TensorProto, Taken>();
  let added = 0;
  for (const mlp of findMlps(graph).mlps) {
    const neurons = usedNeurons(mlp, masked);
    if (neurons.length === mlp.neurons) continue;
    for (const { tensor, axis, parts } of [...mlp.into, ...mlp.outOf, ...mlp.vectors]) {
      const positions = Array.from({ length: parts }, (_, part) =>
        neurons.map((i) => part * mlp.neurons + i),
      );
      taken.set(tensor, { axis, positions: Uint32Array.from(positions.flat()) });
    }
    // Their declared shapes are wrong now. Runtimes infer them.
    graph.valueInfo = graph.valueInfo.filter(({ name }) => !mlp.values.has(name));
    // A constant may be read by other nodes too, so these get their own.
    for (const [tensor, counts] of groupCounts(mlp)) {
      const [{ node, input }] = counts as [Mlp['counts'][number]];
      const numbers = numbersOf(tensor);
      for (const { index, times } of counts) numbers[index] = times * neurons.length;
      const name = `node-tensorrt.neurons.${added++}`;
      graph.initializer.push(makeTensor(name, 'int64', tensor.dims, BigInt64Array.from(numbers, BigInt)));
      node.input[input] = name;
    }
  }
  return taken;
}

/** The neurons that a matrix still reads; the first one if there is none, since a dimension can't be 0. */
function usedNeurons({ neurons, outOf }: Mlp, masked: ReadonlyMap<TensorProto, SparseMask>): number[] {
  const used = new Uint8Array(neurons);
  for (const { tensor, axis } of outOf) {
    const mask = masked.get(tensor);
    const kept = mask ? nativeMaskOf(mask).keptSlices(axis) : new Uint8Array(neurons).fill(1);
    kept.forEach((flag, i) => {
      used[i]! |= flag;
    });
  }
  const list = Array.from(used.keys()).filter((i) => used[i] === 1);
  return list.length > 0 ? list : [0];
}

/** The counts of an MLP, by what a node reads. */
function groupCounts({ counts }: Mlp): [TensorProto, Mlp['counts'][number][]][] {
  const groups: [TensorProto, Mlp['counts'][number][]][] = [];
  for (const count of counts) {
    const known = groups.find(([, [first]]) => first!.node === count.node && first!.input === count.input);
    if (known) known[1].push(count);
    else groups.push([count.tensor, [count]]);
  }
  return groups;
}
