import { createHash } from '../base/crypto.js';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { invalidArgValue, TensorRTError } from '../base/errors.js';
import { type PreparedDecoder, prepareDecoder } from '../engine/decoder/prepare-decoder.js';
import type { Engine } from '../engine/engine.js';
import { EngineCache } from '../engine/engine-cache.js';
import { loadEngine } from '../engine/load-engine.js';
import type { EngineManifest } from '../engine/manifest.js';
import { digestModel } from '../engine/model-digest.js';
import { placeOnGpu } from '../execution/device.js';
import type { Loadable } from '../execution/load-native.js';
import { cpuLoadRequest } from '../execution/load-on-cpu.js';
import { buildSettings } from '../session/session-options.js';
import type { NativeLoadedModel } from '../system/native/loaded-model.js';
import type { DecoderConfig } from './decoder-config.js';
import type { KvCacheSettings } from './kv-cache.js';
import type { LanguageModelSettings } from './language-model-options.js';
import { UnusableValue, usable } from './unusable-value.js';

/** A decoder that is ready to be loaded onto its device. */
export interface PlacedDecoder {
  readonly graph: DecoderGraph;
  /** Tokens per row. */
  readonly capacity: number;
  /** The number of tokens. */
  readonly vocabulary: number;
  /** The device: 'cpu', 'cuda:0', … */
  readonly device: string;
  /** The reason for choosing that device. */
  readonly why: string;
  /** The reason for the way in which the cache is updated. */
  readonly whyMode: string;
  readonly precision: EngineManifest['precision'];
  /** Identifies everything that the numbers in a saved cache depend on: model, graph and types. */
  readonly fingerprint: string;
  readonly load: (model: Loadable) => Promise<NativeLoadedModel | undefined>;
  /** Frees the resources that were only needed for loading. */
  release(): void;
}

const defaultMaxLength = 4096;

/**
 * Rewrites a decoder's graph to update its cache in place, if possible, and compiles it if it is to run on a GPU.
 * @param directory a folder for intermediate files, needed until the decoder is loaded
 * @throws (rejects) as `LanguageModel.load`
 */
export async function placeDecoder(
  config: DecoderConfig,
  settings: LanguageModelSettings,
  directory: string,
): Promise<PlacedDecoder> {
  const { signal, kvCache, threads } = settings;
  const maxLength = rowLength(kvCache, config);
  const cache = new EngineCache();
  const request = { model: config.model, directory, maxLength };
  const [prepared, digest] = await Promise.all([
    prepareDecoder({ ...request, memo: cache.memo('decoders') }, signal),
    digestModel(config.model, cache.memo('models'), signal),
  ]);
  const vocabulary = prepared.facts.vocabulary ?? usable(config.vocabulary);
  if (vocabulary === undefined) {
    throw new TensorRTError(
      'ERR_MODEL_UNSUPPORTED',
      `Neither ${config.model} nor a config.json beside it gives the number of tokens, vocab_size.`,
    );
  }
  const capacity = Math.min(maxLength, prepared.facts.capacity ?? maxLength);
  const place = await placeOnGpu(settings.device, signal, async ({ ordinal }) => {
    const { buildDecoder } = await import('../engine/decoder/build-decoder.js');
    const { maxBatchSize: rows, dtype } = kvCache;
    const decoder = { ...prepared, capacity, rows, chunkSize: settings.chunkSize, cache: dtype };
    const ofSession = { ...settings, shapes: [], calibration: undefined, refit: false };
    return buildDecoder(ordinal, decoder, buildSettings(ofSession));
  });
  signal?.throwIfAborted();
  const { why } = place;
  if (!place.made) {
    requireCpuPrecision(settings.precision, why);
    requireCacheType(kvCache, prepared);
    const { graph, file, weights } = prepared;
    return {
      graph,
      capacity,
      vocabulary,
      device: 'cpu',
      why,
      whyMode: prepared.why,
      precision: 'as-exported',
      fingerprint: hashOf([digest, graph, null]),
      load: (model) => model.load(cpuLoadRequest({ model: file, weights, threads })),
      release() {},
    };
  }
  const { gpu } = place;
  const { graph, engine } = place.made;
  const { libraryPath, cudaGraph } = settings;
  return {
    graph,
    capacity,
    vocabulary,
    device: gpu.device,
    why,
    whyMode: `${prepared.why} For TensorRT, its KV-cache layers do this.`,
    precision: engine.manifest.precision,
    fingerprint: hashOf([digest, graph, typesOf(engine)]),
    load: (model) => loadEngine(model, { engine, gpu, libraryPath, cudaGraph, deviceOutputs: false }),
    release: () => engine.dispose(),
  };
}

/** Tokens per row, limited by the model's positions. */
function rowLength({ maxLength }: KvCacheSettings, { maxLength: positions }: DecoderConfig): number {
  if (maxLength === undefined) {
    return Math.min(usable(positions, 'options.kvCache.maxLength') ?? defaultMaxLength, defaultMaxLength);
  }
  if (positions === undefined || positions instanceof UnusableValue || maxLength <= positions)
    return maxLength;
  throw invalidArgValue(
    'options.kvCache.maxLength',
    `must be at most ${positions}, the number of the model's positions, not ${maxLength}.`,
  );
}

function requireCpuPrecision(precision: LanguageModelSettings['precision'], why: string): void {
  if (precision !== 'fp16' && precision !== 'bf16') return;
  throw invalidArgValue(
    'options.precision',
    `can't be '${precision}' on the CPU, where a decoder runs in its own types. It runs on the CPU: ${why}`,
  );
}

function requireCacheType({ dtype }: KvCacheSettings, { facts: { cacheType } }: PreparedDecoder): void {
  if (dtype === 'auto' || { fp16: 'float16', fp32: 'float32' }[dtype] === cacheType) return;
  throw invalidArgValue(
    'options.kvCache.dtype',
    `can't be '${dtype}': on the CPU the cache has the type that the model computes keys and values in, ${cacheType}.`,
  );
}

/** The types that the numbers in a saved cache depend on, besides the model. */
function typesOf({ manifest, inputs }: Engine): readonly unknown[] {
  return [manifest.precision, ...inputs.map(({ name, type }) => [name, type])];
}

function hashOf(parts: readonly unknown[]): string {
  return createHash('sha256').update(JSON.stringify(parts)).digest('hex');
}
