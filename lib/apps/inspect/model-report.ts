import { type DataType, dataTypeFromOnnx } from '../../base/data-type.js';
import { type ErrorCode, TensorRTError } from '../../base/errors.js';
import { importModel, type ModelImport } from '../../engine/model-import.js';
import { isExternal, tensorSize } from '../../onnx/format/initializer.js';
import type { NodeProto, TensorProto } from '../../onnx/format/model.js';
import { readModel } from '../../onnx/format/model-file.js';
import { graphInputs, type ValueType, valueType } from '../../onnx/graph/declared-values.js';

/** The contents of an ONNX file, and the result of importing it with TensorRT's parser. */
export interface ModelReport {
  readonly file: string;
  readonly irVersion: number | undefined;
  /** Operator set versions by domain. */
  readonly opsets: Readonly<Record<string, number>>;
  /** The program that exported it; '' if the file doesn't record it. */
  readonly producer: string;
  readonly inputs: readonly DeclaredValue[];
  readonly outputs: readonly DeclaredValue[];
  /** The number of elements in all weights. */
  readonly parameters: number;
  /** Counts by element type. */
  readonly weights: Readonly<Record<string, { readonly tensors: number; readonly parameters: number }>>;
  /** True if weights are in files beside it. */
  readonly externalData: boolean;
  /** The number of nodes of each operator, the most frequent first. */
  readonly operators: Readonly<Record<string, number>>;
  readonly import: Import;
}

/** An input or output as the graph declares it; null for what it doesn't declare. */
interface DeclaredValue {
  readonly name: string;
  readonly type: DataType | null;
  readonly shape: readonly (number | string)[] | null;
}

/** The result of TensorRT's parser, or the reason why it can't be used. */
type Import =
  | (Omit<ModelImport, 'network'> & { readonly layers: number | null })
  | { readonly error: { readonly code: ErrorCode; readonly message: string } };

/**
 * Reads an ONNX file, and imports it with TensorRT's parser if there is one.
 * @param device CUDA's number of the GPU that TensorRT parses on; defaults to the first
 * @throws (rejects) TensorRTError ERR_MODEL_NOT_FOUND, ERR_MODEL_INVALID, ERR_IO, ERR_OUT_OF_MEMORY
 */
export async function reportModel(file: string, device: number | undefined): Promise<ModelReport> {
  const { graph, irVersion, opsetImport, producerName, producerVersion } = await readModel(file);
  return {
    file,
    irVersion,
    opsets: Object.fromEntries(opsetImport.map(({ domain, version }) => [domain || 'ai.onnx', version])),
    producer: [producerName, producerVersion].filter(Boolean).join(' '),
    inputs: graphInputs(graph).map(value),
    outputs: graph.output.map(valueType).map(value),
    parameters: graph.initializer.reduce((sum, tensor) => sum + tensorSize(tensor), 0),
    weights: weightsByType(graph.initializer),
    externalData: graph.initializer.some(isExternal),
    operators: operatorCounts(graph.node),
    import: await tryImport(file, device),
  };
}

async function tryImport(file: string, device: number | undefined): Promise<Import> {
  try {
    const { network, ...rest } = await importModel(file, device === undefined ? {} : { device });
    return { ...rest, layers: network?.layers.length ?? null };
  } catch (error) {
    if (!(error instanceof TensorRTError)) throw error;
    return { error: { code: error.code, message: error.message } };
  }
}

function value({ name, type, shape }: ValueType): DeclaredValue {
  return { name, type: type ?? null, shape: shape ?? null };
}

function weightsByType(tensors: readonly TensorProto[]): ModelReport['weights'] {
  const weights: Record<string, { tensors: number; parameters: number }> = {};
  for (const tensor of tensors) {
    const type = dataTypeFromOnnx(tensor.dataType) ?? `ONNX type ${tensor.dataType}`;
    weights[type] ??= { tensors: 0, parameters: 0 };
    weights[type].tensors++;
    weights[type].parameters += tensorSize(tensor);
  }
  return weights;
}

function operatorCounts(nodes: readonly NodeProto[]): Record<string, number> {
  const counts = new Map<string, number>();
  for (const { domain, opType } of nodes) {
    const operator = domain ? `${domain}.${opType}` : opType;
    counts.set(operator, (counts.get(operator) ?? 0) + 1);
  }
  return Object.fromEntries([...counts].sort((a, b) => b[1] - a[1]));
}
