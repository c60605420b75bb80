import { invalidArgValue, TensorRTError } from '../../base/errors.js';
import type { DeclaredInput } from '../../base/shapes.js';
import type { Dims } from '../../base/tensor-like.js';
import type { Engine } from '../../engine/engine.js';
import type { InputMetadata } from '../../execution/model-metadata.js';
import type { Tensor } from '../../execution/tensor.js';
import { checkInputNames, type InputSources, readInput } from '../run/input-source.js';
import { randomTensor } from '../run/random-tensor.js';
import { batchedShapes, isDynamic } from './batched-shapes.js';
import type { BatchInputs } from './measure-batch.js';
import { modelInputs } from './model-inputs.js';

/** How to make the queries' inputs. */
export interface WantedInputs {
  /** Inputs without a source are random. */
  readonly inputs: InputSources;
  /** Shapes of inputs; their batch dimensions follow the batch size. */
  readonly shapes: ReadonlyMap<string, Dims>;
}

/**
 * Makes the inputs, with the given shapes, or with shapes that follow from the batch size and the dimensions' names.
 */
export async function batchInputs(
  model: string | Engine,
  wanted: number | undefined,
  { inputs, shapes }: WantedInputs,
): Promise<BatchInputs> {
  const declared = await inputsOf(model);
  const names = declared.map(({ name }) => name);
  const sources = inputs(names);
  checkInputNames('--shapes', shapes.keys(), names);
  const given = new Map<string, Tensor>();
  for (const input of declared) {
    const source = sources.get(input.name);
    if (source !== undefined) given.set(input.name, await readInput(tensorInput(input), source));
  }
  const dims = new Map([
    ...tunedShapes(model),
    ...shapes,
    ...[...given].map(([name, tensor]) => [name, tensor.dims] as const),
  ]);
  const { batch, profile } = blamingInputs(given, names, () => batchedShapes(declared, wanted, dims));
  const feeds: Record<string, Tensor> = {};
  for (const input of declared) {
    const { name, type } = tensorInput(input);
    const wantedDims = profile.get(name)!;
    const tensor = given.get(name) ?? randomTensor(type, wantedDims);
    if (tensor.dims.join() !== wantedDims.join()) {
      throw invalidArgValue(
        '--input',
        `gives '${name}' dims [${tensor.dims}], but --batch needs [${wantedDims}].`,
      );
    }
    feeds[name] = tensor;
  }
  const dynamic = declared.filter(({ shape }) => shape.some(isDynamic));
  return {
    batch,
    feeds,
    dynamic: Object.fromEntries(dynamic.map(({ name }) => [name, profile.get(name)!])),
  };
}

async function inputsOf(model: string | Engine): Promise<readonly DeclaredInput[]> {
  if (typeof model === 'string') return modelInputs(model);
  return model.inputs.map(({ name, type, dims }) => ({ name, type: type ?? undefined, shape: dims }));
}

/** The shapes that an engine is tuned for; empty for a model that isn't compiled yet. */
function tunedShapes(model: string | Engine): ReadonlyMap<string, Dims> {
  if (typeof model === 'string') return new Map();
  return new Map(
    model.inputs.flatMap(({ name, profiles: [profile] }) => (profile ? [[name, profile.opt] as const] : [])),
  );
}

/** Rewrites errors of `work` about shapes to blame the given inputs, since `--shapes` didn't give those shapes. */
function blamingInputs<T>(given: ReadonlyMap<string, Tensor>, names: readonly string[], work: () => T): T {
  try {
    return work();
  } catch (error) {
    const [before, ...mentions] = (error as Error).message.split('options.shapes.');
    const blamed = mentions.map((text) => {
      const [name] = names.filter((each) => text.startsWith(each)).sort((a, b) => b.length - a.length);
      if (name === undefined || !given.has(name)) return `options.shapes.${text}`;
      return `feeds['${name}']${text.slice(name.length).replace(/^\.(?:min|opt|max)\b/, '')}`;
    });
    (error as Error).message = [before, ...blamed].join('');
    throw error;
  }
}

function tensorInput({ name, type, shape }: DeclaredInput): InputMetadata {
  if (type) return { name, isTensor: true, type, shape };
  throw new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `The input "${name}" is not a tensor of a supported type.`,
  );
}
