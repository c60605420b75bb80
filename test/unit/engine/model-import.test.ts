import { mkdtemp, rm } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import {
  type AttributeProto,
  AttributeType,
  GraphBuilder,
  type ModelProto,
  writeModel,
} from 'node-tensorrt/onnx';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { importModel } from '../../../dist/engine/model-import.js';
import { decoderModel } from '../../decoder-fixture.js';

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'import-'));
});
afterAll(() => rm(directory, { recursive: true }));

const fixture = (name: string) => path.join(import.meta.dirname, '../../fixtures/session', name);

/** A model with operators of several domains. */
async function save(g: GraphBuilder, change: (model: ModelProto) => void = () => {}): Promise<string> {
  const model = g.finish();
  model.opsetImport = [
    { domain: '', version: 24 },
    { domain: 'acme', version: 1 },
    { domain: 'com.microsoft', version: 1 },
  ];
  change(model);
  const file = path.join(directory, `${model.graph.name}.onnx`);
  await writeModel(model, file);
  return file;
}

describe("TensorRT's parser", () => {
  test('makes a network of what it can import', async () => {
    const { library, network, failures, unchecked } = await importModel(fixture('linear.onnx'));
    expect(library).toMatchObject({ flavour: 'rtx', version: expect.stringMatching(/^1\./) });
    expect(network!.inputs).toEqual([{ name: 'x', type: 'float32', dims: [-1, 4] }]);
    expect(network!.layers.map(({ type }) => type)).toContain('MATRIX_MULTIPLY');
    expect({ failures, unchecked }).toEqual({ failures: [], unchecked: [] });
  });

  test('names every node that fails, beyond the first', async () => {
    const g = new GraphBuilder('several');
    const x = g.input('x', 'float32', ['batch', 4, 8]);
    const foo = g.op('Foo', [x], {}, { name: 'foo', domain: 'acme' });
    const after = g.op('Relu', [foo], {}, { name: 'after foo' });
    const three = g.op('TensorScatter', [x, x], {}, { name: 'scatter' });
    const group = { num_heads: 2, kv_num_heads: 2 };
    const attention = g.op('GroupQueryAttention', [x, x, x], group, { name: 'gqa', domain: 'com.microsoft' });
    g.op('Sum', [after, three, attention], {}, { outputs: ['y'], name: 'sum' });
    g.output('y', 'float32', ['batch', 4, 8]);
    const { network, failures, unchecked } = await importModel(await save(g));
    expect(network).toBeNull();
    expect(failures.map(({ node, operator }) => [node, operator])).toEqual([
      ['foo', 'acme.Foo'],
      ['scatter', 'TensorScatter'],
      ['gqa', 'com.microsoft.GroupQueryAttention'],
    ]);
    expect(failures[0]!.reason).toMatch(/neither an operator nor a plugin/);
    expect(failures[1]!.reason).toMatch(/4D, got 3D/);
    expect(unchecked).toEqual(['after foo', 'sum']);
  });

  test('continues after a node whose result has a recorded shape', async () => {
    const g = new GraphBuilder('recorded');
    const x = g.input('x', 'float32', ['batch', 4, 8]);
    const first = g.op('TensorScatter', [x, x], {}, { name: 'first' });
    g.op('TensorScatter', [first, first], {}, { name: 'second', outputs: ['y'] });
    g.output('y', 'float32', ['batch', 4, 8]);
    const recorded = await save(g, ({ graph }) => {
      graph.valueInfo.push({ ...graph.input[0]!, name: String(first) });
    });
    const names = async (file: string) => (await importModel(file)).failures.map(({ node }) => node);
    expect(await names(recorded)).toEqual(['first', 'second']);
  });

  test('in the branch of a condition', async () => {
    const branch = (name: string) => {
      const body = new GraphBuilder(name);
      const half = body.initializer(`${name} half`, 'float32', [2], Float32Array.of(0.5, 0.5));
      body.op(name, [half], {}, { outputs: [`${name} y`], name, domain: name === 'Foo' ? 'acme' : '' });
      body.output(`${name} y`, 'float32', [2]);
      return body.finish().graph;
    };
    const g = new GraphBuilder('conditional');
    const condition = g.input('condition', 'bool', []);
    g.op('If', [condition], {}, { outputs: ['y'], name: 'if' });
    g.output('y', 'float32', [2]);
    const file = await save(g, ({ graph }) => {
      for (const [name, body] of [
        ['then_branch', branch('Foo')] as const,
        ['else_branch', branch('Relu')] as const,
      ]) {
        graph.node[0]!.attribute.push({ name, type: AttributeType.GRAPH, g: body } as AttributeProto);
      }
    });
    const { failures } = await importModel(file);
    expect(failures).toEqual([{ node: 'Foo', operator: 'Foo', reason: expect.stringMatching(/neither/) }]);
  });

  test.each([
    ['no file', 'absent.onnx', 'ERR_MODEL_NOT_FOUND'],
    ['no model', '../session/external.bin', 'ERR_MODEL_INVALID'],
  ])('%s', async (_, name, code) => {
    await expect(importModel(fixture(name))).rejects.toThrow(expect.objectContaining({ code }));
  });

  test("isn't trusted when it accepts attention up to a length per row but attends to all keys", async () => {
    const { network, failures } = await importModel(decoderModel('llama/tensor-scatter'));
    expect(network).toBeNull();
    const attentions = failures.filter(({ operator }) => operator === 'Attention');
    expect(attentions.map(({ reason }) => reason)).toEqual([
      expect.stringMatching(/^TensorRT's parser ignores nonpad_kv_seqlen/),
      expect.stringMatching(/^TensorRT's parser ignores nonpad_kv_seqlen/),
    ]);
  });

  test('stops for a signal', async () => {
    const reason = new Error('enough');
    await expect(importModel(fixture('linear.onnx'), { signal: AbortSignal.abort(reason) })).rejects.toBe(
      reason,
    );
  });
});
