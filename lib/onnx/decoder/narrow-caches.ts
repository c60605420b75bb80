import { dataTypeFromOnnx } from '../../base/data-type.js';
import type { ModelProto, NodeProto, ValueInfoProto } from '../format/model.js';
import { EditableGraph } from '../graph/editable-graph.js';
import { attributeProto } from '../graph/graph-builder.js';
import { intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import { dropIdleCasts } from '../passes/drop-idle-casts.js';
import { recogniseDecoder } from './decoder.js';

/**
 * Makes caches 16-bit if the graph reads and returns them in FP32 but uses them in 16 bits. Converters to 16 bits keep
 * the types of inputs and outputs, and cast caches before and after. Without these casts, the caches hold the same
 * numbers in 16 bits. Returns the model itself if it has no such caches.
 *
 * @throws TensorRTError ERR_MODEL_UNSUPPORTED if the model isn't a decoder
 */
export function withNarrowCaches(model: ModelProto): ModelProto {
  const graph = new EditableGraph(model);
  const types = new Map<string, number>();
  for (const { input, output } of recogniseDecoder(model).caches) {
    const type = narrowType(graph, input, output);
    if (type !== undefined) types.set(input, type).set(output, type);
  }
  if (types.size === 0) return model;
  const narrowed = (values: readonly ValueInfoProto[]) =>
    values.map((value): ValueInfoProto => {
      const elemType = types.get(value.name);
      return elemType ? { ...value, type: { tensorType: { ...value.type!.tensorType, elemType } } } : value;
    });
  // The casts after the caches become idle, like those before them.
  const node = model.graph.node.map((each): NodeProto => {
    const to = types.get(each.output[0]!);
    return to ? { ...each, attribute: [attributeProto('to', to)] } : each;
  });
  const { input, output } = model.graph;
  const typed = {
    ...model,
    graph: { ...model.graph, node, input: narrowed(input), output: narrowed(output) },
  };
  const edited = new EditableGraph(typed);
  dropIdleCasts(edited, typed);
  return edited.finish();
}

/** Returns the 16-bit type in which a cache is used between casts; undefined if there are no such casts. */
function narrowType(graph: EditableGraph, input: string, output: string): number | undefined {
  const castTo = (node: NodeProto | undefined) =>
    node && operatorName(node) === 'Cast' ? intAttribute(node, 'to', 0) : 0;
  const readers = graph.readers(input);
  const type = castTo(readers[0]);
  const dataType = dataTypeFromOnnx(type);
  if (dataType !== 'float16' && dataType !== 'bfloat16') return undefined;
  const back = graph.producer(output);
  const append = castTo(back) > 0 ? graph.producer(back!.input[0]) : undefined;
  // Nodes that read the output read it in FP32.
  if (graph.readers(output).length > 0) return undefined;
  const isAppended = append?.input.some((value) => readers.some((cast) => cast.output[0] === value));
  const isNarrow = append && operatorName(append) === 'Concat' && isAppended;
  return isNarrow && readers.every((node) => castTo(node) === type) ? type : undefined;
}
