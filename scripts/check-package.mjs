// Packs the package, installs it into empty projects without a compiler, and uses it there from ESM, CommonJS and
// TypeScript. Needs a built checkout (`npm run build`) and its binaries (`npm run prebuild`).
import { execFileSync, spawnSync } from 'node:child_process';
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { checkBinary } from './check-binary.mjs';

const root = path.resolve(import.meta.dirname, '..');
const scratch = mkdtempSync(path.join(os.tmpdir(), 'node-tensorrt-package-'));
const model = path.join(root, 'test/fixtures/session/linear.onnx');
const { version } = JSON.parse(readFileSync(path.join(root, 'package.json'), 'utf8'));

// A PATH with Node, npm and a shell, but no compiler.
const bin = path.join(scratch, 'bin');
mkdirSync(bin);
const which = (name) => spawnSync('sh', ['-c', `command -v ${name}`], { encoding: 'utf8' }).stdout.trim();
for (const name of ['node', 'npm', 'sh', 'env', 'cat', 'ls', 'mkdir', 'rm', 'uname', 'dirname', 'basename']) {
  symlinkSync(which(name), path.join(bin, name));
}
const { NODE_TENSORRT_BINARY, NODE_TENSORRT_CUDA, NODE_PATH, ...inherited } = process.env;
const environment = { ...inherited, PATH: bin };

function run(command, args, options = {}) {
  return execFileSync(command, args, {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    ...options,
    env: { ...environment, ...options.env },
  });
}

/** Bytes that the package may have when packed: a download of a second or two. */
const sizeBudget = 10e6;

/** Packs the package into `scratch`; checks the names and the size of what npm packs, and that npm would publish it. */
function pack() {
  const [packed] = JSON.parse(
    run('npm', ['pack', '--json', '--pack-destination', scratch], { cwd: root, env: process.env }),
  );
  const files = packed.files.map((file) => file.path);
  const binaries = ['12', '13'].map(
    (cuda) => `prebuilds/cuda${cuda}/prebuilds/linux-x64/node-tensorrt.glibc.node`,
  );
  for (const file of binaries) {
    if (!files.includes(file)) throw new Error(`The package lacks ${file}: \`npm run prebuild\` makes it.`);
  }
  const expected =
    /^(dist\/.+\.(js|mjs|d\.ts|d\.mts|map)|package\.json|README\.md|CHANGELOG\.md|LICENSE|prebuilds\/README\.md)$/;
  const foreign = files.filter((file) => !expected.test(file) && !binaries.includes(file));
  if (foreign.length > 0) throw new Error(`The package holds what it should not: ${foreign.join(', ')}`);
  for (const file of binaries) console.log(`${file}: ${checkBinary(path.join(root, file))}`);
  if (packed.size > sizeBudget) {
    throw new Error(`The package has ${packed.size} bytes when packed; the budget is ${sizeBudget}.`);
  }
  run('npm', ['publish', '--dry-run'], { cwd: root, env: process.env, stdio: ['ignore', 'pipe', 'pipe'] });
  return { tarball: path.join(scratch, packed.filename), count: files.length, size: packed.size };
}

/** An empty project with the package installed, beside packages that a user would have installed. */
function install(name, tarball, ...options) {
  const project = path.join(scratch, name);
  mkdirSync(project);
  writeFileSync(path.join(project, 'package.json'), '{ "name": "consumer", "private": true }');
  run('npm', ['install', '--no-audit', '--no-fund', ...options, tarball], { cwd: project });
  // Link this checkout's runtime, types and compiler.
  for (const part of ['onnxruntime-node', 'onnxruntime-common', '@types', 'typescript', 'undici-types']) {
    symlinkSync(path.join(root, 'node_modules', part), path.join(project, 'node_modules', part));
  }
  return project;
}

/** Runs a model from both kinds of module, and from the README's first lines, pasted. */
function useModules(project) {
  const body = `
    const session = await InferenceSession.create(${JSON.stringify(model)});
    const { y } = await session.run({ x: new Tensor('float32', new Float32Array(8), [2, 4]) });
    if (y.dims.join() !== '2,3') throw new Error('wrong dims ' + y.dims);
    const { graph } = await readModel(${JSON.stringify(model)});
    if (graph.input[0].name !== 'x') throw new Error('wrong model');
    await session.dispose();`;
  const modules = {
    'esm.mjs': `import { InferenceSession, Tensor } from 'node-tensorrt'; import { readModel } from 'node-tensorrt/onnx';${body}`,
    'cjs.cjs': `const { InferenceSession, Tensor } = require('node-tensorrt'); const { readModel } = require('node-tensorrt/onnx');
      (async () => {${body} })();`,
    'readme.mjs': /```js\n([\s\S]*?)```/.exec(readFileSync(path.join(root, 'README.md'), 'utf8'))[1],
  };
  for (const [file, text] of Object.entries(modules)) {
    writeFileSync(path.join(project, file), text);
    const said = run('node', [file], { cwd: project });
    if (file === 'readme.mjs' && !/^cpu \[ 1, 3 \] Float32Array\(3\) \[ 2, 4, 6 \]$/m.test(said)) {
      throw new Error(`The README's code: ${said}`);
    }
  }
}

function checkTypes(project) {
  const typed = `import { InferenceSession, Tensor, type TensorLike } from 'node-tensorrt';
    import { type ModelProto, readModel } from 'node-tensorrt/onnx';
    export async function infer(path: string, feeds: Record<string, TensorLike>): Promise<[Tensor, ModelProto]> {
      await using session = await InferenceSession.create(path, { device: 'cpu' });
      const outputs = await session.run(feeds);
      return [outputs.y ?? new Tensor('float32', [0], [1]), await readModel(path)];
    }`;
  for (const file of ['typed.mts', 'typed.cts']) writeFileSync(path.join(project, file), typed);
  const options = '--noEmit --strict --module nodenext --target es2022 --lib es2023,esnext.disposable'.split(
    ' ',
  );
  const files = ['typed.mts', 'typed.cts'];
  // Programs for onnxruntime-node in which only the name of the package is changed.
  const programs = path.join(root, 'test/fixtures/typescript');
  for (const name of readdirSync(programs).filter((name) => name.endsWith('.ts'))) {
    const text = readFileSync(path.join(programs, name), 'utf8').replaceAll(
      'onnxruntime-node',
      'node-tensorrt',
    );
    for (const file of [name.replace('.ts', '.mts'), name.replace('.ts', '.cts')]) {
      writeFileSync(path.join(project, file), text);
      files.push(file);
    }
  }
  run('node', ['node_modules/typescript/bin/tsc', ...options, ...files], { cwd: project });
}

/** Loads the binary of each variant, and the default one, and checks what each was compiled for. */
function loadVariants(project) {
  const addon = (env) => {
    const said = run('node', ['node_modules/node-tensorrt/dist/apps/cli/main.js', 'doctor', '--json'], {
      cwd: project,
      env,
    });
    return JSON.parse(said).addon;
  };
  const flavours = ['trt10', 'trt11', 'rtx'];
  for (const [env, cuda] of [
    [{ NODE_TENSORRT_CUDA: '12' }, 12],
    [{ NODE_TENSORRT_CUDA: '13' }, 13],
    [{}, 13],
  ]) {
    const loaded = addon(env);
    const file = `node_modules/node-tensorrt/prebuilds/cuda${cuda}/prebuilds/linux-x64/node-tensorrt.glibc.node`;
    const expected = { path: path.join(project, file), cuda, flavours };
    if (JSON.stringify(loaded) !== JSON.stringify(expected)) {
      throw new Error(`Loaded ${JSON.stringify(loaded)}, not ${JSON.stringify(expected)}.`);
    }
  }
}

function lint(tarball) {
  const tools = [
    ['publint/src/cli.js', 'run', tarball, '--strict'],
    ['@arethetypeswrong/cli/dist/index.js', tarball, '--format', 'ascii'],
  ];
  for (const [tool, ...args] of tools) {
    const result = spawnSync(process.execPath, [path.join(root, 'node_modules', tool), ...args], {
      encoding: 'utf8',
    });
    if (result.status !== 0) throw new Error(`${tool}:\n${result.stdout}${result.stderr}`);
  }
}

try {
  for (const name of ['cc', 'gcc', 'g++', 'clang', 'make', 'cmake', 'python3']) {
    const found = spawnSync('sh', ['-c', `command -v ${name}`], { env: environment });
    if (found.status === 0) throw new Error(`${name} is on the PATH of the machine without compilers.`);
  }
  const { tarball, count, size } = pack();
  lint(tarball);
  for (const [name, option] of [
    ['plain', '--ignore-scripts=false'],
    ['without-scripts', '--ignore-scripts'],
  ]) {
    const project = install(name, tarball, option);
    useModules(project);
    checkTypes(project);
    loadVariants(project);
    const help = run('node_modules/.bin/node-tensorrt', ['--version'], { cwd: project });
    if (help.trim() !== version) throw new Error(`node-tensorrt --version: ${help}`);
  }
  console.log(
    `${path.basename(tarball)}: ${count} files, ${size} bytes packed; ESM, CommonJS and types work.`,
  );
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
