import type { ModelProto, NodeProto, ValueInfoProto } from '../onnx/format/model.js';
import { captured, producersOf } from '../onnx/graph/traverse.js';

/** A part of a model that computes some values. */
export interface CutGraph {
  readonly model: ModelProto;
  /** The values that are fed to it instead of being computed. */
  readonly fed: readonly string[];
  /** The model's own inputs that it reads. */
  readonly inputs: readonly string[];
}

/** The name by which a cut graph gives a value that it is also fed. */
export function computed(value: string): string {
  return `node-tensorrt.computed.${value}`;
}

/**
 * The part of a model that computes `outputs`, where the values in `cut` are not computed from others but fed as
 * inputs. A value that is in both is given as {@link computed}.
 *
 * @param types ONNX element types of the model's values
 */
export function cutGraph(
  model: ModelProto,
  types: ReadonlyMap<string, number>,
  outputs: readonly string[],
  cut: ReadonlySet<string> = new Set(),
): CutGraph {
  const { graph } = model;
  const producers = producersOf(graph);
  const needed = new Set<NodeProto>();
  const read = new Set<string>();
  const stack = outputs.flatMap((name) => producers.get(name) ?? []);
  while (stack.length > 0) {
    const node = stack.pop()!;
    if (needed.has(node)) continue;
    needed.add(node);
    for (const name of [...node.input, ...captured(node)]) {
      read.add(name);
      const producer = cut.has(name) ? undefined : producers.get(name);
      if (producer) stack.push(producer);
    }
  }
  const declared = (name: string, type: number | undefined): ValueInfoProto => ({
    name,
    type: { tensorType: type === undefined ? {} : { elemType: type } },
  });
  const fed = [...cut].filter((name) => read.has(name) && producers.has(name));
  const given = (name: string) => (cut.has(name) ? computed(name) : name);
  const ownOutputs = new Map(graph.output.map((output) => [output.name, output]));
  const inputs = graph.input.filter(({ name }) => read.has(name));
  const weights = new Set(graph.initializer.map(({ name }) => name));
  return {
    model: {
      ...model,
      graph: {
        ...graph,
        node: graph.node
          .filter((node) => needed.has(node))
          .map((node) => ({ ...node, output: node.output.map(given) })),
        initializer: graph.initializer.filter(({ name }) => name !== undefined && read.has(name)),
        input: [...inputs, ...fed.map((name) => declared(name, types.get(name)))],
        output: outputs.map((name) => {
          const own = cut.has(name) ? undefined : ownOutputs.get(name);
          return own ?? declared(given(name), types.get(name));
        }),
        valueInfo: [],
      },
    },
    fed,
    inputs: inputs.map(({ name }) => name).filter((name) => !weights.has(name)),
  };
}
