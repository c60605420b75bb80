import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import { TensorRTError } from '../base/errors.js';
import { toFloat16Bits } from '../base/float16.js';
import { normalNumbers, uniformNumbers } from '../base/random.js';
import { headSize } from '../onnx/decoder/heads.js';
import type { ExternalDataOptions } from '../onnx/format/initializer.js';
import type { GraphProto, ModelProto, ValueInfoProto } from '../onnx/format/model.js';
import { intAttribute } from '../onnx/graph/node-attribute.js';
import { operatorName } from '../onnx/graph/operators.js';
import { Tensor } from './tensor.js';

export interface RandomInputsOptions extends ExternalDataOptions {
  seed: number;
  samples: number;
}

/** Sizes for dynamic dimensions, chosen by their names. An unnamed first dimension is 1. */
const sizes = { batch: 2, sequence: [8, 33], image: 224, other: 4 } as const;

/** The most elements of an input. A model's declared shape must not cause gigabytes of random numbers. */
const maxElements = 2 ** 28;

/**
 * Generates inputs that a model can run with: token numbers within the table that they are looked up in, masks of ones,
 * ascending positions, an empty past, and normally distributed numbers for the rest. Dimensions of the same name have
 * the same size.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED for an input that has no shape, isn't a tensor of numbers or is too large
 */
export function* randomInputs(
  { graph }: ModelProto,
  { seed, samples }: RandomInputsOptions,
): Generator<Record<string, Tensor>> {
  const weights = new Set(graph.initializer.map(({ name }) => name));
  const inputs = graph.input.filter(({ name }) => !weights.has(name));
  for (let sample = 0; sample < samples; sample++) {
    const sequence = sizes.sequence[sample % sizes.sequence.length]!;
    const normal = normalNumbers(seed * samples + sample);
    const uniform = uniformNumbers(seed * samples + sample);
    yield Object.fromEntries(
      inputs.map((input) => [input.name, randomInput(input, graph, sequence, { normal, uniform })]),
    );
  }
}

function randomInput(
  input: ValueInfoProto,
  graph: GraphProto,
  sequence: number,
  { normal, uniform }: { normal: () => number; uniform: () => number },
): Tensor {
  const { name } = input;
  const elemType = input.type?.tensorType?.elemType;
  const type: DataType | undefined = elemType === undefined ? undefined : dataTypeFromOnnx(elemType);
  const shape = input.type?.tensorType?.shape?.dim;
  if (type === undefined || type === 'string' || shape === undefined) {
    const lack = shape === undefined ? 'has no shape' : 'is not a tensor of numbers';
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `Can't make random values for the input "${name}", which ${lack}: give options.calibration.`,
    );
  }
  const dims = shape.map(
    (dim, axis) =>
      dim.dimValue ??
      (axis === shape.length - 1 ? headSize(graph, name) : undefined) ??
      sizeOf(dim.dimParam ?? '', name, axis, shape.length, sequence),
  );
  const size = dims.reduce((product, dim) => product * dim, 1);
  if (!(size >= 0 && size <= maxElements)) {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `Can't make random values for the input "${name}" of dimensions [${dims}]: give options.calibration.`,
    );
  }
  const filled = <Elements extends { length: number; [i: number]: number }>(
    elements: Elements,
    value: (i: number) => number,
  ) => {
    for (let i = 0; i < elements.length; i++) elements[i] = value(i);
    return elements;
  };
  const filled64 = (elements: BigInt64Array | BigUint64Array, value: (i: number) => number) => {
    for (let i = 0; i < elements.length; i++) elements[i] = BigInt(value(i));
    return elements;
  };
  const last = dims.at(-1) ?? 1;
  switch (type) {
    case 'float32':
      return new Tensor(type, filled(new Float32Array(size), isMask(name) ? () => 1 : normal), dims);
    case 'float64':
      return new Tensor(type, filled(new Float64Array(size), normal), dims);
    case 'float16':
      return new Tensor(type, toFloat16Bits(filled(new Float32Array(size), normal)), dims);
    case 'bfloat16':
      return new Tensor(type, new Uint16Array(size).fill(0x3f80), dims);
    case 'bool':
      return new Tensor(type, new Uint8Array(size).fill(1), dims);
    default: {
      const rows = tableRows(graph, name);
      const value = isMask(name)
        ? () => 1
        : /pos/i.test(name)
          ? (i: number) => Math.min(i % last, (rows ?? Number.POSITIVE_INFINITY) - 1)
          : /token_type|segment/i.test(name)
            ? () => 0
            : () => Math.floor(uniform() * Math.min(rows ?? 2, type.endsWith('int8') ? 128 : (rows ?? 2)));
      if (type === 'int64') return new Tensor(type, filled64(new BigInt64Array(size), value), dims);
      if (type === 'uint64') return new Tensor(type, filled64(new BigUint64Array(size), value), dims);
      const arrays = { int8: Int8Array, uint8: Uint8Array, int16: Int16Array, uint16: Uint16Array };
      const wide = { int32: Int32Array, uint32: Uint32Array };
      return new Tensor(type, filled(new { ...arrays, ...wide }[type](size), value), dims);
    }
  }
}

function isMask(name: string): boolean {
  return /mask/i.test(name);
}

/** A mask's `past_sequence_length + sequence_length` is the sum of both. */
function sizeOf(symbol: string, input: string, axis: number, rank: number, sequence: number): number {
  const terms = symbol.split('+').map((term) => term.trim());
  if (terms.length > 1) {
    return terms.reduce(
      (sum, term) => sum + (/^\d+$/.test(term) ? Number(term) : sizeOf(term, input, axis, rank, sequence)),
      0,
    );
  }
  if (/past|cache/i.test(symbol)) return 0;
  if (/batch/i.test(symbol)) return sizes.batch;
  if (/seq|len|token|total/i.test(symbol)) return sequence;
  if (/height|width/i.test(symbol)) return sizes.image;
  if (rank === 4 && axis >= 2) return /past|cache/i.test(input) ? 0 : sizes.image;
  if (axis === 0) return symbol === '' ? 1 : sizes.batch;
  return rank <= 3 ? sequence : sizes.other;
}

/** The number of rows of the table that an input's values index; undefined if they don't index one. */
function tableRows(graph: GraphProto, input: string): number | undefined {
  const tables = new Map(graph.initializer.map((tensor) => [tensor.name, tensor.dims]));
  const same = new Set([input]);
  let rows: number | undefined;
  for (const node of graph.node) {
    const operator = operatorName(node);
    if (/^(Identity|Cast|Reshape|Unsqueeze|Squeeze|Flatten)$/.test(operator) && same.has(node.input[0]!)) {
      same.add(node.output[0]!);
    }
    if (operator !== 'Gather' || !same.has(node.input[1] ?? '')) continue;
    const axis = intAttribute(node, 'axis', 0);
    const dims = tables.get(node.input[0]);
    const size = dims?.at(axis);
    if (size !== undefined) rows = Math.min(rows ?? size, size);
  }
  return rows;
}
