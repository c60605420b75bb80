import { dataTypes } from '../data-type.js';
import { TensorRTError } from '../errors.js';
import type { DecoderGraph } from '../native.js';
import { GraphEditor } from './graph-editor.js';
import type { ModelProto } from './model.js';
import { valueType } from './value-type.js';

/** How many of a row's logits a step copies back from a GPU. */
export const topLogits = 256;

/**
 * Adds outputs with the {@link topLogits} best logits of each row, their tokens and the log of the sum of the
 * exponentials of all of them. Logits stay an output: float32 `[rows, vocabulary]`, of
 * the last position where the model gives those of all.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED where they are no such tensor
 */
export function addTopKHead(
  model: ModelProto,
  graph: DecoderGraph,
): { model: ModelProto; graph: DecoderGraph } {
  const { type, shape } = valueType(model.graph.output.find(({ name }) => name === graph.logits)!);
  const vocabulary = shape?.at(-1);
  const rank = shape?.length;
  const isFloat = type === 'float32' || type === 'float16' || type === 'bfloat16';
  if (!isFloat || (rank !== 2 && rank !== 3) || typeof vocabulary !== 'number') {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `The output "${graph.logits}" is ${type} [${shape}]: it needs the size of the vocabulary.`,
    );
  }
  const editor = new GraphEditor(model);
  const name = (part: string) => ({ name: `top/${part}` });
  if (rank === 3 || type !== 'float32') {
    let value = editor.rename(graph.logits);
    if (rank === 3) value = editor.op('Gather', [value, editor.index(-1)], { axis: 1 }, name('last'));
    const outputs = [graph.logits];
    if (type === 'float32') editor.op('Identity', [value], {}, { ...name('logits'), outputs });
    else editor.op('Cast', [value], { to: dataTypes.float32.onnx }, { ...name('logits'), outputs });
    editor.setOutput(graph.logits, 'float32', ['rows', vocabulary]);
  }
  const k = Math.min(topLogits, vocabulary);
  const [logits, indices, tokens, logSumExp] = [
    'top.logits',
    'top.indices',
    'top.tokens',
    'top.log_sum_exp',
  ].map((each) => editor.unique(each)) as [string, string, string, string];
  editor.op(
    'TopK',
    [graph.logits, editor.vector([k])],
    { axis: 1, largest: 1, sorted: 1 },
    {
      ...name('best'),
      outputs: [logits, indices],
    },
  );
  editor.op('Cast', [indices], { to: dataTypes.int32.onnx }, { ...name('tokens'), outputs: [tokens] });
  // Not ReduceLogSumExp: TensorRT's parser writes it without taking the largest out first, which overflows.
  const one = editor.vector([1]);
  const largest = editor.op('Slice', [logits, editor.vector([0]), one, one], {}, name('largest'));
  const distances = editor.op('Sub', [graph.logits, largest], {}, name('distances'));
  const parts = editor.op('Exp', [distances], {}, name('exponentials'));
  const sum = editor.op('ReduceSum', [parts, one], { keepdims: 1 }, name('sum'));
  const log = editor.op('Log', [sum], {}, name('log'));
  const whole = editor.op('Add', [log, largest], {}, name('log_sum_exp'));
  editor.op('Squeeze', [whole, one], {}, { ...name('row'), outputs: [logSumExp] });
  editor.setOutput(logits, 'float32', ['rows', k]);
  editor.setOutput(tokens, 'int32', ['rows', k]);
  editor.setOutput(logSumExp, 'float32', ['rows']);
  return { model: editor.finish(), graph: { ...graph, top: { logits, tokens, logSumExp } } };
}
