import type { GraphProto, ModelProto, NodeProto } from '../format/model.js';

/** Returns the version of ONNX's operator set that a model uses. */
export function standardOpset({ opsetImport }: ModelProto): number {
  return opsetImport.find(({ domain }) => !domain || domain === 'ai.onnx')?.version ?? 1;
}

/** Returns the bodies of a control-flow node. */
export function subgraphs(node: NodeProto): GraphProto[] {
  return node.attribute.flatMap(({ g, graphs }) => [...(g ? [g] : []), ...(graphs ?? [])]);
}

/**
 * Lists the values that the bodies of a control-flow node may read from outside. To be safe, the list contains every
 * name that the bodies' nodes read, and the bodies' outputs.
 */
export function captured(node: NodeProto): string[] {
  return subgraphs(node).flatMap((graph) => [
    ...graph.node.flatMap((inner) => [...inner.input, ...captured(inner)]),
    ...graph.output.map((output) => output.name),
  ]);
}

/** Adds the names of all nodes and values in a graph to `names`. */
export function collectNames(graph: GraphProto, names: Set<string>): void {
  for (const { name } of [...graph.input, ...graph.output, ...graph.valueInfo]) names.add(name);
  for (const { name } of graph.initializer) if (name) names.add(name);
  for (const node of graph.node) {
    if (node.name) names.add(node.name);
    for (const name of [...node.input, ...node.output]) names.add(name);
    for (const inner of subgraphs(node)) collectNames(inner, names);
  }
}

/** Returns the node that computes each value. */
export function producersOf(graph: GraphProto): ReadonlyMap<string, NodeProto> {
  const producers = new Map<string, NodeProto>();
  for (const node of graph.node) for (const name of node.output) if (name !== '') producers.set(name, node);
  return producers;
}

/** Returns the nodes that read each value, without those inside of control-flow bodies. */
export function readersOf(graph: GraphProto): ReadonlyMap<string, readonly NodeProto[]> {
  const readers = new Map<string, NodeProto[]>();
  for (const node of graph.node) {
    for (const value of new Set(node.input)) {
      const known = readers.get(value);
      if (known) known.push(node);
      else readers.set(value, [node]);
    }
  }
  return readers;
}

/** Returns a name that isn't among `taken`, and adds it. */
export function uniqueName(base: string, taken: Set<string>): string {
  let name = base;
  for (let i = 1; taken.has(name); i++) name = `${base}.${i}`;
  taken.add(name);
  return name;
}
