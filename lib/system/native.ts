import { TensorRTError } from '../base/errors.js';
import { loadBinary } from './binary.js';
import type { NativeBinding } from './native/binding.js';

let loaded: { binding: NativeBinding; path: string } | undefined;

/**
 * The compiled addon, loaded on first use.
 * @throws what {@link loadBinary} throws
 */
export function native(): NativeBinding {
  return load().binding;
}

/** The file of the compiled addon. Loads it. */
export function nativePath(): string {
  return load().path;
}

function load(): { binding: NativeBinding; path: string } {
  if (loaded) return loaded;
  const { exports, path } = loadBinary();
  const binding = exports as NativeBinding;
  binding.initialize(TensorRTError);
  // This is for a process that exits with work in flight. If the event loop just ends, no work is.
  process.once('exit', () => binding.stopAll());
  loaded = { binding, path };
  return loaded;
}
