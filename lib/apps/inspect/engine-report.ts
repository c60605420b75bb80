import { existsSync } from 'node:fs';
import path from 'node:path';
import { createHash } from '../../base/crypto.js';
import { dataTypes } from '../../base/data-type.js';
import { Engine, planByteLength } from '../../engine/engine.js';
import { type Ancestor, findAncestors } from '../../engine/engine-ancestors.js';
import { EngineCache } from '../../engine/engine-cache.js';
import { isEngineFile } from '../../engine/engine-file.js';
import type { EngineManifest, EngineTensor, LayerInfo } from '../../engine/manifest.js';
import { hashWeights } from '../../onnx/format/hash-weights.js';
import { parseModel } from '../../onnx/format/model-file.js';
import { readWhole } from '../../system/files/file-range.js';

/** The contents of an engine file, and its origin. */
export interface EngineReport {
  readonly file: string;
  readonly id: string;
  /** Bytes of the file, of its plan, and of the weights before they were compiled. */
  readonly byteLength: number;
  readonly planBytes: number;
  readonly constantBytes: number;
  readonly manifest: EngineManifest;
  /** The comparison with the model that it is said to come from; null without one. */
  readonly model: VerifiedModel | null;
  /** The engines that it descends from, the nearest first. */
  readonly ancestors: readonly Ancestor[];
  readonly inputs: readonly EngineTensor[];
  readonly outputs: readonly EngineTensor[];
  readonly layers: readonly (LayerInfo & LayerSizes)[];
}

/** A layer's type of elements, and how much it puts out. */
interface LayerSizes {
  /** Types of its outputs, such as 'float16'; '?' for a type that is unknown here. */
  readonly precision: string;
  /** null where a dimension is dynamic, or a type unknown. */
  readonly outputBytes: number | null;
}

/** A model's file beside the hashes that an engine's manifest has of its model. */
export interface VerifiedModel {
  readonly file: string;
  /** True if both hashes are those of the manifest. */
  readonly matches: boolean;
  readonly sha256Matches: boolean;
  readonly weightsMatch: boolean;
}

/** True if a file should be inspected as an engine, because of its first bytes or its name. */
export function isEngine(file: string): boolean {
  return isEngineFile(file) || path.extname(file) === '.engine';
}

/**
 * Loads an engine file, verifies its checksum, and compares it with its model and its ancestors where they are found.
 * @param model the ONNX file to compare with; by default the one beside the engine that its manifest names
 * @throws (rejects) what `Engine.load` does; TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO for the model
 */
export async function reportEngine(file: string, model: string | undefined): Promise<EngineReport> {
  const engine = await Engine.load(file);
  const { id, manifest, inputs, outputs, byteLength } = engine;
  const layers = (await engine.inspect()).map((layer) => ({ ...layer, ...layerSizes(layer) }));
  const folder = path.dirname(file);
  const verified = await verifyModel(manifest.model, model, folder);
  const ancestors = await findAncestors(engine, [folder, new EngineCache().directory]);
  const constantBytes = layers
    .filter(({ type }) => type === 'CONSTANT')
    .reduce((sum, layer) => sum + (layer.outputBytes ?? 0), 0);
  const sizes = { byteLength, planBytes: planByteLength(engine), constantBytes };
  return { file, id, ...sizes, manifest, model: verified, ancestors, inputs, outputs, layers };
}

function layerSizes({ outputs }: LayerInfo): LayerSizes {
  const sizes = outputs.map(({ type, dims }) =>
    // A dynamic size, or one of a type whose elements this package doesn't know.
    type === null || type === 'string' || dims.some((size) => size < 0)
      ? null
      : dims.reduce((product, size) => product * size, dataTypes[type].byteSize),
  );
  const known = sizes.every((size) => size !== null);
  return {
    precision: [...new Set(outputs.map(({ type }) => type ?? '?'))].join(', '),
    outputBytes: known ? sizes.reduce((sum, size) => sum + size, 0) : null,
  };
}

/** Compares the model that is named, else the one beside the engine, with the manifest's hashes. */
async function verifyModel(
  model: EngineManifest['model'],
  named: string | undefined,
  folder: string,
): Promise<VerifiedModel | null> {
  // A manifest's name is a name, whatever the file it comes from claims.
  const beside = model.name === undefined ? undefined : path.join(folder, path.basename(model.name));
  const file = named ?? beside;
  if (file === undefined || (named === undefined && !existsSync(file))) return null;
  const content = await readWhole(file, 'model');
  const sha256Matches = createHash('sha256').update(content).digest('hex') === model.sha256;
  const { graph } = parseModel(content);
  const weightsMatch = hashWeights(graph, { directory: path.dirname(file) }) === model.weightsSha256;
  return { file, matches: sha256Matches && weightsMatch, sha256Matches, weightsMatch };
}
