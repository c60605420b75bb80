import { dataTypes } from '../../base/data-type.js';
import type { DecoderGraph } from '../../base/decoder-graph.js';
import { TensorRTError } from '../../base/errors.js';
import type { ModelProto } from '../format/model.js';
import { valueType } from '../graph/declared-values.js';
import { EditableGraph } from '../graph/editable-graph.js';

/** The number of a row's logits that a step copies back from a GPU. */
export const topLogits = 256;

/**
 * Adds outputs with the {@link topLogits} best logits of each row, their tokens, and the log of the sum of the
 * exponentials of all logits. The logits stay an output: float32 `[rows, vocabulary]`, of the last position if the
 * model returns all positions.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED if the logits aren't a floating-point tensor with a fixed vocabulary
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
  const editor = new EditableGraph(model);
  const name = (part: string) => ({ name: `top/${part}` });
  if (rank === 3 || type !== 'float32') {
    let value = editor.rename(graph.logits);
    if (rank === 3)
      value = editor.addValue('Gather', [value, editor.addIndex(-1)], { axis: 1 }, name('last'));
    const outputs = [graph.logits];
    if (type === 'float32') editor.addNode('Identity', [value], {}, { ...name('logits'), outputs });
    else editor.addNode('Cast', [value], { to: dataTypes.float32.onnx }, { ...name('logits'), outputs });
    editor.declareOutput(graph.logits, 'float32', ['rows', vocabulary]);
  }
  const k = Math.min(topLogits, vocabulary);
  const [logits, indices, tokens, logSumExp] = [
    'top.logits',
    'top.indices',
    'top.tokens',
    'top.log_sum_exp',
  ].map((each) => editor.uniqueName(each)) as [string, string, string, string];
  editor.addNode(
    'TopK',
    [graph.logits, editor.addVector([k])],
    { axis: 1, largest: 1, sorted: 1 },
    {
      ...name('best'),
      outputs: [logits, indices],
    },
  );
  editor.addNode('Cast', [indices], { to: dataTypes.int32.onnx }, { ...name('tokens'), outputs: [tokens] });
  // ReduceLogSumExp isn't used: TensorRT's parser writes it without subtracting the largest first, which overflows.
  const one = editor.addVector([1]);
  const largest = editor.addValue('Slice', [logits, editor.addVector([0]), one, one], {}, name('largest'));
  const distances = editor.addValue('Sub', [graph.logits, largest], {}, name('distances'));
  const parts = editor.addValue('Exp', [distances], {}, name('exponentials'));
  const sum = editor.addValue('ReduceSum', [parts, one], { keepdims: 1 }, name('sum'));
  const log = editor.addValue('Log', [sum], {}, name('log'));
  const whole = editor.addValue('Add', [log, largest], {}, name('log_sum_exp'));
  editor.addNode('Squeeze', [whole, one], {}, { ...name('row'), outputs: [logSumExp] });
  editor.declareOutput(logits, 'float32', ['rows', k]);
  editor.declareOutput(tokens, 'int32', ['rows', k]);
  editor.declareOutput(logSumExp, 'float32', ['rows']);
  return { model: editor.finish(), graph: { ...graph, top: { logits, tokens, logSumExp } } };
}
