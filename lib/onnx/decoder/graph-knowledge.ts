import type { EditableGraph } from '../graph/editable-graph.js';
import type { SymbolicShapes } from '../graph/symbolic-shapes.js';
import type { StepValues } from './step-values.js';

/** The facts about a graph that a pass needs. */
export interface GraphKnowledge {
  readonly graph: EditableGraph;
  readonly shapes: SymbolicShapes;
  readonly steps: StepValues;
}
