import { dataTypes } from '../base/data-type.js';
import { invalidArgValue } from '../base/errors.js';
import type { TensorLike } from '../base/tensor-like.js';
import { loadGraph } from '../execution/load-graph.js';
import type { LoadedSession } from '../execution/loaded-session.js';
import { randomInputs } from '../execution/random-inputs.js';
import { feedsCalled } from '../execution/run-request.js';
import type { ExternalDataOptions } from '../onnx/format/initializer.js';
import type { GraphProto, ModelProto, NodeProto } from '../onnx/format/model.js';
import { operatorName } from '../onnx/graph/operators.js';
import { valueTypes } from '../onnx/graph/value-types.js';
import type { Range, Ranges, RangesReport } from '../onnx/precision/ranges.js';

const float32 = dataTypes.float32.onnx;

/** The inputs of one run, by name. */
export type Feeds = Readonly<Record<string, TensorLike>>;

/** How to measure ranges. */
export interface MeasureOptions extends ExternalDataOptions {
  /** Sample inputs, of which one is held at a time. Defaults to random ones. */
  calibration?: Iterable<Feeds> | AsyncIterable<Feeds>;
  /** The seed of random inputs. Defaults to 0. */
  seed?: number;
}

/** Random inputs are tried this many times, in different shapes. */
const randomSamples = 2;

/**
 * Measures how large the values of a model become, by running it on the CPU. `castToFloat16` decides by these ranges.
 * Only two numbers per value leave the runtime, so activations are held no longer than in any run. Random inputs fit the
 * names and types of the model's inputs: see `randomInputs`.
 *
 * @throws (rejects) TensorRTError ERR_MODEL_UNSUPPORTED, ERR_MODEL_INVALID, ERR_LIBRARY_NOT_FOUND, ERR_EXECUTION_FAILED;
 *   RangeError or TypeError for calibration data that doesn't fit the model
 * @example
 * ```js
 * import { castToFloat16, measureRanges, readModel, writeModel } from 'node-tensorrt/onnx';
 *
 * const model = await readModel('model.onnx');
 * const { model: half, report } = castToFloat16(model, { ranges: await measureRanges(model) });
 * console.log(report.float16);
 * await writeModel(half, 'model-fp16.onnx');
 * ```
 */
export async function measureRanges(model: ModelProto, options: MeasureOptions = {}): Promise<Ranges> {
  const { model: probed, names } = withProbes(model);
  const { calibration, seed = 0 } = options;
  await using session = await loadGraph(probed, { directory: options.directory });
  const values = new Map<string, Range>();
  let samples = 0;
  const feeds = calibration ?? randomInputs(model, { ...options, seed, samples: randomSamples });
  for await (const feed of feeds) {
    const run = accumulate(session, feed, names, values);
    await (calibration ? run.catch(feedsCalled(`options.calibration[${samples}]`)) : run);
    samples++;
  }
  const report: RangesReport = calibration
    ? { source: 'calibration', samples }
    : { source: 'random', samples, seed };
  for (const name of names) if (!values.has(name)) values.set(name, { least: 0, most: 0 });
  if (samples === 0) throw invalidArgValue('options.calibration', 'is empty.');
  return { report, values };
}

async function accumulate(
  session: LoadedSession,
  feed: Feeds,
  names: readonly string[],
  values: Map<string, Range>,
): Promise<void> {
  const probes = names.flatMap((_, i) => [probe('min', i), probe('max', i)]);
  const outputs = await session.run(feed, probes.length > 0 ? probes : session.outputNames);
  names.forEach((name, i) => {
    const [least, most] = ['min', 'max'].map((end) => (outputs[probe(end, i)]!.data as Float32Array)[0]!) as [
      number,
      number,
    ];
    // The maximum of a tensor without elements is below its minimum.
    if (most < least) return;
    const known = values.get(name) ?? { least: Number.POSITIVE_INFINITY, most: Number.NEGATIVE_INFINITY };
    values.set(name, {
      least: Math.min(known.least, Number.isNaN(least) ? Number.NEGATIVE_INFINITY : least),
      most: Math.max(known.most, Number.isNaN(most) ? Number.POSITIVE_INFINITY : most),
    });
  });
}

const prefix = 'node-tensorrt.range';
const probe = (end: string, i: number) => `${prefix}.${end}.${i}`;

/** The model with the least and the greatest element of every float32 value as further outputs. */
function withProbes(model: ModelProto): { model: ModelProto; names: string[] } {
  const { graph } = model;
  const names = float32Values(graph);
  const nodes: NodeProto[] = [];
  const outputs: GraphProto['output'] = [];
  names.forEach((name, i) => {
    for (const [end, opType] of [
      ['min', 'ReduceMin'],
      ['max', 'ReduceMax'],
    ] as const) {
      const output = probe(end, i);
      const attribute = [{ name: 'keepdims', type: 2, i: 0n }];
      nodes.push({ name: output, opType, input: [name], output: [output], attribute });
      outputs.push({ name: output, type: { tensorType: { elemType: float32, shape: { dim: [] } } } });
    }
  });
  // Each beside the node whose value it reads, so that the value is not kept for longer.
  const readers = new Map<string, NodeProto[]>();
  for (const node of nodes) {
    const [name = ''] = node.input;
    readers.set(name, [...(readers.get(name) ?? []), node]);
  }
  const take = (name: string) => readers.get(name) ?? [];
  const node = [
    ...graph.input.flatMap(({ name }) => take(name)),
    ...graph.node.flatMap((each) => [each, ...each.output.flatMap(take)]),
  ];
  return { model: { ...model, graph: { ...graph, node, output: [...graph.output, ...outputs] } }, names };
}

/** Lists the main graph's inputs and the values that its nodes compute. */
function float32Values(graph: GraphProto): string[] {
  const types = valueTypes(graph);
  const weights = new Set(graph.initializer.map(({ name }) => name));
  const inputs = graph.input.map(({ name }) => name).filter((name) => !weights.has(name));
  const computed = graph.node.filter((node) => operatorName(node) !== 'Constant');
  return [...inputs, ...computed.flatMap(({ output }) => output)].filter(
    (name) => types.get(name) === float32,
  );
}
