// Packs the package, installs it into an empty project and uses it there, from ESM, CommonJS and TypeScript.
// Needs the checkout built (`npm run build`).
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');
const project = mkdtempSync(path.join(os.tmpdir(), 'node-tensorrt-package-'));
// Prebuilt binaries do not travel in the package yet: this checkout's stands in for one.
const environment = {
  ...process.env,
  NODE_TENSORRT_BINARY: path.join(root, 'build/addon/Release/node_tensorrt.node'),
};
const run = (command, args, cwd = project) =>
  execFileSync(command, args, {
    cwd,
    encoding: 'utf8',
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });

try {
  const [packed] = JSON.parse(run('npm', ['pack', '--json', '--pack-destination', project], root));
  const files = packed.files.map((file) => file.path);
  const foreign = files.filter((file) => !/^(dist\/|package\.json$|README\.md$|LICENSE$)/.test(file));
  if (foreign.length > 0) throw new Error(`The package holds what it should not: ${foreign.join(', ')}`);
  const libraries = files.filter((file) => /\.so|\.dll|nvinfer|tensorrt_rtx/.test(file));
  if (libraries.length > 0) throw new Error(`The package holds libraries: ${libraries.join(', ')}`);

  writeFileSync(path.join(project, 'package.json'), '{ "name": "consumer", "private": true }');
  run('npm', ['install', '--ignore-scripts', '--no-audit', '--no-fund', path.join(project, packed.filename)]);
  // The runtime, types and compiler of this checkout, as a user would have installed them.
  for (const name of ['onnxruntime-node', 'onnxruntime-common', '@types', 'typescript', 'undici-types']) {
    symlinkSync(path.join(root, 'node_modules', name), path.join(project, 'node_modules', name));
  }

  const body = `
    const model = ${JSON.stringify(path.join(root, 'test/fixtures/session/linear.onnx'))};
    const session = await InferenceSession.create(model);
    const { y } = await session.run({ x: new Tensor('float32', new Float32Array(8), [2, 4]) });
    if (y.dims.join() !== '2,3') throw new Error('wrong dims ' + y.dims);
    const { graph } = await readModel(model);
    if (graph.input[0].name !== 'x') throw new Error('wrong model');
    await session.dispose();`;
  writeFileSync(
    path.join(project, 'esm.mjs'),
    `import { InferenceSession, Tensor } from 'node-tensorrt'; import { readModel } from 'node-tensorrt/onnx';${body}`,
  );
  writeFileSync(
    path.join(project, 'cjs.cjs'),
    `const { InferenceSession, Tensor } = require('node-tensorrt'); const { readModel } = require('node-tensorrt/onnx');
    (async () => {${body} })();`,
  );
  const typed = `import { InferenceSession, Tensor, type TensorLike } from 'node-tensorrt';
    import { type ModelProto, readModel } from 'node-tensorrt/onnx';
    export async function infer(path: string, feeds: Record<string, TensorLike>): Promise<[Tensor, ModelProto]> {
      await using session = await InferenceSession.create(path, { device: 'cpu' });
      const outputs = await session.run(feeds);
      return [outputs.y ?? new Tensor('float32', [0], [1]), await readModel(path)];
    }`;
  writeFileSync(path.join(project, 'typed.mts'), typed);
  writeFileSync(path.join(project, 'typed.cts'), typed);

  // The README's first lines of code, as pasted.
  const pasted = /```js\n([\s\S]*?)```/.exec(readFileSync(path.join(root, 'README.md'), 'utf8'))[1];
  writeFileSync(path.join(project, 'readme.mjs'), pasted);
  const said = run(process.execPath, ['readme.mjs']);
  if (!/^cpu \[ 1, 3 \] Float32Array\(3\) \[ 2, 4, 6 \]$/m.test(said))
    throw new Error(`The README's code: ${said}`);

  for (const file of ['esm.mjs', 'cjs.cjs']) run(process.execPath, [file]);
  const flags = [
    '--noEmit',
    '--strict',
    '--module',
    'nodenext',
    '--target',
    'es2022',
    '--lib',
    'es2023,esnext.disposable',
  ];
  run(process.execPath, ['node_modules/typescript/bin/tsc', ...flags, 'typed.mts', 'typed.cts']);
  const help = run('node_modules/.bin/node-tensorrt', ['--help']);
  if (!help.includes('Usage: node-tensorrt')) throw new Error(`No help: ${help}`);
  console.log(
    `${packed.filename}: ${files.length} files, ${packed.size} bytes packed; ESM, CommonJS and types work.`,
  );
} finally {
  rmSync(project, { recursive: true, force: true });
}
