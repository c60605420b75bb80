import { dataTypeFromOnnx } from '../base/data-type.js';
import { TensorRTError } from '../base/errors.js';
import { rangeOf } from '../base/shapes.js';
import { loadNative } from '../execution/load-native.js';
import { loadPlan } from '../execution/load-plan.js';
import { findGpu } from '../system/gpu.js';
import type { NativeBytes } from '../system/native/bytes.js';
import type { NativeLoadedModel, NativeTensorInfo } from '../system/native/loaded-model.js';
import { native } from '../system/native.js';
import type { Bindings, EngineTensor } from './manifest.js';

/** TensorRT's description of a bare plan's bindings; undefined if no GPU and library here can run it. */
export async function readBindings(plan: NativeBytes): Promise<Bindings | undefined> {
  // Try each GPU: one of them may be of the kind that the plan is for.
  const { gpus } = await native().probeCuda();
  for (const ordinal of gpus.keys()) {
    const bindings = await readBindingsOn(ordinal, plan);
    if (bindings) return bindings;
  }
  return undefined;
}

async function readBindingsOn(ordinal: number, plan: NativeBytes): Promise<Bindings | undefined> {
  try {
    const session = new (native().NativeSession)({ concurrency: 1, maxQueue: 1 });
    const request = {
      plan,
      compiled: undefined,
      gpu: await findGpu(ordinal),
      libraryPath: undefined,
      cudaGraph: false,
      deviceOutputs: false,
    };
    const bindings = await loadNative(session, undefined, () => loadPlan(session, request), bindingsOfPlan);
    await session.close();
    return bindings;
  } catch (error) {
    if (error instanceof TensorRTError) return undefined;
    throw error;
  }
}

function bindingsOfPlan({ inputs, outputs, profiles }: NativeLoadedModel): Bindings {
  const describe = ({ name, type, shape }: NativeTensorInfo): EngineTensor => ({
    name,
    type: dataTypeFromOnnx(type) ?? null,
    dims: shape.map((size) => (typeof size === 'number' ? size : -1)),
    profiles: profiles.flatMap((profile) => rangeOf(profile, name) ?? []),
  });
  return { inputs: inputs.map(describe), outputs: outputs.map(describe) };
}
