import { type DataType, dataTypeFromOnnx } from '../../base/data-type.js';
import type { DecoderInputRole } from '../../base/decoder-graph.js';
import type { TensorLike } from '../../base/tensor-like.js';
import type { ExternalDataOptions } from '../format/initializer.js';
import type { ModelProto, NodeProto, ValueInfoProto } from '../format/model.js';
import type { EditableGraph } from '../graph/editable-graph.js';
import { valueInfo } from '../graph/graph-builder.js';
import { operatorName } from '../graph/operators.js';
import type { SymbolicShapes } from '../graph/symbolic-shapes.js';
import { captured } from '../graph/traverse.js';

/** The sizes of a step: see `DecoderInputRole`. `past` is the same for all rows. */
export interface Step {
  readonly rows: number;
  readonly new: number;
  readonly past: number;
}

/** A loaded graph that can be run. */
export interface RunnableGraph {
  /** @throws (rejects) TensorRTError ERR_EXECUTION_FAILED … */
  run(feeds: Readonly<Record<string, TensorLike>>): Promise<Readonly<Record<string, TensorLike>>>;
  dispose(): Promise<void>;
}

/**
 * Loads a part of a graph, to run it on one thread. The caller provides it, because nothing in `lib/onnx` runs graphs.
 */
export type LoadPart = (model: ModelProto, options: ExternalDataOptions) => Promise<RunnableGraph>;

/** Inputs that a step's sizes determine if no row is padded. */
const determined: ReadonlySet<DecoderInputRole> = new Set(['position_ids', 'attention_mask']);

/**
 * Computes the values of a decoder that a step's sizes determine, whatever its tokens are: shapes, positions, masks,
 * tables of cosines. ONNX Runtime computes them without the rest of the graph, and above all without weights and
 * caches.
 */
export class StepValues {
  readonly #model: ModelProto;
  readonly #graph: EditableGraph;
  readonly #shapes: SymbolicShapes;
  readonly #roles: Readonly<Record<string, DecoderInputRole>>;
  readonly #options: ExternalDataOptions & { readonly loadPart: LoadPart };
  readonly #memo = new Map<string, { isStep: boolean; isPositional: boolean }>();

  constructor(
    model: ModelProto,
    graph: EditableGraph,
    shapes: SymbolicShapes,
    roles: Readonly<Record<string, DecoderInputRole>>,
    options: ExternalDataOptions & { readonly loadPart: LoadPart },
  ) {
    this.#model = model;
    this.#graph = graph;
    this.#shapes = shapes;
    this.#roles = roles;
    this.#options = options;
  }

  /** True if a step's sizes determine the value, or if it is a constant. */
  has(value: string): boolean {
    return this.#classify(value).isStep;
  }

  /** True if the value depends on the number of tokens in the cache, or on positions. */
  isPositional(value: string): boolean {
    return this.#classify(value).isPositional;
  }

  #classify(value: string): { isStep: boolean; isPositional: boolean } {
    const stack = [value];
    while (stack.length > 0) {
      const name = stack.at(-1)!;
      if (this.#memo.has(name)) {
        stack.pop();
        continue;
      }
      const node = this.#graph.producer(name);
      if (!node) {
        const role = this.#roles[name];
        const isStep = this.#graph.initializer(name) !== undefined || determined.has(role!);
        this.#memo.set(name, { isStep, isPositional: determined.has(role!) });
        stack.pop();
        continue;
      }
      const shape = this.#shapeOf(node);
      if (shape) {
        this.#memo.set(name, { isStep: true, isPositional: shape.some((size) => size.dependsOn('past')) });
        stack.pop();
        continue;
      }
      const inputs = [...node.input, ...captured(node)].filter((each) => each !== '');
      const open = inputs.filter((each) => !this.#memo.has(each) && this.#isValue(each));
      if (open.length > 0) {
        stack.push(...open);
        continue;
      }
      const known = inputs.flatMap((each) => this.#memo.get(each) ?? []);
      this.#memo.set(name, {
        isStep: known.every(({ isStep }) => isStep),
        isPositional: known.some(({ isPositional }) => isPositional),
      });
      stack.pop();
    }
    return this.#memo.get(value)!;
  }

  /** False for names that exist only in a body. */
  #isValue(name: string): boolean {
    return (
      this.#graph.producer(name) !== undefined ||
      this.#graph.initializer(name) !== undefined ||
      this.#graph.inputs.some((input) => input.name === name)
    );
  }

  /** Returns the result of a Shape node, if it is known. */
  #shapeOf(node: NodeProto) {
    return operatorName(node) === 'Shape' ? this.#shapes.elements(node.output[0]!) : undefined;
  }

  /**
   * Loads the part of the graph that computes `targets` from `given`, which are values that the caller computes, and
   * from values that a step's sizes determine. Returns undefined if more than that is needed.
   *
   * @throws (rejects) the errors of `loadPart`
   */
  async part(
    targets: readonly string[],
    given: readonly { name: string; type: DataType; rank: number }[] = [],
  ): Promise<StepPart | undefined> {
    const inputs: ValueInfoProto[] = given.map(({ name, type, rank }) =>
      valueInfo(
        name,
        type,
        Array.from({ length: rank }, (_, i) => `${name}.${i}`),
      ),
    );
    const shapeNodes: NodeProto[] = [];
    const roles: string[] = [];
    const nodes = new Set<NodeProto>();
    const seen = new Set(given.map(({ name }) => name));
    const stack = [...targets];
    while (stack.length > 0) {
      const name = stack.pop()!;
      if (name === '' || seen.has(name)) continue;
      seen.add(name);
      const node = this.#graph.producer(name);
      if (!node) {
        if (this.#graph.initializer(name)) continue;
        if (!determined.has(this.#roles[name]!)) {
          if (this.#isValue(name)) return undefined;
          continue;
        }
        roles.push(name);
        inputs.push(this.#graph.inputs.find((input) => input.name === name)!);
        continue;
      }
      const shape = this.#shapeOf(node);
      if (shape) {
        shapeNodes.push(node);
        inputs.push(valueInfo(name, 'int64', [shape.length]));
        continue;
      }
      nodes.add(node);
      stack.push(...node.input, ...captured(node));
    }
    const outputs = [...new Set(targets)].filter((name) => !inputs.some((input) => input.name === name));
    const model: ModelProto = {
      ...this.#model,
      graph: {
        name: 'part',
        node: [...this.#graph.nodes].filter((node) => nodes.has(node)),
        initializer: [...seen].flatMap((name) => this.#graph.initializer(name) ?? []),
        input: inputs,
        output: outputs.map((name) => ({ name })),
        valueInfo: [],
      },
    };
    const { directory, loadPart } = this.#options;
    const part = outputs.length > 0 ? await loadPart(model, { directory }) : undefined;
    return new StepPart(targets, part, (step) => this.#feeds(step, roles, shapeNodes));
  }

  #feeds(step: Step, roles: readonly string[], shapeNodes: readonly NodeProto[]): Record<string, TensorLike> {
    const feeds: Record<string, TensorLike> = {};
    const total = step.past + step.new;
    for (const name of roles) {
      const isMask = this.#roles[name] === 'attention_mask';
      const length = isMask ? total : step.new;
      const value = (i: number) => (isMask ? 1 : step.past + (i % length));
      const type = dataTypeFromOnnx(
        this.#graph.inputs.find((input) => input.name === name)!.type!.tensorType!.elemType!,
      );
      const size = step.rows * length;
      const data =
        type === 'int32'
          ? Int32Array.from({ length: size }, (_, i) => value(i))
          : BigInt64Array.from({ length: size }, (_, i) => BigInt(value(i)));
      feeds[name] = { type: type as 'int64', dims: [step.rows, length], data };
    }
    for (const node of shapeNodes) {
      const sizes = this.#shapeOf(node)!.map((size) => BigInt(size.evaluate({ ...step })));
      feeds[node.output[0]!] = { type: 'int64', dims: [sizes.length], data: BigInt64Array.from(sizes) };
    }
    return feeds;
  }
}

/** A loaded part of a graph. */
export class StepPart {
  readonly #targets: readonly string[];
  readonly #graph: RunnableGraph | undefined;
  readonly #feeds: (step: Step) => Record<string, TensorLike>;

  constructor(
    targets: readonly string[],
    graph: RunnableGraph | undefined,
    feeds: (step: Step) => Record<string, TensorLike>,
  ) {
    this.#targets = targets;
    this.#graph = graph;
    this.#feeds = feeds;
  }

  /** Returns the targets' values in a step. @throws (rejects) the errors of `RunnableGraph.run` */
  async run(
    step: Step,
    given: Readonly<Record<string, TensorLike>> = {},
  ): Promise<Record<string, TensorLike>> {
    const feeds = { ...this.#feeds(step), ...given };
    const results = this.#graph ? await this.#graph.run(feeds) : {};
    return Object.fromEntries(this.#targets.map((name) => [name, results[name] ?? feeds[name]!]));
  }

  async dispose(): Promise<void> {
    await this.#graph?.dispose();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.dispose();
  }
}
