// Programs for onnxruntime-node (test/fixtures/typescript), in which only the name of the package is changed to ours.
import { execFile } from 'node:child_process';
import { mkdir, mkdtemp, readdir, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { promisify } from 'node:util';
import ts from 'typescript';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../..');
const programs = path.join(root, 'test/fixtures/typescript');
const names = (await readdir(programs)).filter((name) => /\.c?ts$/.test(name));
const packages = ['onnxruntime-node', 'node-tensorrt'] as const;

let project: string;
/** The sources of a package's programs, with the extensions of both kinds of module. */
const sources = new Map<string, string[]>();

beforeAll(async () => {
  project = await mkdtemp(path.join(os.tmpdir(), 'typescript-'));
  await mkdir(path.join(project, 'node_modules'));
  for (const name of ['onnxruntime-node', 'onnxruntime-common', '@types', 'undici-types']) {
    await symlink(path.join(root, 'node_modules', name), path.join(project, 'node_modules', name));
  }
  await symlink(root, path.join(project, 'node_modules/node-tensorrt'));
  await writeFile(path.join(project, 'package.json'), '{ "private": true }');
  for (const name of packages) {
    await mkdir(path.join(project, name));
    const written: string[] = [];
    for (const program of names) {
      const text = (await readFile(path.join(programs, program), 'utf8')).replaceAll(
        'onnxruntime-node',
        name,
      );
      const stem = program.replace(/\.c?ts$/, '');
      const files = program.endsWith('.cts') ? [program] : [`${stem}.ts`, `${stem}.mts`, `${stem}.cts`];
      for (const file of files) {
        written.push(path.join(project, name, file));
        await writeFile(written.at(-1)!, text);
      }
    }
    sources.set(name, written);
  }
});
afterAll(() => rm(project, { recursive: true }));

/** Declarations, which most programs share, are parsed once for each target. */
const parsed = new Map<string, ts.SourceFile | undefined>();

function errors(files: readonly string[], options: ts.CompilerOptions): string[] {
  const all: ts.CompilerOptions = {
    target: ts.ScriptTarget.ES2022,
    ...options,
    strict: true,
    noEmit: true,
    types: ['node'],
  };
  const host = ts.createCompilerHost(all);
  const { getSourceFile } = host;
  host.getCurrentDirectory = () => project;
  host.getSourceFile = (file, format, ...rest) => {
    const key = JSON.stringify([file, format]);
    if (!parsed.has(key)) parsed.set(key, getSourceFile(file, format, ...rest));
    return parsed.get(key);
  };
  const program = ts.createProgram({ rootNames: files, options: all, host });
  return ts.getPreEmitDiagnostics(program).map((diagnostic) => {
    const text = ts.flattenDiagnosticMessageText(diagnostic.messageText, '\n');
    const { file, start = 0 } = diagnostic;
    if (!file) return text;
    return `${path.relative(project, file.fileName)}:${file.getLineAndCharacterOfPosition(start).line + 1}: ${text}`;
  });
}

const { ModuleKind, ModuleResolutionKind: Resolution, ScriptTarget } = ts;
const settings: Record<string, { files: RegExp; options: ts.CompilerOptions }> = {
  nodenext: { files: /\.[mc]ts$/, options: { module: ModuleKind.NodeNext } },
  'node16, esModuleInterop': {
    files: /\.[mc]ts$/,
    options: { module: ModuleKind.Node16, esModuleInterop: true },
  },
  'bundler, the newest library': {
    files: /[^c]\.ts$/,
    options: { module: ModuleKind.ESNext, moduleResolution: Resolution.Bundler, target: ScriptTarget.ESNext },
  },
  node10: {
    files: /\.ts$/,
    options: { module: ModuleKind.CommonJS, moduleResolution: Resolution.Node10, esModuleInterop: true },
  },
};

describe.each(packages)('programs for onnxruntime-node, with %s', (name) => {
  test.each(Object.entries(settings))('have no type error: %s', (_, { files, options }) => {
    const all = sources.get(name)!.filter((file) => files.test(file));
    expect(all.length).toBeGreaterThanOrEqual(4);
    for (const noUncheckedIndexedAccess of [true, false]) {
      const some = all.filter((file) => /\bloose\./.test(file) !== noUncheckedIndexedAccess);
      expect(errors(some, { ...options, skipLibCheck: true, noUncheckedIndexedAccess })).toEqual([]);
    }
  });
});

test("our declarations only need Node's library", () => {
  const files = sources.get('node-tensorrt')!.filter((file) => /\.[mc]ts$/.test(file));
  expect(errors(files, { module: ModuleKind.NodeNext, lib: ['lib.es2022.d.ts'] })).toEqual([]);
});

test('wrong arguments are type errors', async () => {
  const file = path.join(project, 'wrong.mts');
  const lines = [
    `import { InferenceSession, Tensor, TensorRTError, type ErrorCode } from 'node-tensorrt';`,
    `import type * as ort from 'onnxruntime-node';`,
    `const floats: Float32Array = new Tensor('float32', [1]).data;`,
    `const inferred: Tensor<'int64'> = new Tensor([1n]);`,
    `const first: number | bigint | string | undefined = (new Tensor('int8', [1]) as Tensor).data[0];`,
    `declare const theirs: ort.Tensor; declare const session: InferenceSession; void session.run({ x: theirs });`,
    `const code: ErrorCode = new TensorRTError('ERR_NO_GPU', '').code; void [floats, inferred, first, code];`,
    `const bigints: BigInt64Array = new Tensor('float32', [1]).data;`,
    `void InferenceSession.create('m.onnx', { executionProviders: ['cpu'] });`,
    `void new Tensor('flaot32', [1]);`,
    `if (new TensorRTError('ERR_NO_GPU', '').code === 'ERR_NO_GPUS') void bigints;`,
    `void session.run({ x: { type: 'float32', dims: [1], data: 5 } });`,
  ];
  await writeFile(file, lines.join('\n'));
  const found = errors([file], { module: ModuleKind.NodeNext, skipLibCheck: true });
  expect(found.map((error) => Number(/^wrong\.mts:(\d+)/.exec(error)?.[1]))).toEqual([8, 9, 10, 11, 12]);
});

test.each(names)(
  '%s prints what it prints with onnxruntime-node, as either kind of module',
  async (program) => {
    const text = await readFile(path.join(programs, program), 'utf8');
    const kinds = program.endsWith('.cts') ? ['.cjs'] : ['.mjs', '.cjs'];
    for (const kind of kinds) {
      const module = kind === '.mjs' ? ModuleKind.ESNext : ModuleKind.CommonJS;
      const options = { module, target: ScriptTarget.ES2022, esModuleInterop: true };
      const { outputText } = ts.transpileModule(text, { compilerOptions: options });
      const outputs = await Promise.all(
        packages.map(async (name) => {
          const file = path.join(project, name, path.basename(program).replace(/\.c?ts$/, kind));
          await writeFile(file, outputText.replaceAll('onnxruntime-node', name));
          const { stdout, stderr } = await promisify(execFile)(process.execPath, [
            file,
            path.join(root, 'test/fixtures/session'),
          ]);
          expect(stderr).toBe('');
          return stdout;
        }),
      );
      expect(outputs[0]).not.toBe('');
      expect(outputs[1]).toBe(outputs[0]);
    }
  },
);
