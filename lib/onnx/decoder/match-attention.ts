import type { NodeProto } from '../format/model.js';
import type { EditableGraph } from '../graph/editable-graph.js';
import { floatAttribute, intAttribute } from '../graph/node-attribute.js';
import { label, operatorName } from '../graph/operators.js';
import { isShape } from '../graph/size.js';
import type { SymbolicShapes } from '../graph/symbolic-shapes.js';
import type { CacheTensor } from './decoder.js';
import type { GraphKnowledge } from './graph-knowledge.js';
import { isHeadsSwap } from './heads.js';
import { Unrecognised } from './lift.js';
import type { StepValues } from './step-values.js';

/** A layer's attention, found in the graph but not yet proven: its inputs and its result. */
export interface AttentionMatch {
  /** `[rows, heads, new, headDim]`. */
  readonly query: string;
  /** The keys that are added to the cache: `[rows, kvHeads, new, headDim]`. */
  readonly newKey: string;
  readonly newValue: string;
  /** The past and the new keys: `[rows, kvHeads, past + new, headDim]`. */
  readonly key: string;
  readonly value: string;
  /** The nodes that append the new keys and values to the past ones. */
  readonly updates: readonly NodeProto[];
  /** `[rows, new, heads * headDim]`, `[rows, new, heads, headDim]` or `[rows, heads, new, headDim]`. */
  readonly output: string;
  readonly outputLayout: 'merged' | 'sequence-first' | 'heads-first';
  readonly heads: number;
  readonly kvHeads: number;
  readonly headDim: number;
  /** The single-element values that scores are multiplied or divided by. */
  readonly factors: readonly Factor[];
  /** The product of the scale's other factors. */
  readonly factor: number;
  /** The softcap, which bounds the scores on both sides, as factors or as a number. */
  readonly softcap: readonly Factor[] | number | undefined;
  readonly masks: readonly Mask[];
}

export interface Factor {
  readonly value: string;
  readonly inverse: boolean;
}

/** A value `[rows or 1, heads or 1, new or 1, total or 1]` that says which keys a query sees. */
export interface Mask {
  readonly value: string;
  /**
   * 'added': the mask is added to the scores. 'seen' and 'hidden': the mask is bool, and true means that a key is seen
   * or hidden.
   */
  readonly kind: 'added' | 'seen' | 'hidden';
}

/** Finds a layer's attention. @throws Unrecognised if it has a form that isn't known */
export function matchAttention(known: GraphKnowledge, key: CacheTensor, value: CacheTensor): AttentionMatch {
  return new Matcher(known, key, value).match();
}

const moving = new Set(['Unsqueeze', 'Squeeze', 'Expand', 'Reshape', 'Transpose', 'Cast', 'Identity']);

class Matcher {
  readonly #graph: EditableGraph;
  readonly #shapes: SymbolicShapes;
  readonly #steps: StepValues;
  readonly #key: CacheTensor;
  readonly #value: CacheTensor;
  #factors: Factor[] = [];
  readonly #masks: Mask[] = [];
  #softcap: Factor[] | undefined;

  constructor({ graph, shapes, steps }: GraphKnowledge, key: CacheTensor, value: CacheTensor) {
    this.#graph = graph;
    this.#shapes = shapes;
    this.#steps = steps;
    this.#key = key;
    this.#value = value;
  }

  match(): AttentionMatch {
    const [key, newKey] = this.#update(this.#key);
    const [value, newValue] = this.#update(this.#value);
    const product = this.#reader(value.output[0]!);
    const { kvHeads, headDim } = this.#key;
    if (this.#value.kvHeads !== kvHeads || this.#value.headDim !== headDim) {
      throw new Unrecognised(`"${this.#key.input}" and "${this.#value.input}" have different sizes`);
    }
    const inner = operatorName(product) === 'Attention' ? this.#operator(product) : this.#written(product);
    const keyUsed = this.#movedFrom(inner.key, key.output[0]!);
    if (!keyUsed)
      throw new Unrecognised(`the keys of ${label(product)} are not those of "${this.#key.input}"`);
    const heads = this.#sizeAt(inner.query, 1, `the query of ${label(product)}`);
    return {
      query: inner.query,
      newKey,
      newValue,
      key: key.output[0]!,
      value: value.output[0]!,
      updates: [key, value],
      ...this.#output(product.output[0]!, heads * headDim),
      heads,
      kvHeads,
      headDim,
      factors: this.#factors,
      factor: inner.factor,
      softcap: this.#softcap ?? inner.softcap,
      masks: this.#masks,
    };
  }

  /** Returns the node that appends to a cache, and the value that it appends. */
  #update({ input, output, rank }: CacheTensor): [NodeProto, string] {
    if (rank !== 4) throw new Unrecognised(`"${input}" is not [rows, heads, length, headDim]`);
    const readers = this.#graph.readers(input).filter((node) => operatorName(node) !== 'Shape');
    const [node] = readers;
    if (readers.length !== 1 || !node || operatorName(node) !== 'Concat' || node.output[0] !== output) {
      const who = readers.map(label).join(', ') || 'nothing';
      throw new Unrecognised(`"${input}" is read by ${who} instead of one Concat that gives "${output}"`);
    }
    const axis = intAttribute(node, 'axis', 0);
    if (node.input.length !== 2 || node.input[0] !== input || (axis !== 2 && axis !== -2)) {
      throw new Unrecognised(`${label(node)} does not add new tokens behind those of "${input}"`);
    }
    return [node, node.input[1]!];
  }

  /** Returns the product or the Attention that reads the values, directly or through nodes that repeat heads. */
  #reader(value: string): NodeProto {
    let current = value;
    for (;;) {
      const readers = this.#graph.readers(current).filter((node) => operatorName(node) !== 'Shape');
      const [node] = readers;
      if (!node || readers.length > 1) {
        throw new Unrecognised(`"${current}" is read by ${readers.map(label).join(', ') || 'nothing'}`);
      }
      const operator = operatorName(node);
      if (operator === 'MatMul' && node.input[1] === current) return node;
      if (operator === 'Attention' && node.input[2] === current) return node;
      if (!moving.has(operator)) throw new Unrecognised(`${label(node)} reads the values "${value}"`);
      current = node.output[0]!;
    }
  }

  /** Reads the standard's Attention. */
  #operator(node: NodeProto): { query: string; key: string; factor: number; softcap: number | undefined } {
    const [query = '', key = '', , mask = '', ...past] = node.input;
    if (past.some((name) => name !== '') || node.output.slice(1).some((name) => name !== '')) {
      throw new Unrecognised(`${label(node)} has a past of its own`);
    }
    if (mask !== '') this.#masks.push({ value: mask, kind: 'added' });
    const scale = floatAttribute(node, 'scale', 0) || 1 / Math.sqrt(this.#key.headDim);
    return { query, key, factor: scale, softcap: floatAttribute(node, 'softcap', 0) || undefined };
  }

  /** Reads Softmax(Q·Kᵀ)·V, written out. */
  #written(product: NodeProto): { query: string; key: string; factor: number; softcap: undefined } {
    const softmax = this.#softmax(product.input[0]!, product);
    const scores = this.#scores(softmax.input[0]!);
    const query = this.#withoutFactors(scores.input[0]!);
    let key = scores.input[1]!;
    for (;;) {
      key = this.#withoutFactors(key);
      const node = this.#graph.producer(key);
      if (!node || !moving.has(operatorName(node))) break;
      key = node.input[0]!;
    }
    return { query, key, factor: 1, softcap: undefined };
  }

  #softmax(probabilities: string, product: NodeProto): NodeProto {
    let current = probabilities;
    for (;;) {
      const node = this.#graph.producer(current);
      const operator = node && operatorName(node);
      if (operator === 'Softmax') {
        const axis = intAttribute(node!, 'axis', -1);
        if (axis !== -1 && axis !== 3) throw new Unrecognised(`${label(node!)} is not over the keys`);
        return node!;
      }
      if (operator === 'Cast' || operator === 'Identity' || operator === 'Dropout') current = node!.input[0]!;
      else if (operator === 'Where' && this.#isGuard(node!)) current = node!.input[2]!;
      else
        throw new Unrecognised(
          `${node ? label(node) : `"${current}"`} is no Softmax before ${label(product)}`,
        );
    }
  }

  /** True for Where(IsNaN(x), 0, x), which replaces the output of a query that sees nothing. */
  #isGuard({ input }: NodeProto): boolean {
    const condition = this.#graph.producer(input[0]!);
    return condition !== undefined && operatorName(condition) === 'IsNaN' && condition.input[0] === input[2];
  }

  /** Returns the product of queries and keys, before masks, scales and a softcap. */
  #scores(value: string): NodeProto {
    let current = value;
    for (;;) {
      const plain = this.#withoutFactors(current);
      if (plain !== current) {
        current = plain;
        continue;
      }
      const node = this.#graph.producer(current);
      const operator = node && operatorName(node);
      if (operator === 'MatMul') return node!;
      const isStep = node?.input.map((name) => this.#steps.has(name)) ?? [];
      if (operator === 'Add' && isStep[0] !== isStep[1]) {
        this.#masks.push({ value: node!.input[isStep[0] ? 0 : 1]!, kind: 'added' });
        current = node!.input[isStep[0] ? 1 : 0]!;
      } else if (operator === 'Where' && isStep[0] && isStep[1] !== isStep[2]) {
        this.#masks.push({ value: node!.input[0]!, kind: isStep[1] ? 'hidden' : 'seen' });
        current = node!.input[isStep[1] ? 2 : 1]!;
      } else if (operator === 'Tanh' && !this.#softcap) {
        this.#softcap = this.#factors;
        this.#factors = [...this.#softcap];
        current = node!.input[0]!;
      } else {
        throw new Unrecognised(
          `${node ? label(node) : `"${current}"`} is no part of attention that is known`,
        );
      }
    }
  }

  /** Follows a value back through products and quotients with single-element values, and records these as factors. */
  #withoutFactors(value: string): string {
    let current = value;
    for (;;) {
      const node = this.#graph.producer(current);
      if (!node) return current;
      const operator = operatorName(node);
      if (operator === 'Cast' || operator === 'Identity') {
        current = node.input[0]!;
        continue;
      }
      if (operator !== 'Mul' && operator !== 'Div') return current;
      const factor = [1, 0].find((i) => this.#isScalar(node.input[i]!) && (i === 1 || operator === 'Mul'));
      if (factor === undefined) return current;
      this.#factors.push({ value: node.input[factor]!, inverse: operator === 'Div' });
      current = node.input[1 - factor]!;
    }
  }

  #isScalar(value: string): boolean {
    if (!this.#steps.has(value) || this.#steps.isPositional(value)) return false;
    return this.#shapes.shape(value)?.every((size) => size.constant === 1) ?? false;
  }

  /** True if `value` is `source` with its elements moved around. */
  #movedFrom(value: string, source: string): boolean {
    let current = value;
    while (current !== source) {
      const node = this.#graph.producer(current);
      if (!node || !moving.has(operatorName(node))) return false;
      current = node.input[0]!;
    }
    return true;
  }

  #output(value: string, width: number): Pick<AttentionMatch, 'output' | 'outputLayout'> {
    const transpose = this.#onlyReader(value, 'Transpose');
    if (!transpose || !isHeadsSwap(transpose)) return { output: value, outputLayout: 'heads-first' };
    const [transposed = ''] = transpose.output;
    const reshape = this.#onlyReader(transposed, 'Reshape');
    const shape = reshape && this.#shapes.shape(reshape.output[0]!);
    if (reshape && isShape(shape, ['rows', 'new', width])) {
      return { output: reshape.output[0]!, outputLayout: 'merged' };
    }
    return { output: transposed, outputLayout: 'sequence-first' };
  }

  #onlyReader(value: string, operator: string): NodeProto | undefined {
    const readers = this.#graph.readers(value).filter((node) => operatorName(node) !== 'Shape');
    return readers.length === 1 && operatorName(readers[0]!) === operator ? readers[0] : undefined;
  }

  #sizeAt(value: string, axis: number, what: string): number {
    const shape = this.#shapes.shape(value);
    const size = shape?.length === 4 ? shape[axis]!.constant : undefined;
    if (size === undefined) {
      throw new Unrecognised(
        `${what}, "${value}", is [${shape?.join(', ') ?? 'unknown'}], not [rows, heads, new, headDim]`,
      );
    }
    return size;
  }
}
