import { TensorRTError } from '../base/errors.js';
import { loadBinary } from './binary.js';
import type { NativeBinding } from './native/binding.js';

let loaded: { binding: NativeBinding; path: string } | undefined;

/**
 * The compiled addon, loaded on first use.
 * @throws the errors of {@link loadBinary}
 */
export function native(): NativeBinding {
  return load().binding;
}

/** The path of the compiled addon. Loads it. */
export function nativePath(): string {
  return load().path;
}

function load(): { binding: NativeBinding; path: string } {
  if (loaded) return loaded;
  const { exports, path } = loadBinary();
  const binding = exports as NativeBinding;
  binding.initialize(TensorRTError);
  // For a process that exits with work in flight. When the event loop simply runs empty, no work is left.
  process.once('exit', () => binding.stopAll());
  loaded = { binding, path };
  return loaded;
}
