import { operatorName } from '../graph/operators.js';
import { attributeKey } from '../passes/merge-equal-nodes.js';
import type { GraphKnowledge } from './graph-knowledge.js';

/** Returns a key that is equal for values that equal nodes compute from their sources. */
export function formOf({ graph, shapes }: GraphKnowledge, sources: readonly string[], value: string): string {
  const names = new Map(sources.map((source, i) => [source, `source ${i}`]));
  const form: unknown[] = [];
  const visit = (value: string): string => {
    const known = names.get(value);
    if (known !== undefined) return known;
    const elements = shapes.elements(value);
    if (elements) return `[${elements.join()}]`;
    const node = graph.producer(value);
    if (!node) return `value ${value}`;
    const inputs = node.input.map((input) => (input === '' ? '' : visit(input)));
    const attributes = node.attribute.map((each) => attributeKey(each) ?? `attribute of ${value}`);
    form.push([operatorName(node), inputs, attributes]);
    for (const [i, output] of node.output.entries()) names.set(output, `#${form.length}.${i}`);
    return names.get(value)!;
  };
  visit(value);
  return JSON.stringify(form);
}
