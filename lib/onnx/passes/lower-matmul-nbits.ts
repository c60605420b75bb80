import { dataTypes } from '../../base/data-type.js';
import { TensorRTError } from '../../base/errors.js';
import { type FloatType, floatElements, floatTensor } from '../format/float-tensor.js';
import { type ExternalDataOptions, tensorElements } from '../format/initializer.js';
import type { ModelProto, NodeProto, TensorProto } from '../format/model.js';
import { madeFrom } from '../format/weight-origin.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import { raiseOpset } from '../graph/raise-opset.js';

/** ONNX's number for the element type with two signed integers per byte (onnx.proto, `TensorProto.INT4`). */
const int4 = 22;

/** The first operator set with block-wise DequantizeLinear. */
const opset = 21;

export function isMatMulNBits(node: NodeProto): boolean {
  return operatorName(node) === 'com.microsoft.MatMulNBits';
}

/** Options of {@link lowerMatMulNBits}. */
export interface LowerMatMulNBitsOptions extends ExternalDataOptions {
  /** The type that the model computes in. */
  readonly from: FloatType;
  /** The type that products are computed in. */
  readonly type: FloatType;
  /** The names of the outputs of products that are computed in `from` instead of `type`. */
  readonly exact?: ReadonlySet<string>;
}

/**
 * Lowers com.microsoft's MatMulNBits, with 4 or 8 bits per weight, to block-wise DequantizeLinear (operator set 21) and
 * MatMul. The weights don't grow.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED, naming the node and the feature that TensorRT lacks
 */
export function lowerMatMulNBits(model: ModelProto, options: LowerMatMulNBitsOptions): ModelProto {
  if (!model.graph.node.some(isMatMulNBits)) return model;
  const editor = new EditableGraph(raiseOpset(model, opset));
  const known = new Map<string, Dequantizable>();
  const { from, type, exact, ...where } = options;
  for (const node of [...editor.nodes].filter(isMatMulNBits)) {
    const isExact = exact?.has(node.output[0]!);
    lower(editor, node, { ...where, from, type: isExact ? from : type }, known);
  }
  return editor.finish();
}

// The operator's definition (onnxruntime/docs/ContribOperators.md): A is [.., K]. B is [N, blocks, blockSize * bits /
// 8], with the first of two weights in a byte's low half. The scales are [N, blocks]. Zero points are either unsigned
// and packed in the same way along a row, or of the scales' type; without them, the middle of the range is the zero
// point.
function lower(
  editor: EditableGraph,
  node: NodeProto,
  { from, type, ...where }: LowerMatMulNBitsOptions,
  known: Map<string, Dequantizable>,
): void {
  const [input, weights, scales, zeroPoints, order, bias] = node.input as [
    string,
    string,
    string,
    ...string[],
  ];
  const [k, n] = [intAttribute(node, 'K', 0), intAttribute(node, 'N', 0)];
  const bits = intAttribute(node, 'bits', 4);
  const blockSize = intAttribute(node, 'block_size', 0);
  const blocks = Math.ceil(k / blockSize);
  if (bits !== 4 && bits !== 8) throw unsupported(node, `has weights of ${bits} bits`);
  if (order) throw unsupported(node, 'has its weights in another order ("g_idx")');
  if (k % blockSize !== 0)
    throw unsupported(node, `has blocks of ${blockSize}, which don't divide its ${k} inputs`);
  const [packed, scale] = [editor.initializer(weights), editor.initializer(scales)];
  if (!packed || !scale) throw unsupported(node, 'computes its weights');
  const label = (part: string) => ({ name: `${node.name || node.output[0]}/${part}` });

  const quantization = { bits, n, blocks, blockSize, where, from, type };
  const key = [weights, scales, zeroPoints ?? '', type].join(' ');
  const values = known.get(key) ?? dequantizable(editor, node, packed, scale, zeroPoints, quantization);
  known.set(key, values);
  const dequantized = editor.addValue(
    'DequantizeLinear',
    [values.weight, values.scales],
    { axis: 1, block_size: blockSize },
    label('weight'),
  );
  const transposed = editor.addValue('Transpose', [dequantized], { perm: [1, 0] }, label('transposed'));
  const rounded = editor.addCast(input, from, type, label('input'));
  const own = editor.addValue('MatMul', [rounded, transposed], {}, label('product'));
  let product = editor.addCast(own, type, from, label('output'));

  if (values.shifts) {
    const rows = editor.addValue('Shape', [input], { end: -1 }, label('rows'));
    const dims = [rows, editor.addVector([blocks, blockSize])];
    const shape = editor.addValue('Concat', dims, { axis: 0 }, label('blocks/shape'));
    const split = editor.addValue('Reshape', [input, shape], {}, label('blocks'));
    const axes = editor.addVector([-1]);
    const sums = editor.addValue('ReduceSum', [split, axes], { keepdims: 0 }, label('sums'));
    const shifted = editor.addValue('MatMul', [sums, values.shifts], {}, label('shift'));
    product = editor.addValue('Add', [product, shifted], {}, label('shifted'));
  }
  if (bias) product = editor.addValue('Add', [product, bias], {}, label('biased'));
  editor.removeNode(node);
  const last = editor.producer(product)!;
  editor.replaceNode(last, { ...last, output: node.output });
}

interface Quantization {
  /** Bits per weight: 4 or 8. */
  readonly bits: number;
  readonly n: number;
  readonly blocks: number;
  readonly blockSize: number;
  readonly where: ExternalDataOptions;
  readonly from: FloatType;
  readonly type: FloatType;
}

/** The names of a product's recoded weights. */
interface Dequantizable {
  /** int4 or int8 `[n, blocks * blockSize]`. */
  readonly weight: string;
  /** `[n, blocks]`. */
  readonly scales: string;
  /**
   * `[blocks, n]`. Each is multiplied by the sum of its block's inputs and added to the product; undefined if all are
   * zero.
   */
  readonly shifts: string | undefined;
}

/**
 * Recodes weights for TensorRT, which has no zero points. Over a block, Σ (w - z) s x = Σ (w - m) s x + (m - z) s Σ x,
 * where z is the zero point and m the middle of the range. An unsigned number minus the middle is the signed number
 * with the highest bit inverted. The scales of 8-bit weights must also be positive: v s = ~v (-s) - s.
 */
function dequantizable(
  editor: EditableGraph,
  node: NodeProto,
  packed: TensorProto,
  scale: TensorProto,
  zeroPoints: string | undefined,
  { bits, n, blocks, blockSize, where, from, type }: Quantization,
): Dequantizable {
  const flip = bits === 4 ? 0x88 : 0x80;
  const bytes = (tensorElements(packed, where) as Uint8Array).map((byte) => byte ^ flip);
  const scales = Float32Array.from(floatElements(scale, where));
  const middle = 2 ** (bits - 1);
  const pointOf = zeroPoints ? zeroPointsOf(editor, node, zeroPoints, bits, blocks, where) : () => middle;
  const shifts = new Float32Array(blocks * n);
  for (let row = 0; row < n; row++) {
    for (let block = 0; block < blocks; block++) {
      const i = row * blocks + block;
      const factor = scales[i]!;
      let shift = (middle - pointOf(row, block)) * factor;
      if (bits === 8 && !(factor > 0)) {
        const start = i * blockSize;
        for (let j = start; j < start + blockSize; j++) bytes[j] = factor < 0 ? ~bytes[j]! : 0;
        scales[i] = factor < 0 ? -factor : 1;
        shift -= factor;
      }
      shifts[block * n + row] = shift;
    }
  }
  const points = zeroPoints ? editor.initializer(zeroPoints) : undefined;
  const signed: TensorProto = {
    name: editor.uniqueName(`${packed.name}.signed`),
    dataType: bits === 4 ? int4 : dataTypes.int8.onnx,
    dims: [n, blocks * blockSize],
    rawData: bytes,
  };
  const positive = floatTensor(editor.uniqueName(`${scale.name}.matrix`), type, [n, blocks], scales);
  const shift = floatTensor(editor.uniqueName(`${scale.name}.shifts`), from, [blocks, n], shifts);
  return {
    weight: editor.addTensor(madeFrom(signed, bits === 8 ? [packed, scale] : [packed], 'recoded')),
    scales: editor.addTensor(madeFrom(positive, [scale], 'recoded')),
    shifts: shifts.some((each) => each !== 0)
      ? editor.addTensor(madeFrom(shift, points ? [scale, points] : [scale], 'recoded'))
      : undefined,
  };
}

function zeroPointsOf(
  editor: EditableGraph,
  node: NodeProto,
  name: string,
  bits: number,
  blocks: number,
  where: ExternalDataOptions,
): (row: number, block: number) => number {
  const tensor = editor.initializer(name);
  if (!tensor) throw unsupported(node, 'computes its zero points');
  if (tensor.dataType !== dataTypes.uint8.onnx) {
    const points = floatElements(tensor, where);
    return (row, block) => points[row * blocks + block]!;
  }
  const points = tensorElements(tensor, where) as Uint8Array;
  const bytesPerRow = Math.ceil((blocks * bits) / 8);
  return (row, block) => {
    if (bits === 8) return points[row * bytesPerRow + block]!;
    const byte = points[row * bytesPerRow + (block >> 1)]!;
    return block & 1 ? byte >> 4 : byte & 15;
  };
}

function unsupported(node: NodeProto, problem: string): TensorRTError {
  return new TensorRTError(
    'ERR_MODEL_UNSUPPORTED',
    `TensorRT can't run the node "${node.name || node.output[0]}" (MatMulNBits): it ${problem}.`,
  );
}
