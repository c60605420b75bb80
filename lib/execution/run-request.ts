import { type DataType, dataTypeFromOnnx } from '../base/data-type.js';
import { invalidArgType, invalidArgValue, shapeMismatch } from '../base/errors.js';
import { type Profile, requireProfile } from '../base/shapes.js';
import type { TensorLike } from '../base/tensor-like.js';
import type { NativeRun } from '../system/native/session.js';
import type { DeviceTensor, NativeInput, NativeOutput } from '../system/native/tensor.js';
import { checkTensor } from './check-tensor.js';
import { checkAgainst, type InputMetadata, type ValueMetadata } from './model-metadata.js';
import { Tensor, tensorOnDevice } from './tensor.js';
import { typedArray } from './tensor-elements.js';
import { deviceTensorOf, hostBufferOf } from './tensor-memory.js';

/** A tensor for each input, by name. */
export type Feeds = Readonly<Record<string, TensorLike>>;
/**
 * The outputs to compute: a list of names, or by name a tensor to write the output into, or null for a new one. Defaults
 * to all outputs that are tensors.
 */
export type Fetches = readonly string[] | Readonly<Record<string, Tensor | null>>;

/** The facts about a loaded model that runs are checked against. */
export interface RunContext {
  readonly device: string;
  readonly inputNames: readonly string[];
  readonly outputNames: readonly string[];
  readonly inputMetadata: readonly InputMetadata[];
  readonly outputMetadata: readonly ValueMetadata[];
  /** Names of the outputs that can be fetched. */
  readonly tensorOutputs: readonly string[];
  /** Shapes that runs may have; empty for any. */
  readonly profiles: readonly Profile[];
}

/** A run after checking: the addon's arguments, and a function that makes tensors of the addon's answer. */
export interface RunRequest {
  readonly native: NativeRun;
  results(outputs: NativeOutput[]): Record<string, Tensor>;
}

/**
 * Checks feeds and fetches against a model.
 * @throws TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE or ERR_SHAPE_MISMATCH; TensorRTError ERR_DISPOSED
 */
export function runRequest(context: RunContext, feeds: Feeds, fetches: Fetches | undefined): RunRequest {
  const [data, dims] = readFeeds(context, feeds);
  const names = fetchedNames(context, fetches);
  const targets = names.map((name) =>
    Array.isArray(fetches) || !fetches ? null : ((fetches as Record<string, Tensor | null>)[name] ?? null),
  );
  const indices = readTargets(context, names, targets);
  const buffers = targets.map((target) => (target && hostBufferOf(target)) ?? undefined);
  const targetDims = targets.map((target, i) => (target && buffers[i] ? target.dims : []));
  return {
    native: [data, dims, indices, buffers, targetDims],
    results: (outputs) =>
      Object.fromEntries(outputs.map((output, i) => [names[i]!, toTensor(output, targets[i] ?? null)])),
  };
}

/**
 * Makes a handler for a failed run that throws the error on. If the error is about the feeds, it names them as the caller
 * who gave them knows them.
 */
export function feedsCalled(name: string): (error: Error) => never {
  return (error) => {
    if (/^feeds\b/.test(error.message)) error.message = error.message.replace('feeds', name);
    throw error;
  };
}

/** Returns the feeds' data and dimensions for the addon, in the order of the inputs. */
function readFeeds(
  { device, inputNames, inputMetadata, profiles }: RunContext,
  feeds: Feeds,
): [data: NativeInput[], dims: (readonly number[])[]] {
  if (typeof feeds !== 'object' || feeds === null || Array.isArray(feeds)) {
    throw invalidArgType('feeds', 'an object of tensors by input name', feeds);
  }
  for (const name of Object.keys(feeds)) {
    if (inputNames.includes(name)) continue;
    throw invalidArgValue(
      `feeds['${name}']`,
      `is not an input of this model. Its inputs are ${quoted(inputNames)}.`,
    );
  }
  const data: NativeInput[] = [];
  const dims: (readonly number[])[] = [];
  for (const input of inputMetadata) {
    const tensor: TensorLike | undefined = feeds[input.name];
    if (tensor === undefined) {
      throw invalidArgValue(`feeds['${input.name}']`, 'is missing: the model needs it.');
    }
    checkTensor(tensor, `feeds['${input.name}']`);
    checkAgainst(input, tensor, `feeds['${input.name}']`);
    const onDevice = deviceTensorOf(tensor);
    if (onDevice && device === 'cpu') {
      throw invalidArgValue(
        `feeds['${input.name}']`,
        "lies on a GPU, and this session runs on the CPU: feed what the tensor's getData() gives.",
      );
    }
    data.push(onDevice ?? hostBufferOf(tensor) ?? tensor.data);
    dims.push(tensor.dims);
  }
  if (profiles.length > 0) {
    const shapes = inputNames.map((name, i) => ({ name, dims: dims[i]! }));
    requireProfile(profiles, shapes, device === 'cpu' ? 'options.shapes' : 'the plan');
  }
  return [data, dims];
}

/** Returns the names of the outputs to compute, in the order in which they were asked for. */
function fetchedNames({ tensorOutputs }: RunContext, fetches: Fetches | undefined): readonly string[] {
  const names =
    fetches === undefined ? tensorOutputs : Array.isArray(fetches) ? fetches : Object.keys(fetches);
  if (names.length > 0) return names;
  const none = 'must name an output that is a tensor, and this model has none.';
  throw invalidArgValue('fetches', tensorOutputs.length === 0 ? none : 'names no output.');
}

/** Checks the tensors to write outputs into, and returns the outputs' numbers. */
function readTargets(
  { outputNames, outputMetadata, tensorOutputs }: RunContext,
  names: readonly string[],
  targets: readonly (Tensor | null)[],
): number[] {
  targets.forEach((target, i) => {
    if (!target || targets.indexOf(target) === i) return;
    throw invalidArgValue(`fetches['${names[i]}']`, 'is the same tensor as another output is written into.');
  });
  return names.map((name, i) => {
    const index = outputNames.indexOf(name);
    if (index < 0) {
      throw invalidArgValue(
        `fetches['${name}']`,
        `is not an output of this model. Its outputs are ${quoted(outputNames)}.`,
      );
    }
    if (names.indexOf(name) !== i) throw invalidArgValue('fetches', `names '${name}' twice.`);
    const output = outputMetadata[index]!;
    if (!output.isTensor) {
      throw invalidArgValue(
        `fetches['${name}']`,
        `is a sequence, a map or an optional value, which can't be fetched. Tensors are ${quoted(tensorOutputs) || 'none of its outputs'}.`,
      );
    }
    const target = targets[i];
    if (!target) return index;
    if (deviceTensorOf(target)) {
      throw invalidArgValue(
        `fetches['${name}']`,
        "lies on a GPU, where outputs are not written into a caller's tensor: use options.preferredOutputLocation.",
      );
    }
    checkTensor(target, `fetches['${name}']`);
    checkAgainst(output, target, `fetches['${name}']`);
    return index;
  });
}

function toTensor([type, dims, data]: NativeOutput, target: Tensor | null): Tensor {
  if (data === undefined) return target!;
  const dataType = dataTypeFromOnnx(type)!;
  if (isDeviceTensor(data)) return tensorOnDevice(dataType, dims, data);
  const elements = Array.isArray(data) ? data : typedArray(dataType as Exclude<DataType, 'string'>, data);
  if (!target) return new Tensor(dataType, elements, dims);
  if (dims.join() !== target.dims.join()) {
    throw shapeMismatch(
      `The output has dims [${dims}], but the tensor to write it into has [${target.dims}].`,
    );
  }
  if (Array.isArray(elements)) {
    elements.forEach((element, i) => {
      (target.data as string[])[i] = element;
    });
  } else bytesOf(target.data as ArrayBufferView).set(bytesOf(elements as ArrayBufferView));
  return target;
}

function isDeviceTensor(data: ArrayBuffer | DeviceTensor | string[]): data is DeviceTensor {
  return !Array.isArray(data) && !(data instanceof ArrayBuffer);
}

function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength);
}

function quoted(names: readonly string[]): string {
  return names.map((name) => `'${name}'`).join(', ');
}
