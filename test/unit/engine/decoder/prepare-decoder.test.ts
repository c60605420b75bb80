import { mkdtempSync, renameSync, rmSync } from 'node:fs';
import { copyFile, mkdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { afterAll, describe, expect, it } from 'vitest';
import { prepareDecoder } from '../../../../dist/engine/decoder/prepare-decoder.js';
import { isGroupQueryAttention } from '../../../../lib/onnx/decoder/lift-group-query-attention.js';
import { readModel } from '../../../../lib/onnx/format/model-file.js';
import { writeBeside } from '../../../../lib/onnx/format/write-beside.js';
import { attributeProto } from '../../../../lib/onnx/graph/graph-builder.js';
import { decoderModel } from '../../../decoder-fixture.js';

const folder = mkdtempSync(path.join(tmpdir(), 'prepare-decoder-'));
afterAll(() => rmSync(folder, { recursive: true }));
const memo = path.join(folder, 'memo.json');

const prepared = (model: string) =>
  prepareDecoder({ model, directory: mkdtempSync(path.join(folder, 'rewritten-')), maxLength: 256, memo });

describe('prepareDecoder', () => {
  it.each(['llama/optimum', 'llama/dynamo-23', 'llama/genai', 'llama/tensor-scatter', 'llama/static-cache'])(
    'lets %s update its cache in place, and says by how much logits differ',
    async (fixture) => {
      const { file, graph, why, facts } = await prepared(decoderModel(fixture));
      expect(graph.mode).toBe('in-place');
      expect(graph.inputs).toMatchObject({ last_indices: 'last_indices', longest: 'longest' });
      expect(file.startsWith(folder)).toBe(true);
      expect(facts).toMatchObject({
        layers: 2,
        vocabulary: 320,
        cacheType: 'float32',
        cacheBytesPerToken: 512,
      });
      expect(Number(/differ .* by (\S+) of the largest/.exec(why)![1])).toBeLessThan(1e-5);
    },
  );

  it.each(['llama/genai', 'llama/dynamo-24'])(
    "%s: finds weights behind the links of a hub's cache, and leaves them untouched",
    async (fixture) => {
      const exported = decoderModel(fixture);
      const cache = mkdtempSync(path.join(folder, 'hub-'));
      await mkdir(path.join(cache, 'blobs'));
      await mkdir(path.join(cache, 'snapshots/main'), { recursive: true });
      const link = async (name: string, blob: string) => {
        await copyFile(path.join(path.dirname(exported), name), path.join(cache, 'blobs', blob));
        await symlink(`../../blobs/${blob}`, path.join(cache, 'snapshots/main', name));
      };
      await link('model.onnx', '3f5a');
      await link('model.onnx.data', 'c01d');
      const weights = path.join(cache, 'blobs/c01d');
      const before = await stat(weights, { bigint: true });
      const { graph, why } = await prepared(path.join(cache, 'snapshots/main/model.onnx'));
      expect(graph.mode, why).toBe('in-place');
      const { ctimeNs, nlink } = await stat(weights, { bigint: true });
      expect({ ctimeNs, nlink }).toEqual({ ctimeNs: before.ctimeNs, nlink: 1n });
    },
  );

  it("remembers the check's verdict for this model and length", async () => {
    const entries = Object.values(JSON.parse(await readFile(memo, 'utf8'))) as { value: { key: string } }[];
    expect(entries.length).toBeGreaterThanOrEqual(5);
    const disagreeing = JSON.stringify(
      Object.fromEntries(
        Object.entries(JSON.parse(await readFile(memo, 'utf8'))).map(([key, entry]) => {
          const { stamp, value } = entry as { stamp: string; value: object };
          return [key, { stamp, value: { ...value, agree: false, difference: 7 } }];
        }),
      ),
    );
    await writeFile(memo, disagreeing);
    // The second one's weights are beside it, and were linked.
    for (const fixture of ['llama/optimum', 'llama/genai']) {
      const { file, graph, why } = await prepared(decoderModel(fixture));
      expect(graph.mode).toBe('copying');
      expect(file).toBe(decoderModel(fixture));
      expect(why).toMatch(/copies its cache in each step: rewritten, it gives other logits.*7/);
    }
  });

  it('remembers nothing about a file that replaced the checked one', async () => {
    for (let delay = 60; delay < 360; delay += 50) {
      const replaced = mkdtempSync(path.join(folder, 'replaced-'));
      const model = path.join(replaced, 'exported.onnx');
      const other = path.join(replaced, 'other');
      const memo = path.join(replaced, 'memo.json');
      await copyFile(decoderModel('llama/optimum'), model);
      await writeFile(other, 'no model');
      const { dev, ino } = await stat(other);
      const replacing = setTimeout(() => renameSync(other, model), delay);
      await prepareDecoder({ model, directory: replaced, maxLength: 256, memo }).catch((error) => {
        // The file was replaced before the model was read.
        if (error.code !== 'ERR_MODEL_INVALID') throw error;
      });
      clearTimeout(replacing);
      const remembered = JSON.parse(await readFile(memo, 'utf8').catch(() => '{}'));
      expect(Object.keys(remembered)).not.toContain(`${dev}:${ino}`);
    }
  });

  it('gives whole caches to layers that were exported with caches as long as their window', async () => {
    const exported = decoderModel('qwen2-window/genai-full-cache');
    const model = await readModel(exported);
    for (const node of model.graph.node.filter(isGroupQueryAttention)) {
      node.attribute.push(attributeProto('sliding_window_cache', 1));
    }
    const windowed = path.join(mkdtempSync(path.join(folder, 'windowed-')), 'model.onnx');
    await writeBeside(model, path.dirname(windowed), { directory: path.dirname(exported) });
    const { graph, facts } = await prepared(windowed);
    expect(graph.mode).toBe('in-place');
    // Its rotary tables limit it.
    expect(facts.capacity).toBe(512);
  });

  it("refuses a file that isn't a decoder", async () => {
    const model = path.join(import.meta.dirname, '../../../fixtures/decoders/llama/optimum/config.json');
    await expect(prepared(model)).rejects.toMatchObject({ code: 'ERR_MODEL_INVALID' });
    await expect(prepared(path.join(folder, 'none.onnx'))).rejects.toMatchObject({
      code: 'ERR_MODEL_NOT_FOUND',
    });
  });
});
