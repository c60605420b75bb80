import { floatAttribute, intAttribute } from '../graph/node-attribute.js';
import { operatorName } from '../graph/operators.js';
import { isShape } from '../graph/size.js';
import type { GraphKnowledge } from './graph-knowledge.js';

/**
 * Turns a linear layer that is a Gemm between two Reshapes, from and to `[rows, new, …]`, into a product and an Add.
 * Otherwise, each step would compute the shapes of the Reshapes, and rows and positions would be a single dimension
 * between the Reshapes.
 */
export function unwrapGemm({ graph, shapes }: GraphKnowledge): void {
  for (const gemm of [...graph.nodes]) {
    if (operatorName(gemm) !== 'Gemm') continue;
    if (floatAttribute(gemm, 'alpha', 1) !== 1 || floatAttribute(gemm, 'beta', 1) !== 1) continue;
    if (intAttribute(gemm, 'transA', 0) !== 0) continue;
    const [flat = '', weight = '', bias = ''] = gemm.input;
    const before = graph.producer(flat);
    const readers = graph.readers(gemm.output[0]!).filter((node) => operatorName(node) !== 'Shape');
    const [after] = readers;
    if (
      !before ||
      operatorName(before) !== 'Reshape' ||
      readers.length !== 1 ||
      operatorName(after!) !== 'Reshape'
    )
      continue;
    const [source = ''] = before.input;
    const [result = ''] = after!.output;
    const width = shapes.shape(gemm.output[0]!)?.[1]?.constant;
    const depth = shapes.shape(source)?.[2]?.constant;
    if (width === undefined || depth === undefined || graph.isOutput(result)) continue;
    if (!isShape(shapes.shape(source), ['rows', 'new', depth])) continue;
    if (!isShape(shapes.shape(result), ['rows', 'new', width])) continue;
    if (bias !== '' && !isShape(shapes.shape(bias), [width])) continue;
    graph.removeNode(after!);
    const isTransposed = Boolean(intAttribute(gemm, 'transB', 0));
    const outputs = bias === '' ? { outputs: [result] } : {};
    const [product = ''] = isTransposed
      ? graph.addNode('FusedMatMul', [source, weight], { transB: 1 }, { domain: 'com.microsoft', ...outputs })
      : graph.addNode('MatMul', [source, weight], {}, outputs);
    if (bias === '') continue;
    shapes.setShape(product, shapes.shape(result)!);
    graph.addNode('Add', [product, bias], {}, { outputs: [result] });
  }
}
