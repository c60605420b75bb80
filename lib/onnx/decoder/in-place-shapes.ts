import type { DecoderGraph } from '../../base/decoder-graph.js';
import type { ModelProto } from '../format/model.js';
import { Size } from '../graph/size.js';
import { SymbolicShapes } from '../graph/symbolic-shapes.js';

/** Infers the shapes of a decoder whose caches are updated in place, in terms of `rows`, `new` and `capacity`. */
export function inPlaceShapes(model: ModelProto, { inputs, caches }: DecoderGraph): SymbolicShapes {
  const known = new Map<string, readonly Size[]>();
  for (const [name, role] of Object.entries(inputs)) {
    if (role === 'input_ids' || role === 'position_ids') known.set(name, ['rows', 'new'].map(Size.of));
  }
  for (const { input, kvHeads, headDim } of caches) {
    known.set(input, ['rows', kvHeads, 'capacity', headDim].map(Size.of));
  }
  return new SymbolicShapes(model.graph, known);
}

/** True for the shape `[rows, new, …]` with three dimensions. */
export function isSequence(shape: readonly Size[] | undefined): boolean {
  return shape?.length === 3 && `${shape[0]}` === 'rows' && `${shape[1]}` === 'new';
}
