import { dataTypes } from '../base/data-type.js';
import type { DecoderGraph } from '../base/decoder-graph.js';
import { isObject } from '../base/json.js';
import type { Profile, ShapeRange } from '../base/shapes.js';
import { isOrigin, type MadeWeight } from '../onnx/format/weight-origin.js';
import type {
  EngineContents,
  EngineManifest,
  LayerInfo,
  MaskRecord,
  SparsityRecord,
  TensorInfo,
} from './manifest.js';

/**
 * Reads the JSON texts of a manifest and of layers.
 * @throws Error whose message describes the problem
 */
export function parseContents(manifestText: string, layersText: string): EngineContents {
  // The checksum guards against accidents, not against malicious files, so shapes are checked too.
  const manifest = JSON.parse(manifestText);
  const layers = JSON.parse(layersText);
  if (!nestsWithin(maxNesting, manifest, layers)) throw new Error(`it nests more than ${maxNesting} deep`);
  if (!isManifest(manifest) || !isArrayOf(layers, isLayer))
    throw new Error('a field is missing or has the wrong type');
  return { manifest, layers };
}

// ---- checks of JSON from a file ----

/** Functions that walk a manifest, such as structuredClone, recurse. */
export const maxNesting = 64;

/** True if JSON values nest at most so many levels deep. */
export function nestsWithin(levels: number, ...values: readonly unknown[]): boolean {
  let level = values;
  for (let i = 0; i <= levels; i++) {
    level = level.flatMap((value) => (isObject(value) || Array.isArray(value) ? Object.values(value) : []));
    if (level.length === 0) return true;
  }
  return false;
}

function isArrayOf<T>(value: unknown, is: (element: unknown) => element is T): value is T[] {
  return Array.isArray(value) && value.every(is);
}

const isString = (value: unknown): value is string => typeof value === 'string';
const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;
const isDim = (value: unknown): value is number => value === -1 || isCount(value);

function isTensor(value: unknown): value is TensorInfo {
  return (
    isObject(value) &&
    isString(value.name) &&
    (value.type === null || (isString(value.type) && Object.hasOwn(dataTypes, value.type))) &&
    isArrayOf(value.dims, isDim)
  );
}

function isLayer(value: unknown): value is LayerInfo {
  return (
    isObject(value) &&
    isString(value.name) &&
    isString(value.type) &&
    isArrayOf(value.inputs, isString) &&
    isArrayOf(value.outputs, isTensor)
  );
}

function isRange(value: unknown): value is ShapeRange {
  if (!isObject(value)) return false;
  const { min, opt, max } = value;
  return (
    isArrayOf(min, isCount) &&
    isArrayOf(opt, isCount) &&
    isArrayOf(max, isCount) &&
    opt.length === min.length &&
    max.length === min.length
  );
}

function isProfile(value: unknown): value is Profile {
  return isObject(value) && Object.values(value).every(isRange);
}

function isCast(value: unknown): boolean {
  if (!isObject(value) || !isObject(value.ranges)) return false;
  const { ranges, nodes, kept } = value;
  const isSaid = (element: unknown): element is object =>
    isObject(element) && isString(element.node) && isString(element.reason);
  const counts = value.float16 ?? value.bfloat16;
  return (
    isObject(counts) &&
    Object.values(counts).every(isCount) &&
    isString(ranges.source) &&
    isArrayOf(nodes, isSaid) &&
    isArrayOf(kept, isSaid) &&
    [value.casts, value.weights, value.weightBytes].every(isCount)
  );
}

function isMadeWeight(value: unknown): value is MadeWeight {
  return isObject(value) && isString(value.weight) && isOrigin(value);
}

function isDecoder(value: unknown): value is DecoderGraph {
  if (!isObject(value) || !isObject(value.inputs)) return false;
  const { mode, inputs, caches, logits, top } = value;
  const isCache = (element: unknown): element is object =>
    isObject(element) &&
    [element.input, element.output].every(isString) &&
    [element.kvHeads, element.headDim].every(isCount);
  return (
    mode === 'in-place' &&
    Object.values(inputs).every(isString) &&
    isArrayOf(caches, isCache) &&
    isString(logits) &&
    (top === undefined || (isObject(top) && [top.logits, top.tokens, top.logSumExp].every(isString)))
  );
}

function isMaskRecord(value: unknown): value is MaskRecord {
  const isWeight = (each: unknown): each is MaskRecord['weights'][number] =>
    isObject(each) &&
    isString(each.weight) &&
    isString(each.sha256) &&
    isCount(each.size) &&
    isCount(each.kept);
  return isObject(value) && isString(value.model) && isArrayOf(value.weights, isWeight);
}

function isSparsity(value: unknown): value is SparsityRecord {
  const isSparse = (each: unknown): each is SparsityRecord['eligible'][number] =>
    isObject(each) && isString(each.weight) && isArrayOf(each.nodes, isString);
  return (
    isObject(value) &&
    isArrayOf(value.eligible, isSparse) &&
    (value.chosen === 'unknown' || isCount(value.chosen))
  );
}

function isManifest(value: unknown): value is EngineManifest {
  if (!isObject(value) || !isObject(value.library) || !isObject(value.model) || !isObject(value.options))
    return false;
  const { library, model, cast, weights, masks, sparsity, decoder, parent, lineage } = value;
  return (
    (decoder === undefined || isDecoder(decoder)) &&
    (cast === undefined || isCast(cast)) &&
    (weights === undefined || isArrayOf(weights, isMadeWeight)) &&
    (masks === undefined || isMaskRecord(masks)) &&
    (sparsity === undefined || isSparsity(sparsity)) &&
    (parent === undefined || (isString(parent) && /^[0-9a-f]{64}$/.test(parent))) &&
    (lineage === undefined || isObject(lineage)) &&
    [library.flavour, library.version, value.builder, value.precision, value.created].every(isString) &&
    [model.sha256, model.weightsSha256, model.producer, model.name ?? ''].every(isString) &&
    isArrayOf(value.targets, isString) &&
    isArrayOf(value.warnings, isString) &&
    isArrayOf(value.profiles, isProfile) &&
    isArrayOf(value.inputs, isTensor) &&
    isArrayOf(value.outputs, isTensor)
  );
}
