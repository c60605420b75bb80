import type { ExternalDataOptions } from '../format/initializer.js';
import type { ModelProto } from '../format/model.js';
import type { EditableGraph } from '../graph/editable-graph.js';
import { Size } from '../graph/size.js';
import { SymbolicShapes } from '../graph/symbolic-shapes.js';
import type { Decoder } from './decoder.js';
import type { GraphKnowledge } from './graph-knowledge.js';
import { type LoadPart, type Step, StepValues } from './step-values.js';

/** The number of rounds. Each round measures values that no rule infers, and the next infers what follows from them. */
const rounds = 4;

/** The steps to measure in. No size in a step is a sum or a product of its other sizes. */
const measured: readonly Step[] = [
  { rows: 2, new: 3, past: 7 },
  { rows: 3, new: 7, past: 19 },
  { rows: 5, new: 2, past: 31 },
];

const [rows, fresh, past] = ['rows', 'new', 'past'].map(Size.of) as [Size, Size, Size];
const total = past.plus(fresh);
const candidates = [rows, fresh, past, total, rows.times(fresh), rows.times(total)];

/**
 * Finds the shapes of a decoder's values. They are inferred if a rule covers them. If not, values that a step's sizes
 * determine are measured in three steps of different sizes. Parts that can't be run stay unknown.
 */
export async function measureShapes(
  model: ModelProto,
  graph: EditableGraph,
  decoder: Decoder,
  options: ExternalDataOptions & { readonly loadPart: LoadPart },
): Promise<GraphKnowledge> {
  const known = decoderShapes(decoder);
  for (let round = 0; ; round++) {
    const shapes = new SymbolicShapes({ ...model.graph, node: [...graph.nodes] }, known);
    const steps = new StepValues(model, graph, shapes, decoder.graph.inputs, options);
    const unknown = round < rounds ? frontier(graph, shapes, steps, known) : [];
    if (unknown.length === 0) return { graph, shapes, steps };
    const found = await measure(steps, unknown);
    for (const name of unknown) known.set(name, found.get(name));
    if (found.size === 0) return { graph, shapes, steps };
  }
}

/** Returns the values of unknown shape that a step's sizes determine, but only the first on each path. */
function frontier(
  graph: EditableGraph,
  shapes: SymbolicShapes,
  steps: StepValues,
  tried: ReadonlyMap<string, unknown>,
): string[] {
  const names: string[] = [];
  for (const node of graph.nodes) {
    if (node.input.some((name) => name !== '' && !shapes.shape(name))) continue;
    for (const name of node.output) {
      if (name !== '' && !shapes.shape(name) && !tried.has(name) && steps.has(name)) names.push(name);
    }
  }
  return names;
}

async function measure(steps: StepValues, names: readonly string[]): Promise<Map<string, readonly Size[]>> {
  const found = new Map<string, readonly Size[]>();
  const part = await steps.part(names);
  if (!part) return found;
  await using _ = part;
  const results = [];
  for (const step of measured) results.push(await part.run(step));
  for (const name of names) {
    const dims = results.map((result) => result[name]!.dims);
    const shape = dims[0]!.map((_, axis) => sizeOf(dims.map((each) => each[axis]!)));
    if (shape.every((size) => size !== undefined)) found.set(name, shape);
  }
  return found;
}

/** Returns the size that has these values in the measured steps. */
function sizeOf(values: readonly number[]): Size | undefined {
  if (values.every((value) => value === values[0])) return Size.of(values[0]!);
  return candidates.find((size) => values.every((value, i) => value === size.evaluate({ ...measured[i]! })));
}

function decoderShapes({ graph, caches }: Decoder): Map<string, readonly Size[] | undefined> {
  const shapes = new Map<string, readonly Size[] | undefined>();
  for (const [name, role] of Object.entries(graph.inputs)) {
    if (role === 'input_ids' || role === 'position_ids') shapes.set(name, [rows, fresh]);
    if (role === 'attention_mask') shapes.set(name, [rows, total]);
  }
  for (const { input, output, rank, kvHeads, headDim } of caches) {
    if (rank !== 4) continue;
    shapes.set(input, [rows, Size.of(kvHeads), past, Size.of(headDim)]);
    shapes.set(output, [rows, Size.of(kvHeads), total, Size.of(headDim)]);
  }
  return shapes;
}
