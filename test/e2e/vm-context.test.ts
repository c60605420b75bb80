import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import vm from 'node:vm';
import { expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');

/** Loads CommonJS as Jest does: the package's modules are scripts that can't call import(). */
function loadAsScripts(file: string, loaded = new Map<string, { exports: unknown }>()): unknown {
  const known = loaded.get(file);
  if (known) return known.exports;
  const module = { exports: {} };
  loaded.set(file, module);
  const parameters = ['exports', 'require', 'module', '__filename', '__dirname'];
  const wrapped = vm.compileFunction(readFileSync(file, 'utf8'), parameters, { filename: file });
  const nodes = createRequire(file);
  const load = (name: string) => {
    const required = nodes.resolve(name);
    return name.startsWith('.') && required.endsWith('.js') ? loadAsScripts(required, loaded) : nodes(name);
  };
  const require = Object.assign(load, nodes);
  wrapped(module.exports, require, module, file, path.dirname(file));
  return module.exports;
}

test('the package works when import() is refused', async () => {
  const { buildEngine, InferenceSession, LanguageModel } = loadAsScripts(
    path.join(root, 'dist/index.js'),
  ) as typeof import('node-tensorrt');
  const model = await LanguageModel.load(path.join(root, 'examples/demo-model'), { device: 'cpu' });
  expect((await model.generate('27+15=')).text).toBe('[24] 42');
  await model.dispose();
  const linear = path.join(root, 'test/fixtures/session/linear.onnx');
  const engine = await buildEngine(linear, { target: 'sm_89', precision: 'fp16', cache: false });
  expect(engine.manifest.targets).toEqual(['sm_89']);
  await using session = await InferenceSession.create(linear, { device: 'cpu', precision: 'fp16' });
  expect(session.outputNames).toEqual(['y', 's']);
});
