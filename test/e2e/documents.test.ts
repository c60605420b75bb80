import { spawn, spawnSync } from 'node:child_process';
import {
  existsSync,
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
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { GraphBuilder, serializeModel } from '../../dist/onnx.js';

// The documents hold what they say: every block of code runs as pasted, and what they name exists.
const root = path.resolve(import.meta.dirname, '../..');
const pages = [
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
  ...readdirSync(path.join(root, 'docs')).map((name) => `docs/${name}`),
].filter((page) => page.endsWith('.md'));
const read = (file: string) => readFileSync(path.join(root, file), 'utf8');

interface Snippet {
  readonly name: string;
  readonly code: string;
}

/** The blocks of code in a language, with where they stand. */
function snippets(file: string, language: 'js' | 'ts', prefix = ''): Snippet[] {
  const text = read(file);
  const block = new RegExp(`^${prefix}\`\`\`${language}\\n([\\s\\S]*?)^${prefix}\`\`\`$`, 'gm');
  return [...text.matchAll(block)].map(({ index, 1: code }) => ({
    name: `${file}:${text.slice(0, index).split('\n').length}`,
    code: code!
      .replaceAll(new RegExp(`^${prefix}`, 'gm'), '')
      .replaceAll(new RegExp(`^${prefix.trimEnd()}$`, 'gm'), ''),
  }));
}

/** Examples in docstrings: lines that begin with a star, at any depth. */
function examples(file: string): Snippet[] {
  return snippets(file, 'js', ' {1,3}\\* ');
}

const sources = readdirSync(path.join(root, 'lib'), { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => `lib/${name}`);

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'documents-'));
  mkdirSync(path.join(folder, 'node_modules'));
  symlinkSync(root, path.join(folder, 'node_modules/node-tensorrt'));
});
afterAll(() => rmSync(folder, { recursive: true }));

function modelOfImages(): Uint8Array {
  const g = new GraphBuilder('means');
  const x = g.input('x', 'float32', ['batch', 3, 224, 224]);
  g.op('GlobalAveragePool', [x], {}, { outputs: ['y'] });
  g.output('y', 'float32', ['batch', 3, 1, 1]);
  return serializeModel(g.finish());
}
const imageModel = modelOfImages();

/** A folder with what documents assume: a model of images, a language model, and the package. */
function place(name: string): string {
  const directory = path.join(folder, name);
  mkdirSync(directory, { recursive: true });
  writeFileSync(path.join(directory, 'model.onnx'), imageModel);
  symlinkSync(path.join(root, 'examples/demo-model'), path.join(directory, 'llama'));
  return directory;
}

function run(directory: string, file: string): Promise<{ status: number | null; stderr: string }> {
  const child = spawn(process.execPath, [file], { cwd: directory, stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  return new Promise((resolve) => child.on('close', (status) => resolve({ status, stderr })));
}

const runnable = [...pages.flatMap((page) => snippets(page, 'js')), ...sources.flatMap(examples)];

describe('runs as pasted', () => {
  test('there are examples', () => {
    expect(runnable.filter(({ name }) => name.startsWith('lib/')).length).toBeGreaterThan(10);
    expect(runnable.filter(({ name }) => name.startsWith('docs/')).length).toBeGreaterThan(5);
  });

  test.concurrent.each(runnable)(
    '$name',
    async ({ name, code }) => {
      const directory = place(name.replaceAll(/[^\w]/g, '-'));
      writeFileSync(path.join(directory, 'snippet.mjs'), code);
      expect(await run(directory, 'snippet.mjs')).toEqual({ status: 0, stderr: '' });
    },
    60_000,
  );

  test('TypeScript, compiled strictly', async () => {
    const blocks = pages.flatMap((page) => snippets(page, 'ts'));
    expect(blocks.length).toBeGreaterThan(2);
    const directory = place('typescript');
    const files = blocks.map(({ name, code }) => {
      const file = `${name.replaceAll(/[^\w]/g, '-')}.mts`;
      writeFileSync(path.join(directory, file), code);
      return file;
    });
    const compiler = path.join(root, 'node_modules/typescript/bin/tsc');
    const options = ['--strict', '--noUncheckedIndexedAccess', '--target', 'es2022', '--module', 'nodenext'];
    const library = [
      '--lib',
      'es2022,esnext.disposable',
      '--types',
      'node',
      '--typeRoots',
      path.join(root, 'node_modules/@types'),
    ];
    const { stdout } = spawnSync(process.execPath, [compiler, ...options, ...library, ...files], {
      cwd: directory,
      encoding: 'utf8',
    });
    expect(stdout).toBe('');
    for (const file of files) {
      expect({ file, ...(await run(directory, file.replace('.mts', '.mjs'))) }).toEqual({
        file,
        status: 0,
        stderr: '',
      });
    }
  }, 120_000);
});

describe('names what exists', () => {
  test.each(pages)('links of %s', (page) => {
    for (const [, target] of read(page).matchAll(/\]\((?!https?:)([^)#\s]+)/g)) {
      expect({ target, exists: existsSync(path.join(root, path.dirname(page), target!)) }).toEqual({
        target,
        exists: true,
      });
    }
    for (const [, file] of read(page).matchAll(
      /`((?:lib|native|test|scripts|bench|examples|docs)\/[\w./-]+\.\w+)`/g,
    )) {
      expect({ file, exists: existsSync(path.join(root, file!)) }).toEqual({ file, exists: true });
    }
  });

  test('every error code, and no other', () => {
    const codes = new Set(
      read('lib/base/errors.ts')
        .match(/'ERR_[A-Z_]+'/g)!
        .map((code) => code.slice(1, -1)),
    );
    const rows = [...read('docs/errors.md').matchAll(/^\| `(ERR_[A-Z_]+)`/gm)].map(([, code]) => code);
    expect(rows.toSorted()).toEqual([...codes].toSorted());
  });

  test('every environment variable of this package, and no other', () => {
    const inCode = sources.flatMap((file) => read(file).match(/\bNODE_TENSORRT_(?!BINARY_)[A-Z_]+\b/g) ?? []);
    const rows = [...read('docs/environment.md').matchAll(/^\| `(NODE_TENSORRT_[A-Z_]+)`/gm)].map(
      ([, name]) => name,
    );
    expect(rows.toSorted()).toEqual([...new Set(inCode)].toSorted());
  });
});
