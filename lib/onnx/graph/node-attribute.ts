import type { AttributeProto, NodeProto, TensorProto } from '../format/model.js';

export function attribute(node: NodeProto, name: string): AttributeProto | undefined {
  return node.attribute.find((each) => each.name === name);
}

export function intAttribute(node: NodeProto, name: string, otherwise: number): number {
  return Number(attribute(node, name)?.i ?? otherwise);
}

export function floatAttribute(node: NodeProto, name: string, otherwise: number): number {
  return attribute(node, name)?.f ?? otherwise;
}

export function intsAttribute(node: NodeProto, name: string): number[] | undefined {
  return attribute(node, name)?.ints?.map(Number);
}

export function tensorAttribute(node: NodeProto, name: string): TensorProto | undefined {
  return attribute(node, name)?.t;
}
