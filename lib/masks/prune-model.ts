import { checkPath } from '../base/options.js';
import { contentsOf, type MaskSet } from './mask-set.js';
import type { PruneModelOptions } from './prune-model-options.js';

// Importing the package doesn't load the code that reads models. The first call loads it without waiting, so that
// arguments are read before the call returns.
const writing = () => require('./write-pruned.js') as typeof import('./write-pruned.js');

/**
 * Writes a model whose weights are masked: elements that a mask drops are zero. The file has the same graph, so that it
 * runs wherever the given one runs, at the same speed unless a runtime makes use of zeros; with `shrink`, neurons that
 * masks empty are removed from it. Weights that lie in other files go to one file beside the new model, named after it with
 * `.data` appended; they are masked piece by piece, and never all in memory.
 * @param model the path of an `.onnx` file. It isn't changed
 * @param out the path of the file to write. If writing fails, none is left
 * @throws (rejects) TypeError ERR_INVALID_ARG_TYPE; RangeError ERR_INVALID_ARG_VALUE; TensorRTError ERR_MASK_MISMATCH if
 *   a mask is for another model: its weight is missing, has other dimensions, another type or other elements;
 *   ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO; the signal's reason
 */
export async function pruneModel(
  model: string,
  masks: MaskSet,
  out: string,
  options: PruneModelOptions = {},
): Promise<void> {
  checkPath(model, 'model');
  const contents = contentsOf(masks, 'masks');
  checkPath(out, 'out');
  await writing().writePruned(model, contents, out, options);
}
