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
import { externalLocations } from '../../onnx/format/initializer.js';
import { parseModel } from '../../onnx/format/model-file.js';
import { readWhole } from '../../system/files/file-range.js';

/** The contents of an engine file, and its origin. */
export interface EngineReport {
  readonly file: string;
  readonly id: string;
  /** Sizes in bytes: the file, its plan, and the weights before they were compiled. */
  readonly byteLength: number;
  readonly planBytes: number;
  readonly constantBytes: number;
  readonly manifest: EngineManifest;
  /** The comparison with the model that it was compiled from; null if that wasn't found. */
  readonly model: VerifiedModel | null;
  /** The engines that it descends from, the nearest first. */
  readonly ancestors: readonly Ancestor[];
  readonly inputs: readonly EngineTensor[];
  readonly outputs: readonly EngineTensor[];
  readonly layers: readonly (LayerInfo & LayerSizes)[];
}

/** The element type and size of a layer's outputs. */
interface LayerSizes {
  /** Types of its outputs, such as 'float16'; '?' for a type that isn't known here. */
  readonly precision: string;
  /** null if a dimension is dynamic or a type isn't known. */
  readonly outputBytes: number | null;
}

/** The result of comparing a model's file with the hashes in an engine's manifest. */
export interface VerifiedModel {
  readonly file: string;
  /** True if both hashes match the manifest. */
  readonly matches: boolean;
  readonly sha256Matches: boolean;
  readonly weightsMatch: boolean;
}

/** True if a file should be inspected as an engine, judging by its first bytes or its name. */
export function isEngine(file: string): boolean {
  return isEngineFile(file) || path.extname(file) === '.engine';
}

/**
 * Loads an engine file, verifies its checksum, and compares it with its model and its ancestors if they are found.
 * @param model the ONNX file to compare with; defaults to the file beside the engine with the name in its manifest
 * @throws (rejects) the errors of `Engine.load`; TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO for the
 *   model
 */
export async function reportEngine(file: string, model: string | undefined): Promise<EngineReport> {
  const engine = await Engine.load(file);
  const { id, manifest, inputs, outputs, byteLength } = engine;
  const layers = (await engine.inspect()).map((layer) => ({ ...layer, ...layerSizes(layer) }));
  const folder = path.dirname(file);
  const verified = await verifyModel(manifest, model, folder);
  const ancestors = await findAncestors(engine, [folder, new EngineCache().directory]);
  const constantBytes = layers
    .filter(({ type }) => type === 'CONSTANT')
    .reduce((sum, layer) => sum + (layer.outputBytes ?? 0), 0);
  const sizes = { byteLength, planBytes: planByteLength(engine), constantBytes };
  return { file, id, ...sizes, manifest, model: verified, ancestors, inputs, outputs, layers };
}

function layerSizes({ outputs }: LayerInfo): LayerSizes {
  const sizes = outputs.map(({ type, dims }) =>
    // A dynamic size, or a type whose element size isn't known here.
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

/** Compares the named model, or else the one beside the engine, with the hashes in the manifest. */
async function verifyModel(
  { model, masks }: EngineManifest,
  named: string | undefined,
  folder: string,
): Promise<VerifiedModel | null> {
  // Uses only the base name, so that a manifest can't point outside the folder.
  const beside = model.name === undefined ? undefined : path.join(folder, path.basename(model.name));
  const file = named ?? beside;
  if (file === undefined || (named === undefined && !existsSync(file))) return null;
  const content = await readWhole(file, 'model');
  const sha256 = createHash('sha256').update(content).digest('hex');
  const parsed = parseModel(content);
  // The model as it was before its weights were pruned. Only its own file's hash is known, not that of other files.
  if (sha256 === masks?.model && externalLocations(parsed, path.dirname(file)).length === 0) {
    return { file, matches: true, sha256Matches: true, weightsMatch: true };
  }
  const sha256Matches = sha256 === model.sha256;
  const { graph } = parsed;
  const weightsMatch = hashWeights(graph, { directory: path.dirname(file) }) === model.weightsSha256;
  return { file, matches: sha256Matches && weightsMatch, sha256Matches, weightsMatch };
}
