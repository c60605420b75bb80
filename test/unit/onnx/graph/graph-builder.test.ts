import { InferenceSession } from 'node-tensorrt';
import { GraphBuilder, parseModel, serializeModel } from 'node-tensorrt/onnx';
import { expect, test } from 'vitest';
import { python } from '../../../oracle/python.js';

const withCode = (code: string) => expect.objectContaining({ code });

function small(): GraphBuilder {
  const g = new GraphBuilder('small');
  const x = g.input('x', 'float32', ['batch', 4]);
  const w = g.initializer('w', 'float32', [4, 2], Float32Array.of(1, 2, 3, 4, 5, 6, 7, 8));
  const y = g.scope('layer', () => g.op('MatMul', [x, w]));
  const [top] = g.op('Split', [g.op('Add', [y, g.scalar(1)])], { axis: 1, num_outputs: 2 }, { outputs: 2 });
  g.op('Reshape', [top!, g.vector([-1, 1])], { allowzero: 0 }, { outputs: ['z'] });
  g.output('z', 'float32', ['batch', 1]);
  return g;
}

test("what it writes passes onnx's checker and runs as written", async () => {
  const bytes = serializeModel(small().finish());
  python('import onnx, sys; onnx.checker.check_model(sys.stdin.buffer.read(), full_check=True)', [], bytes);
  await using session = await InferenceSession.create(bytes);
  const data = Float32Array.of(1, 0, 0, 1);
  const { z } = await session.run({ x: { type: 'float32', dims: [1, 4], data } });
  expect([...(z!.data as Float32Array)]).toEqual([1 + 7 + 1]);
});

test('names are unique, scoped, and constants stored once', () => {
  const g = new GraphBuilder('g');
  const x = g.input('x', 'float32', [1]);
  expect(g.scalar(1)).toBe(g.scalar(1));
  expect(g.scalar(0)).not.toBe(g.scalar(-0));
  g.scope('a', () => {
    g.op('Relu', [x]);
    g.op('Relu', [x], {}, { outputs: ['y'] });
  });
  g.output('y', 'float32', [1]);
  const { graph } = parseModel(serializeModel(g.finish()));
  expect(graph.node.map((node) => node.name)).toEqual(['a.Relu', 'a.Relu.1']);
});

test('mistakes are refused where they are made', () => {
  const g = new GraphBuilder('g');
  const x = g.input('x', 'float32', [1]);
  const refused = withCode('ERR_INVALID_ARG_VALUE');
  expect(() => g.op('Relu', ['absent'])).toThrow(refused);
  expect(() => g.op('Relu', [x], {}, { outputs: ['x'] })).toThrow(refused);
  expect(() => g.input('x', 'float32', [1])).toThrow(refused);
  expect(() => g.output('absent', 'float32', [1])).toThrow(refused);
  expect(() => g.initializer('w', 'float32', [2], new Float32Array(3))).toThrow(refused);
  expect(() => g.op('Cast', [x], { to: {} as never })).toThrow(withCode('ERR_INVALID_ARG_TYPE'));
  expect(() => g.finish()).toThrow(refused);
});
