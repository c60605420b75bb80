import { TensorRTError } from '../base/errors.js';
import { onAbort } from '../base/options.js';
import type { NativeLoadedModel, NativeLoadRequest } from '../system/native/loaded-model.js';

/** A native object into which a model is loaded: a session or a language model. */
export interface Loadable {
  load(request: NativeLoadRequest): Promise<NativeLoadedModel | undefined>;
  stopLoading(): void;
  close(): Promise<void>;
}

/**
 * Loads a model, unless the signal aborts it. If loading finishes too late, or `use` throws, the model is closed again.
 * @throws (rejects) whatever `load` and `use` throw; TensorRTError ERR_DISPOSED if the process ends; the signal's
 *   reason
 */
export async function loadNative<Native extends Loadable, Used>(
  native: Native,
  signal: AbortSignal | undefined,
  load: (native: Native) => Promise<NativeLoadedModel | undefined>,
  use: (loaded: NativeLoadedModel) => Used,
): Promise<Used> {
  const ignore = onAbort(signal, () => native.stopLoading());
  let loaded: NativeLoadedModel | undefined;
  try {
    loaded = await load(native);
    signal?.throwIfAborted();
    if (!loaded) throw new TensorRTError('ERR_DISPOSED', 'The model was stopped while it loaded.');
    return use(loaded);
  } catch (error) {
    if (loaded) await native.close();
    throw signal?.aborted ? signal.reason : error;
  } finally {
    ignore();
  }
}
