import path from 'node:path';
import { dataTypeFromOnnx, type dataTypes } from '../base/data-type.js';
import { invalidArgValue, TensorRTError } from '../base/errors.js';
import { toBfloat16Bits, toFloat16Bits } from '../base/float16.js';
import type { TensorLike } from '../base/tensor-like.js';
import { loadGraph } from '../execution/load-graph.js';
import { loadOnCpu } from '../execution/load-on-cpu.js';
import type { LoadedSession } from '../execution/loaded-session.js';
import type { Feeds } from '../execution/run-request.js';
import { Tensor } from '../execution/tensor.js';
import { isExternal } from '../onnx/format/initializer.js';
import type { ModelProto, ValueInfoProto } from '../onnx/format/model.js';
import { parseModel, readModel, serializeModel } from '../onnx/format/model-file.js';
import type { LowPrecision } from '../onnx/precision/low-type.js';
import { lowPrecisions, simulatePrecision } from '../onnx/precision/simulate-precision.js';
import { absolutePath } from '../system/files/working-directory.js';
import { type Numbers, numbersOf } from './difference.js';

/** One of two models that are compared, as it is given and as the CPU runs it. */
export class ComparedModel {
  /** 'a' or 'b', in messages. */
  readonly label: 'a' | 'b';
  readonly given: ModelProto;
  /** The model that runs: 16-bit types are simulated. */
  readonly model: ModelProto;
  /** The lowest of its types. */
  readonly precision: LowPrecision | 'fp32';
  readonly where: { readonly directory?: string };

  constructor(label: 'a' | 'b', given: ModelProto, where: { readonly directory?: string }) {
    this.label = label;
    this.given = given;
    this.where = where;
    const low = lowPrecisions(given);
    this.precision = low.has('bf16') ? 'bf16' : low.has('fp16') ? 'fp16' : 'fp32';
    this.model = simulatePrecision(given, where);
  }

  /** The inputs that a caller gives. */
  get inputs(): ValueInfoProto[] {
    const { graph } = this.given;
    const weights = new Set(graph.initializer.map(({ name }) => name));
    return graph.input.filter(({ name }) => !weights.has(name));
  }

  get outputs(): ValueInfoProto[] {
    return this.given.graph.output;
  }

  /** Loads the model, or another one that was made from it. */
  load(model = this.model): Promise<LoadedSession> {
    const isWhole = !model.graph.initializer.some(isExternal);
    return isWhole ? loadOnCpu({ model: serializeModel(model) }) : loadGraph(model, this.where);
  }
}

/**
 * Reads a model that is compared.
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_MODEL_UNSUPPORTED, ERR_IO
 */
export async function readComparedModel(
  label: 'a' | 'b',
  source: string | Uint8Array,
): Promise<ComparedModel> {
  if (typeof source === 'string') {
    const directory = path.dirname(absolutePath(source));
    return new ComparedModel(label, await readModel(source), { directory });
  }
  try {
    return new ComparedModel(label, parseModel(source), {});
  } catch (error) {
    if (!(error instanceof TensorRTError) || error.code !== 'ERR_MODEL_INVALID') throw error;
    throw new TensorRTError(error.code, `${label}: ${error.message}`, { cause: error });
  }
}

/** Pairs the inputs of b with those of a, by name, or by position if no name is the same and there are as many. */
export function pairInputs(a: ComparedModel, b: ComparedModel): ReadonlyMap<string, string> {
  const names = a.inputs.map(({ name }) => name);
  const others = b.inputs.map(({ name }) => name);
  const isRenamed = names.length === others.length && !others.some((name) => names.includes(name));
  const pairs = new Map(others.map((name, i) => [name, isRenamed ? names[i]! : name]));
  for (const [name, source] of pairs) {
    if (names.includes(source)) continue;
    throw invalidArgValue(
      'b',
      `has the input "${name}", which a doesn't have. Its inputs are ${names.join(', ')}.`,
    );
  }
  return pairs;
}

/**
 * The feeds for a model, from those for a model that has the same inputs in perhaps other types.
 * @param pairs the names of the given feeds, by input; undefined: the same
 */
export function feedsFor(
  model: ComparedModel,
  feeds: Feeds,
  pairs?: ReadonlyMap<string, string>,
): Record<string, TensorLike> {
  const known = new Map(model.inputs.map((input) => [input.name, input]));
  const names = pairs ? [...pairs] : Object.keys(feeds).map((name) => [name, name] as const);
  return Object.fromEntries(
    names.flatMap(([name, source]) => {
      const tensor = feeds[source];
      const type = known.get(name)?.type?.tensorType?.elemType;
      return tensor ? [[name, type === undefined ? tensor : inputOfType(tensor, type)]] : [];
    }),
  );
}

/** A tensor as an input of a type: rounded to it, and float32 if the type has 16 bits, which are simulated. */
function inputOfType(tensor: TensorLike, onnxType: number): TensorLike {
  const type = dataTypeFromOnnx(onnxType);
  if (type === undefined || type === 'string' || tensor.type === 'string') return tensor;
  if (tensor.type === type && type !== 'float16' && type !== 'bfloat16') return tensor;
  // Only floating-point numbers and integers of another width are converted: the run refuses the rest.
  if (/float/.test(tensor.type) !== /float/.test(type)) return tensor;
  const numbers = numbersOf(tensor as Tensor);
  if (numbers === undefined) return tensor;
  return tensorOf(type, rounded(type, numbers), tensor.dims);
}

function rounded(type: string, numbers: Numbers): Numbers {
  if (type !== 'float16' && type !== 'bfloat16') return numbers;
  const bits = (type === 'float16' ? toFloat16Bits : toBfloat16Bits)(Float32Array.from(numbers));
  return numbersOf(new Tensor(type, bits, [bits.length]) as Tensor)!;
}

/** A tensor of a type, of 16 bits as float32. */
function tensorOf(type: keyof typeof dataTypes, numbers: Numbers, dims: readonly number[]): TensorLike {
  switch (type) {
    case 'float64':
      return new Tensor(type, Float64Array.from(numbers), dims);
    case 'int64':
      return new Tensor(type, BigInt64Array.from(Array.from(numbers), BigInt), dims);
    case 'uint64':
      return new Tensor(type, BigUint64Array.from(Array.from(numbers), BigInt), dims);
    case 'float32':
    case 'float16':
    case 'bfloat16':
      return new Tensor('float32', Float32Array.from(numbers), dims);
    default:
      return new Tensor(type, Array.from(numbers), dims);
  }
}

/** A value of one model, as a value of the other. */
export function asType(tensor: Tensor, onnxType: number): TensorLike {
  const type = dataTypeFromOnnx(onnxType);
  if (type === undefined || type === tensor.type || type === 'string') return tensor;
  return tensorOf(type, numbersOf(tensor) ?? [], tensor.dims);
}
