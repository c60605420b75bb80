import { loadPlan, type PlanRequest } from '../execution/load-plan.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import type { NativeSession } from '../system/native/session.js';
import { type Engine, isDescribed, planOf } from './engine.js';

export interface EngineRequest extends Omit<PlanRequest, 'plan' | 'compiled'> {
  readonly engine: Engine;
}

/**
 * Loads an engine's plan onto a GPU, with the library that compiled it. The engine may be disposed while it loads.
 * @throws (rejects) the errors of {@link loadPlan}; TensorRTError ERR_DISPOSED
 */
export async function loadEngine(
  session: Pick<NativeSession, 'load'>,
  { engine, ...request }: EngineRequest,
): Promise<NativeLoadedModel | undefined> {
  const plan = planOf(engine);
  try {
    const compiled = isDescribed(engine) ? engine.manifest : undefined;
    return await loadPlan(session, { ...request, plan, compiled });
  } finally {
    plan.release();
  }
}
