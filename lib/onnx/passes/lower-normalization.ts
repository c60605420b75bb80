import type { FloatType } from '../format/float-tensor.js';
import type { ModelProto, NodeProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { floatAttribute, intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import { raiseOpset } from '../graph/raise-opset.js';

/** An operator set with LayerNormalization, and with reductions whose axes are an input. */
const opset = 18;

/**
 * Rewrites ONNX Runtime's own normalisations as standard operators, including those that begin with a sum. RMS
 * normalisation is written out the way TensorRT's newer parsers expand RMSNormalization, because older ones don't know
 * that operator. Like those parsers, it computes in float32.
 *
 * @param type the type that the model computes in
 */
export function lowerNormalization(model: ModelProto, type: FloatType = 'float32'): ModelProto {
  const isOwn = (node: NodeProto) => own.test(operatorName(node));
  if (!model.graph.node.some(isOwn)) return model;
  const editor = new EditableGraph(raiseOpset(model, opset));
  for (const node of [...editor.nodes].filter(isOwn)) lower(editor, node, type);
  return editor.finish();
}

const own =
  /^(com\.microsoft\.)?(SimplifiedLayerNormalization|SkipSimplifiedLayerNormalization|SkipLayerNormalization)$/;

function lower(editor: EditableGraph, node: NodeProto, type: FloatType): void {
  editor.removeNode(node);
  const [input, second] = node.input as [string, string];
  if (!node.opType.startsWith('Skip')) {
    normalizeRms(editor, node, type, input, second);
    return;
  }
  const isRms = node.opType === 'SkipSimplifiedLayerNormalization';
  const [gamma, beta, bias] = isRms
    ? [node.input[2]!, undefined, node.input[3]]
    : [node.input[2]!, node.input[3], node.input[4]];
  const name = `${node.name || node.output[0]}/sum`;
  const sum = node.output[3] || editor.uniqueName(name);
  const first = bias ? editor.addValue('Add', [input, bias], {}, { name: `${name}/bias` }) : input;
  editor.addNode('Add', [first, second], {}, { name, outputs: [sum] });
  if (isRms) normalizeRms(editor, node, type, sum, gamma);
  else {
    const weights = beta ? [gamma, beta] : [gamma];
    const attributes = { axis: -1, epsilon: { float: floatAttribute(node, 'epsilon', 1e-5) } };
    editor.addNode('LayerNormalization', [sum, ...weights], attributes, {
      name: part(node),
      outputs: [node.output[0]!],
    });
  }
}

/** Writes x / √(mean of x² + ε) · γ. */
function normalizeRms(
  editor: EditableGraph,
  node: NodeProto,
  type: FloatType,
  input: string,
  gamma: string,
): void {
  const named = (step: string) => ({ name: `${part(node)}/${step}` });
  const axes = editor.addVector([intAttribute(node, 'axis', -1)]);
  const exact = editor.addCast(input, type, 'float32', named('float32'));
  const squares = editor.addValue('Mul', [exact, exact], {}, named('squares'));
  const mean = editor.addValue('ReduceMean', [squares, axes], { keepdims: 1 }, named('mean'));
  const epsilon = editor.addScalar(floatAttribute(node, 'epsilon', 1e-5));
  const sum = editor.addValue('Add', [mean, epsilon], {}, named('epsilon'));
  const root = editor.addValue('Sqrt', [sum], {}, named('root'));
  const normal = editor.addValue('Div', [exact, root], {}, named('normal'));
  const rounded = editor.addCast(normal, 'float32', type, named('rounded'));
  editor.addNode('Mul', [rounded, gamma], {}, { ...named('scale'), outputs: [node.output[0]!] });
}

function part(node: NodeProto): string {
  return `${node.name || node.output[0]}/normalization`;
}
