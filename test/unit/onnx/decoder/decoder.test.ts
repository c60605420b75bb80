import { readdirSync } from 'node:fs';
import path from 'node:path';
import { describe, expect, it } from 'vitest';
import { cacheBytesPerToken, recogniseDecoder } from '../../../../lib/onnx/decoder/decoder.js';
import type { ModelProto } from '../../../../lib/onnx/format/model.js';
import { readModel } from '../../../../lib/onnx/format/model-file.js';
import { GraphBuilder, type SymbolicDims } from '../../../../lib/onnx/graph/graph-builder.js';
import { decoderModel } from '../../../decoder-fixture.js';

const decoders = path.join(import.meta.dirname, '../../../fixtures/decoders');
const fixtures = readdirSync(decoders, { recursive: true, encoding: 'utf8' })
  .filter((file) => path.basename(file) === 'model.onnx')
  .map((file) => path.dirname(file));

describe('recogniseDecoder', () => {
  it.each(fixtures)('knows every input of %s, and its cache by layers', async (fixture) => {
    const model = await readModel(decoderModel(fixture));
    const decoder = recogniseDecoder(model);
    const { graph, caches } = decoder;
    const names = model.graph.input.map(({ name }) => name).sort();
    expect([...Object.keys(graph.inputs), ...caches.map(({ input }) => input)].sort()).toEqual(names);
    expect(graph.logits).toBe('logits');
    expect(decoder).toMatchObject({ layers: 2, vocabulary: 320, logitsType: 'float32' });
    caches.forEach(({ input, output }, i) => {
      const layer = Math.floor(i / 2);
      const kind = i % 2 ? 'value' : 'key';
      expect(input).toMatch(new RegExp(`^(past_key_values\\.${layer}\\.${kind}|${kind}_cache\\.${layer})$`));
      expect(output).toMatch(new RegExp(`^(present\\.${layer}\\.${kind}|updated_${kind}_cache\\.${layer})$`));
    });
    const isScattered = /tensor-scatter|static-cache/.test(fixture);
    expect(graph.mode).toBe(isScattered ? 'in-place' : 'copying');
    expect(caches[0]!.capacity).toBe(fixture.endsWith('static-cache') ? 512 : undefined);
  });

  it('says what a graph of other names is fed with', async () => {
    const roles = async (fixture: string) =>
      recogniseDecoder(await readModel(decoderModel(fixture))).graph.inputs;
    expect(await roles('llama/optimum')).toEqual({
      input_ids: 'input_ids',
      attention_mask: 'attention_mask',
      position_ids: 'position_ids',
    });
    expect(await roles('llama/dynamo-24')).toEqual({ input_ids: 'input_ids' });
    expect(await roles('llama/static-cache')).toEqual({
      input_ids: 'input_ids',
      position_ids: 'position_ids',
      write_indices: 'past_lengths',
      nonpad_kv_seqlen: 'total_lengths',
    });
  });

  it('counts the bytes of a token', async () => {
    // 2 layers, keys and values, 2 heads of 16, 4 bytes each.
    const llama = recogniseDecoder(await readModel(decoderModel('llama/optimum')));
    expect(cacheBytesPerToken(llama)).toBe(512);
    // Its graph has a symbol for the head's size.
    const genai = recogniseDecoder(await readModel(decoderModel('llama/genai')));
    expect(cacheBytesPerToken(genai)).toBe(512);
  });

  it('pairs caches by the nodes that continue them where names differ, and takes the one integer input for the tokens', () => {
    const model = decoder({ tokens: 'x', past: 'layer.0.k', present: (kind) => `out_${kind}` });
    expect(recogniseDecoder(model).graph).toEqual({
      mode: 'copying',
      inputs: { x: 'input_ids' },
      caches: [
        { input: 'layer.0.k', output: 'out_k', kvHeads: 1, headDim: 4 },
        { input: 'layer.0.v', output: 'out_v', kvHeads: 1, headDim: 4 },
      ],
      logits: 'logits',
    });
  });

  const refused = (model: ModelProto) => () => recogniseDecoder(model);
  const unsupported = (message: RegExp) =>
    expect.objectContaining({ code: 'ERR_MODEL_UNSUPPORTED', message: expect.stringMatching(message) });

  it('refuses by name what it could not drive', () => {
    const extra = (name: string, dims: SymbolicDims) => refused(decoder({ extra: [name, dims] }));
    expect(extra('use_cache_branch', [1])).toThrow(unsupported(/"use_cache_branch".*merged/));
    expect(extra('encoder_hidden_states', ['b', 's', 8])).toThrow(unsupported(/encoder/));
    expect(extra('speaker_ids', ['b'])).toThrow(unsupported(/"speaker_ids" \(int64 \[b\]\) is not known/));
    expect(extra('attention_mask', ['b', 1, 's', 't'])).toThrow(unsupported(/"attention_mask"/));
    expect(refused(decoder({ kinds: [] }))).toThrow(unsupported(/no KV cache.*text-generation-with-past/));
    expect(refused(decoder({ logits: 'hidden' }))).toThrow(
      unsupported(/none of its outputs is named logits/),
    );
    expect(refused(decoder({ length: 64 }))).toThrow(unsupported(/always holds 64 tokens/));
    expect(refused(decoder({ kinds: ['k'] }))).toThrow(unsupported(/key without a value/));
  });
});

/** One layer that only lengthens its cache. */
function decoder({
  tokens = 'input_ids',
  past = 'past.0.k',
  present = (kind: string) => `present.0.${kind}`,
  logits = 'logits',
  length = 'past',
  kinds = ['k', 'v'],
  extra,
}: {
  tokens?: string;
  past?: string;
  present?: (kind: string) => string;
  logits?: string;
  length?: string | number;
  kinds?: string[];
  extra?: [string, SymbolicDims];
} = {}): ModelProto {
  const g = new GraphBuilder('decoder');
  const ids = g.input(tokens, 'int64', ['b', 's']);
  if (extra) g.input(extra[0], 'int64', extra[1]);
  const table = g.initializer('table', 'float32', [5, 4], new Float32Array(20));
  g.op('Gather', [table, ids], {}, { outputs: [logits] });
  g.output(logits, 'float32', ['b', 's', 4]);
  const added = g.initializer('added', 'float32', [1, 1, 1, 4], new Float32Array(4));
  for (const kind of kinds) {
    const input = g.input(past.replace(/k$/, kind), 'float32', ['b', 1, length, 4]);
    g.op('Concat', [input, added], { axis: 2 }, { outputs: [present(kind)] });
    g.output(present(kind), 'float32', ['b', 1, 'total', 4]);
  }
  return g.finish();
}
