// Writes slots.h for one flavour: for each interface of TensorRT's that is called through a vtable, a class in which
// every slot traps (Slots), and one that traps the slots that the played version does not have yet (Guarded).
// `node slots.mjs PREPROCESSED FIRST_VERSIONS FLAVOUR OUT`: PREPROCESSED is NvOnnxParser.h after the preprocessor.
import { readFileSync, writeFileSync } from 'node:fs';

const [preprocessed, firstVersions, flavour, out] = process.argv.slice(2);
const headers = readFileSync(preprocessed, 'utf8').replace(/\[\[[^\]]*\]\]/g, '');
const first = new Map(
  Object.entries(JSON.parse(readFileSync(firstVersions, 'utf8'))[flavour]).flatMap(([version, slots]) =>
    slots.map((slot) => [slot, version.split('.').map(Number)]),
  ),
);

/** The type of a parameter: what is left without its name and its default. */
function typeOf(parameter) {
  const declaration = parameter.replace(/=.*$/, '').trim();
  const named = declaration.match(/^(.*[\s*&])(\w+)$/);
  return (named ? named[1] : declaration).trim();
}

function methodsOf(body) {
  const declaration = /virtual\s+(.+?[\s*&])(\w+)\s*\(([^)]*)\)\s*(const)?\s*(?:noexcept)?\s*=\s*0\s*;/g;
  return [
    ...body
      .replace(/virtual ~[^;]*;/g, '')
      .replace(/\s+/g, ' ')
      .matchAll(declaration),
  ].map(([, result, name, parameters, isConst]) => ({
    result: result.trim(),
    name,
    types: parameters.trim() ? parameters.split(',').map(typeOf) : [],
    isConst: Boolean(isConst),
  }));
}

function signature({ result, name, types, isConst }, named) {
  const parameters = types.map((type, i) => (named ? `${type} a${i}` : type)).join(', ');
  return `${result} ${name}(${parameters})${isConst ? ' const' : ''} noexcept override`;
}

const unknown = new Set(first.keys());
function classesOf(pattern, namespace) {
  let text = '';
  for (const [, name, body] of headers.matchAll(pattern)) {
    const methods = methodsOf(body);
    text += `template <>\nclass Slots<${namespace}::${name}> : public ${namespace}::${name} {\n public:\n`;
    for (const method of methods) {
      text += `  ${signature(method, false)} { trap("${name}::${method.name}"); }\n`;
    }
    text += `};\ntemplate <class Base>\nclass Guarded<${namespace}::${name}, Base> : public Base {\n public:\n  using Base::Base;\n`;
    for (const method of methods) {
      const slot = `${name}::${method.name}`;
      const version = first.get(slot);
      if (!version) continue;
      unknown.delete(slot);
      const call = `${method.name}(${method.types.map((_, i) => `a${i}`).join(', ')})`;
      text += `  ${signature(method, true)} {\n    require("${slot}", {${version.join(', ')}});\n`;
      // A name that the implementation does not override is that of two bases: the interface's and its caller's.
      text += `    if constexpr (requires { this->Base::${call}; }) return Base::${call};\n`;
      text += `    else return Slots<${namespace}::${name}>::${call};\n  }\n`;
    }
    text += '};\n';
  }
  return text;
}

const text = `// Written by slots.mjs.
#pragma once
#include "trap.h"
namespace stand_in {
template <class Interface> class Slots;
template <class Interface, class Base> class Guarded;
using namespace nvinfer1;
${classesOf(/class (V\w+) : public VRoot\s*\{([\s\S]*?)\};/g, 'nvinfer1::apiv')}
${classesOf(/class (IParser(?:Refitter)?)\s*\{([\s\S]*?)\n\};/g, 'nvonnxparser').replaceAll(
  /\b(OnnxParserFlags?|IParserError|IRefitterObserver)\b/g,
  'nvonnxparser::$1',
)}
}  // namespace stand_in
`;
if (unknown.size > 0)
  throw new Error(`${firstVersions} names slots that ${flavour} lacks: ${[...unknown].join(', ')}`);
writeFileSync(out, text);
