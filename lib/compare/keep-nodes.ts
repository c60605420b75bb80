import { dataTypes } from '../base/data-type.js';
import type { GraphProto, ModelProto, NodeProto, TensorProto } from '../onnx/format/model.js';
import { attributeProto } from '../onnx/graph/graph-builder.js';
import { operatorName } from '../onnx/graph/operators.js';
import { collectNames, subgraphs, uniqueName } from '../onnx/graph/traverse.js';
import { ComparedGraph } from './compared-graph.js';

const float32 = dataTypes.float32.onnx;
const lowTypes = new Set([dataTypes.float16.onnx, dataTypes.bfloat16.onnx]);

/** A 16-bit model of which nodes can be put back to FP32, with the weights that they have in the FP32 model. */
export class KeptNodes {
  readonly #model: ModelProto;
  readonly #a: ComparedGraph;
  readonly #b: ComparedGraph;
  readonly #originals: ReadonlyMap<string, NodeProto>;
  /**
   * The names of the nodes that compute in 16 bits and are in the FP32 model too, in the model's order; the operators of
   * those without a name.
   */
  readonly patterns: readonly string[];

  constructor(original: ModelProto, model: ModelProto) {
    this.#model = model;
    this.#a = new ComparedGraph(original);
    this.#b = new ComparedGraph(model);
    this.#originals = new Map(this.#a.computing.map((node) => [labelOf(node), node]));
    const low = this.#b.computing.filter((node) => this.#canBeKept(node));
    this.patterns = [...new Set(low.map(({ name, opType }) => name || opType))];
  }

  #canBeKept(node: NodeProto): boolean {
    const original = this.#originals.get(labelOf(node));
    if (!original || operatorName(original) !== operatorName(node) || subgraphs(node).length > 0)
      return false;
    return operatorName(node) !== 'Cast' && [...node.input, ...node.output].some((name) => this.#isLow(name));
  }

  #isLow(name: string): boolean {
    return lowTypes.has(this.#b.types.get(name) ?? 0);
  }

  /**
   * The model with nodes in FP32. What the others read of them is rounded.
   * @param patterns their names or operators, as `keepFp32` takes them
   */
  with(patterns: readonly string[]): ModelProto {
    const { graph } = this.#model;
    const isKept = (node: NodeProto) =>
      (patterns.includes(node.name ?? '') || patterns.includes(node.opType)) && this.#canBeKept(node);
    const taken = new Set<string>();
    collectNames(graph, taken);
    const unique = (base: string) => uniqueName(base, taken);
    const cast = (from: string, to: string, type: number): NodeProto => ({
      name: unique(`${to}:cast`),
      opType: 'Cast',
      input: [from],
      output: [to],
      attribute: [attributeProto('to', type)],
    });
    /** Values in FP32, by their 16-bit names. */
    const wide = new Map<string, string>();
    const nodes: NodeProto[] = [];
    const initializer: TensorProto[] = [...graph.initializer];
    const read = (name: string, original: string | undefined): string => {
      if (name === '' || !this.#isLow(name)) return name;
      let found = wide.get(name);
      if (found === undefined) {
        found = unique(`${name}:wide`);
        const weight = original === undefined ? undefined : this.#a.weight(original);
        const isSame = weight?.dataType === float32 && !this.#b.varies(name);
        if (isSame) initializer.push({ ...weight, name: found });
        else nodes.push(cast(name, found, float32));
        wide.set(name, found);
      }
      return found;
    };
    for (const node of graph.node) {
      if (!isKept(node)) {
        nodes.push(node);
        continue;
      }
      const original = this.#originals.get(labelOf(node))!;
      const input = node.input.map((name, i) => read(name, original.input[i]));
      const casts: NodeProto[] = [];
      const output = node.output.map((name) => {
        if (name === '' || !this.#isLow(name)) return name;
        const exact = unique(`${name}:wide`);
        wide.set(name, exact);
        casts.push(cast(exact, name, this.#b.types.get(name)!));
        return exact;
      });
      nodes.push({ ...node, input, output }, ...casts);
    }
    const changed: GraphProto = { ...graph, node: nodes, initializer };
    return { ...this.#model, irVersion: Math.max(this.#model.irVersion, 4), graph: changed };
  }
}

function labelOf(node: NodeProto): string {
  return node.name || node.output[0] || '';
}
