import { isTypedOutput } from '../graph/operators.js';
import { captured } from '../graph/traverse.js';
import { castType } from '../graph/value-types.js';
import type { NodeChoice } from './choose-precision.js';
import type { GraphFacts } from './graph-facts.js';
import type { LowType } from './low-type.js';
import { MinimumCut } from './minimum-cut.js';

/**
 * Chooses a precision for the nodes that may have either. It needs as few casts as possible; among equal solutions, it
 * follows as many nodes' preferences as possible, and then puts as many nodes as possible in 16 bits. A cast is needed
 * where a value is made in one type and read in the other, so the smallest number of casts is the minimum cut between
 * the nodes that must be in FP32 and those that must be in 16 bits.
 */
export function settleByCasts(
  choices: readonly NodeChoice[],
  facts: GraphFacts,
  type: LowType,
): NodeChoice[] {
  const cut = new MinimumCut();
  const [high, low] = [cut.vertex(), cut.vertex()];
  const vertices = choices.map(({ kind }) =>
    kind === 'low' ? low : kind === 'either' ? cut.vertex() : high,
  );
  // A cast costs more than all preferences together.
  const cast = choices.length + 1;
  const never = Number.MAX_SAFE_INTEGER;
  const makers = new Map<string, number>([...facts.inputs].map((name) => [name, high]));
  const readers = new Map<string, Set<number>>();
  const read = (name: string, vertex: number) => {
    const set = readers.get(name);
    if (set) set.add(vertex);
    else readers.set(name, new Set([vertex]));
  };
  choices.forEach(({ node, operator, inputs, kind, prefersHigh }, index) => {
    const vertex = vertices[index]!;
    if (kind === 'either') {
      if (prefersHigh) cut.edge(high, vertex, 1);
      else cut.edge(vertex, low, 1);
    }
    node.output.forEach((name, i) => {
      const isBoth = operator === 'Cast' && facts.typeOf(node) === type.onnx;
      if (name && !isBoth) makers.set(name, isTypedOutput(operator, i) ? vertex : high);
    });
    // A cast that the model contains isn't needed if its input is already in 16 bits.
    if (operator === 'Cast' && castType(node) === type.onnx) read(node.input[0]!, low);
    if (kind === 'typeless') return;
    node.input.forEach((name, i) => {
      if (name) read(name, inputs.includes(i) ? vertex : high);
    });
    for (const name of captured(node)) read(name, high);
  });
  for (const name of facts.outputs) read(name, high);

  for (const [name, set] of readers) {
    const maker = makers.get(name);
    if (maker === undefined || facts.constants.has(name) || !facts.isFloat32(name)) continue;
    const others = [...set].filter((vertex) => vertex !== maker);
    if (others.length === 0) continue;
    // One cast serves all nodes that read a value in the other type.
    const up = cut.vertex();
    const down = cut.vertex();
    cut.edge(up, maker, cast);
    cut.edge(maker, down, cast);
    for (const vertex of others) {
      cut.edge(vertex, up, never);
      cut.edge(down, vertex, never);
    }
  }
  const isHigh = cut.sourceSide(high, low);
  return choices.map((choice, index) => {
    if (choice.kind !== 'either') return choice;
    if (!isHigh[vertices[index]!]) return { ...choice, kind: 'low' };
    return {
      ...choice,
      kind: 'high',
      reason: `its neighbours are in FP32: ${type.label} would take more casts`,
    };
  });
}
