import type { EditableGraph } from '../graph/editable-graph.js';
import type { SymbolicShapes } from '../graph/symbolic-shapes.js';
import type { StepValues } from './step-values.js';

/** What a pass knows about a graph. */
export interface GraphKnowledge {
  readonly graph: EditableGraph;
  readonly shapes: SymbolicShapes;
  readonly steps: StepValues;
}
