import { Tensor } from 'node-tensorrt';
import { GraphBuilder, measureRanges } from 'node-tensorrt/onnx';
import { expect, test } from 'vitest';

test("measures every operator's float32 values, and no others", async () => {
  const g = new GraphBuilder('detection');
  const boxes = g.input('boxes', 'float32', [1, 2, 4]);
  const scores = g.input('scores', 'float32', [1, 1, 2]);
  const doubled = g.op('Mul', [scores, g.scalar(2)], {}, { outputs: ['doubled'] })[0]!;
  // Integers, which no graph needs to declare.
  const chosen = g.op(
    'NonMaxSuppression',
    [boxes, doubled, g.scalar(2, 'int64')],
    {},
    { outputs: ['chosen'] },
  );
  g.op('Identity', chosen, {}, { outputs: ['y'] });
  g.output('y', 'int64', ['n', 3]);
  const calibration = [
    {
      boxes: new Tensor('float32', new Float32Array([0, 0, 1, 1, 0, 2, 1, 3]), [1, 2, 4]),
      scores: new Tensor('float32', new Float32Array([0.25, 0.75]), [1, 1, 2]),
    },
  ];
  const { report, values } = await measureRanges(g.finish(), { calibration });
  expect(report).toEqual({ source: 'calibration', samples: 1 });
  expect(Object.fromEntries(values)).toEqual({
    boxes: { least: 0, most: 3 },
    scores: { least: 0.25, most: 0.75 },
    doubled: { least: 0.5, most: 1.5 },
  });
});
