import { type GraphProto, type NodeProto, parseModel } from 'node-tensorrt/onnx';
import { beforeAll, describe, expect, test } from 'vitest';
import { valueTypes } from '../../../../dist/onnx/graph/value-types.js';
import { python } from '../../../oracle/python.js';

const [float32, uint8, int32, int64, bool, float16, float64] = [1, 2, 6, 7, 9, 10, 11];

/** Inputs and nodes of graphs in onnx's text format, by what they are of. */
const graphs = {
  'constants in all their forms': [
    21,
    'float16[2] x',
    `a = Constant<value = double[2] {1, 2}>() b = Constant<value_float = 1.0>() c = Constant<value_floats = [1.0]>()
    d = Constant<value_int = 1>() e = Constant<value_ints = [1]>() f = Constant<value_string = "a">()
    g = Constant<value_strings = ["a"]>() h = ConstantOfShape(e) i = ConstantOfShape<value = int8[1] {1}>(e)`,
  ],
  'casts, and what is quantized and dequantized': [
    21,
    'float16[2] x, float16 scale, int8 zero',
    `a = Cast<to = 11>(x) b = CastLike(x, a) c = QuantizeLinear(x, scale, zero) d = QuantizeLinear(x, scale)
    e = QuantizeLinear<output_dtype = 5>(x, scale) f = DequantizeLinear(c, scale, zero)
    wide = Cast<to = 1>(x) y, s, z = DynamicQuantizeLinear(wide)`,
  ],
  'what is dequantized to a type of its own': [
    23,
    'int8[2] x, float16 scale',
    'a = DequantizeLinear<output_dtype = 1>(x, scale)',
  ],
  'numbers of elements, and where they lie': [
    21,
    'float16[2, 3] x, float[1, 4, 4] boxes, float[1, 2, 4] scores, float16[1, 1, 4, 4] image, int64[1] k',
    `a = Shape(x) b = Size(x) c = NonZero(x) d = ArgMax(x) v, n = TopK(x, k) o = NonMaxSuppression(boxes, scores)
    p, q = MaxPool<kernel_shape = [2, 2]>(image) r, t, u, w = Unique(x) y, m = Dropout(x) z = Equal(x, x)
    nan = IsNaN(x)`,
  ],
  'ranges, choices and what is made of nothing': [
    21,
    'float16[2] x, int64 i, bool b, int32[2] n, int32[2, 2] square, float[1, 2] odds, float16[2] values',
    `a = Range(i, i, i) c = Where(b, x, x) d = OneHot(n, i, values) e = RandomNormal<shape = [2], dtype = 10>()
    f = RandomUniform<shape = [2]>() h = RandomNormalLike(x) j = EyeLike<dtype = 11>(square) k = EyeLike(square)
    l = HannWindow(i) m = HannWindow<output_datatype = 11>(i) o = Bernoulli<dtype = 9>(x) p = Gather(x, n)
    q = Multinomial(odds)`,
  ],
  'outputs behind the first': [
    21,
    'float16[2, 8] x, float16[8] w, float[1, 2, 4] s, float[1, 8, 4] lw, float[1, 8, 2] lr, uint8[2, 2] u, int8[2, 2] v',
    `y, mean, deviation = LayerNormalization(x, w) a, b = Split<num_outputs = 2>(x)
    all, last, cell = LSTM<hidden_size = 2>(s, lw, lr) m = MatMulInteger(u, v)`,
  ],
  'attention with a mask of booleans': [
    23,
    'float16[1, 2, 3, 8] q, float16[1, 2, 3, 8] k, float[1, 2, 3, 8] v, bool[3, 3] mask',
    'y = Attention(q, k, v, mask)',
  ],
  'branches and loops, which read what is around them': [
    21,
    'float16[2] x, int64 n, bool b, float[3, 2] slices',
    `y, z = If(b) <then_branch = t () => (ty, tz) { ty = Add(x, x) tz = Shape(ty) },
                   else_branch = e () => (ey, ez) { ey = Mul(x, x) ez = Shape(x) }>
    state, turns, steps = Loop(n, b, y) <body = l (int64 i, bool go, float16[2] s) => (bool on, r, i2, c) {
      on = Identity(go) r = Add(s, x) i2 = Identity(i) c = Cast<to = 11>(s) }>
    sum, sums = Scan(x, slices) <num_scan_inputs = 1, body = c (float16[2] before, float[2] slice) => (after, each) {
      narrow = CastLike(slice, before) after = Add(before, narrow) each = Cast<to = 11>(after) }>`,
  ],
} as const satisfies Record<string, readonly [opset: number, inputs: string, nodes: string]>;

interface Inferred {
  readonly model: string;
  readonly types: Record<string, number>;
}

describe("what onnx's own inference gives", () => {
  let answers: Record<string, Inferred>;
  beforeAll(() => {
    const texts = Object.entries(graphs).map(([name, [opset, inputs, nodes]]) => [
      name,
      `<ir_version: 10, opset_import: ["" : ${opset}]>
      g (float anchor, ${inputs}) => (float end) { ${nodes} end = Identity(anchor) }`,
    ]);
    const code = `
import base64, json, sys
from onnx import parser, shape_inference
answers = {}
for name, text in json.load(sys.stdin):
    model = parser.parse_model(text)
    graph = shape_inference.infer_shapes(model, check_type=True, strict_mode=True).graph
    types = {v.name: v.type.tensor_type.elem_type for v in [*graph.input, *graph.value_info, *graph.output]}
    answers[name] = {"model": base64.b64encode(model.SerializeToString()).decode(), "types": types}
print(json.dumps(answers))`;
    answers = JSON.parse(python(code, [], JSON.stringify(texts)));
  });

  test.each(Object.keys(graphs))('%s', (name) => {
    const { model, types } = answers[name]!;
    const { graph } = parseModel(Buffer.from(model, 'base64'));
    expect(Object.fromEntries(valueTypes(graph))).toEqual(types);
  });
});

interface Schema {
  readonly name: string;
  readonly version: number;
  readonly inputs: readonly number[];
  /** null where it follows neither from an input's nor from the operator alone. */
  readonly outputs: readonly (number | null)[];
}

test("every operator's outputs have the types that its definition names", () => {
  // Each of a definition's type variables gets a type of its own, where it may have several.
  const code = `
import json, onnx
from onnx import TensorProto, defs
def element(text):
    names = {"float": "FLOAT", "double": "DOUBLE"}
    inner = text.removeprefix("tensor(").removesuffix(")")
    return TensorProto.DataType.Value(names.get(inner, inner.upper())) if text.startswith("tensor(") else None
schemas = []
for schema in defs.get_all_schemas_with_history():
    if schema.domain or schema.deprecated or schema.since_version < 13 or schema.name in ("If", "Loop", "Scan"):
        continue
    types = {}
    for value in schema.inputs:
        if value.type_str not in types:
            known = sorted(element(t) for t in value.types if element(t) is not None)
            types[value.type_str] = next((t for t in known if t not in types.values()), known[0] if known else None)
    inputs = [types[value.type_str] for value in schema.inputs]
    if None in inputs:
        continue
    outputs = []
    for value in schema.outputs:
        fixed = [element(t) for t in value.types]
        outputs.append(types.get(value.type_str, fixed[0] if len(fixed) == 1 else None))
    schemas.append({"name": schema.name, "version": schema.since_version, "inputs": inputs, "outputs": outputs})
print(json.dumps(schemas))`;
  const schemas = JSON.parse(python(code)) as Schema[];
  expect(schemas.length).toBeGreaterThan(200);
  const answers = schemas.map(({ name, version, inputs, outputs }) => {
    const graph = {
      ...graphOf({
        opType: name,
        input: inputs.map((_, i) => `i${i}`),
        output: outputs.map((_, i) => `o${i}`),
        attribute: [],
      }),
      input: inputs.map((elemType, i) => ({ name: `i${i}`, type: { tensorType: { elemType } } })),
    };
    const types = valueTypes(graph);
    const answer = outputs.map((type, i) => (type === null ? null : types.get(`o${i}`)));
    return { name, version, inputs, outputs: answer };
  });
  expect(answers).toEqual(schemas);
});

describe('what the standard says, and onnx does not infer', () => {
  test('what one input has, another whose type is not known has too', () => {
    const custom = { domain: 'custom', opType: 'Thing', input: ['x'], output: ['u'], attribute: [] };
    const add = { opType: 'Add', input: ['u', 'w'], output: ['v'], attribute: [] };
    const mul = { opType: 'Mul', input: ['u', 'u'], output: ['s'], attribute: [] };
    const graph = graphOf(custom, add, mul);
    expect(valueTypes(graph).size).toBe(0);
    const weight = { name: 'w', dims: [1], dataType: float16 };
    const types = valueTypes({ ...graph, initializer: [weight] });
    expect(Object.fromEntries(types)).toEqual({ w: float16, u: float16, v: float16, s: float16 });
  });

  test('what is declared counts, of what an unknown operator gives too', () => {
    const custom = { domain: 'custom', opType: 'Thing', input: ['x'], output: ['u', 'w'], attribute: [] };
    const shape = { opType: 'Relu', input: ['u'], output: ['v'], attribute: [] };
    const declared = [{ name: 'u', type: { tensorType: { elemType: float64 } } }];
    const types = valueTypes({ ...graphOf(custom, shape), valueInfo: declared });
    expect(Object.fromEntries(types)).toEqual({ u: float64, v: float64 });
  });

  test("a sparse constant's type is that of its values", () => {
    const values = { name: 'sparse', dims: [1], dataType: float16 };
    const sparse = { values, indices: { dims: [1], dataType: int64 }, dims: [4] };
    const attribute = [{ name: 'sparse_value', type: 11, sparseTensor: sparse }];
    const constant = { opType: 'Constant', input: [], output: ['c'], attribute };
    const types = valueTypes({ ...graphOf(constant), sparseInitializer: [sparse] });
    expect(Object.fromEntries(types)).toEqual({ sparse: float16, c: float16 });
  });

  // Cast-1: "to: string. The data type … strictly must be one of the types from DataType enum in TensorProto".
  test("before operator set 6 a cast's type is a word", () => {
    const cast = (output: string, to: string) => {
      const attribute = [{ name: 'to', type: 3, s: new TextEncoder().encode(to) }];
      return { opType: 'Cast', input: ['x'], output: [output], attribute };
    };
    const types = valueTypes(
      graphOf(cast('a', 'DOUBLE'), cast('b', 'BOOL'), cast('c', 'FLOAT16'), cast('d', 'FLOTE')),
    );
    expect(Object.fromEntries(types)).toEqual({ a: float64, b: bool, c: float16 });
  });

  test("a loop's body need not say what it is given", () => {
    const body: GraphProto = {
      ...graphOf(
        { opType: 'Identity', input: ['go'], output: ['on'], attribute: [] },
        { opType: 'Identity', input: ['state'], output: ['next'], attribute: [] },
        { opType: 'Identity', input: ['turn'], output: ['which'], attribute: [] },
      ),
      input: [{ name: 'turn' }, { name: 'go' }, { name: 'state' }],
      output: [{ name: 'on' }, { name: 'next' }, { name: 'which' }],
    };
    const loop = {
      opType: 'Loop',
      input: ['', '', 'x'],
      output: ['last', 'turns'],
      attribute: [{ name: 'body', type: 5, g: body }],
    };
    const types = valueTypes({ ...graphOf(loop), initializer: [{ name: 'x', dims: [], dataType: int32 }] });
    expect(Object.fromEntries(types)).toEqual({ x: int32, last: int32, turns: int64 });
  });

  // onnxruntime/docs/ContribOperators.md: the mean and what divides are float, the sum has the input's type.
  test('a residual sum that ONNX Runtime normalizes', () => {
    const node = {
      domain: 'com.microsoft',
      opType: 'SkipSimplifiedLayerNormalization',
      input: ['x', 'x', 'x'],
      output: ['y', 'mean', 'divisor', 'sum'],
      attribute: [],
    };
    const types = valueTypes({ ...graphOf(node), initializer: [{ name: 'x', dims: [], dataType: float16 }] });
    expect(Object.fromEntries(types)).toEqual({
      x: float16,
      y: float16,
      mean: float32,
      divisor: float32,
      sum: float16,
    });
  });

  test('sequences and optionals are no tensors', () => {
    const split = { opType: 'SplitToSequence', input: ['x'], output: ['list'], attribute: [] };
    const at = { opType: 'SequenceAt', input: ['list', 'x'], output: ['one'], attribute: [] };
    const has = { opType: 'OptionalHasElement', input: ['list'], output: ['is'], attribute: [] };
    const graph = { ...graphOf(split, at, has), initializer: [{ name: 'x', dims: [], dataType: uint8 }] };
    expect(Object.fromEntries(valueTypes(graph))).toEqual({ x: uint8, is: bool });
  });
});

function graphOf(...node: NodeProto[]): GraphProto {
  return { node, initializer: [], input: [], output: [], valueInfo: [] };
}
