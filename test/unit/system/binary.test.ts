// The choice of a binary, and the error if none can be loaded. Runs in separate processes with a simulated platform.
import { execFileSync, spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = path.join(import.meta.dirname, '../../..');
const addon = path.join(root, 'build/addon/Release/node_tensorrt.node');

// An installed package: no checkout's build beside it, and binaries where prebuildify puts them.
let directory: string;
let installed: string;
beforeAll(() => {
  directory = mkdtempSync(path.join(os.tmpdir(), 'binary-'));
  installed = path.join(directory, 'node_modules/node-tensorrt');
  for (const name of ['dist', 'package.json'])
    cpSync(path.join(root, name), path.join(installed, name), { recursive: true });
  for (const name of ['node-gyp-build', 'commander']) {
    symlinkSync(path.join(root, 'node_modules', name), path.join(directory, 'node_modules', name));
  }
});
afterAll(() => rmSync(directory, { recursive: true }));

function prebuilt(cuda: number): string {
  return path.join(installed, `prebuilds/cuda${cuda}/prebuilds/linux-x64/node-tensorrt.glibc.node`);
}
function putBinary(cuda: number, contents?: string): void {
  mkdirSync(path.dirname(prebuilt(cuda)), { recursive: true });
  if (contents === undefined) cpSync(addon, prebuilt(cuda));
  else writeFileSync(prebuilt(cuda), contents);
}

interface Outcome {
  path?: string;
  code?: string;
  message?: string;
  causes?: string[];
}
function load(options: { env?: Record<string, string>; flags?: string[]; platform?: string } = {}): Outcome {
  const script = `${options.platform ?? ''}
    const { native, nativePath } = require(${JSON.stringify(path.join(installed, 'dist/system/native.js'))});
    try {
      native();
      console.log(JSON.stringify({ path: nativePath() }));
    } catch ({ code, message, cause }) {
      const causes = (cause?.errors ?? [cause]).map((error) => error?.message);
      console.log(JSON.stringify({ code, message, causes }));
    }`;
  const { NODE_TENSORRT_BINARY, NODE_TENSORRT_CUDA, ...env } = process.env;
  const args = [...(options.flags ?? []), '-e', script];
  const said = execFileSync(process.execPath, args, {
    encoding: 'utf8',
    cwd: directory,
    env: { ...env, ...options.env },
  });
  return JSON.parse(said);
}

const driver = (version: string) => `{
  const fs = require('node:fs'), readFileSync = fs.readFileSync;
  fs.readFileSync = (file, ...rest) => file === '/proc/driver/nvidia/version'
    ? 'NVRM version: NVIDIA UNIX x86_64 Kernel Module  ${version}  Tue Jul  1 00:00:00 UTC 2025\\nGCC version:  gcc version 12.2.0\\n'
    : readFileSync(file, ...rest);
}`;
const glibc = (version: string | undefined) =>
  `process.report.getReport = () => ({ header: { glibcVersionRuntime: ${JSON.stringify(version)} } });`;
const system = (platform: string, arch: string) => `
  Object.defineProperty(process, 'platform', { value: '${platform}' });
  Object.defineProperty(process, 'arch', { value: '${arch}' });`;

test('the newest variant that the driver allows, else the next', () => {
  putBinary(12);
  putBinary(13);
  expect(load()).toEqual({ path: prebuilt(13) });
  expect(load({ platform: driver('580.65.06') })).toEqual({ path: prebuilt(13) });
  expect(load({ platform: driver('535.183.01') })).toEqual({ path: prebuilt(12) });
  putBinary(13, 'not a library');
  expect(load({ platform: driver('580.65.06') })).toEqual({ path: prebuilt(12) });
  putBinary(13);
  rmSync(prebuilt(12));
  expect(load({ platform: driver('535.183.01') })).toEqual({ path: prebuilt(13) });
});

test('only the binary that the environment names', () => {
  putBinary(12);
  putBinary(13);
  expect(load({ env: { NODE_TENSORRT_CUDA: '12' } })).toEqual({ path: prebuilt(12) });
  expect(load({ env: { NODE_TENSORRT_CUDA: '12', NODE_TENSORRT_BINARY: addon } })).toEqual({ path: addon });
  rmSync(prebuilt(12));
  expect(load({ env: { NODE_TENSORRT_CUDA: '12' } })).toMatchObject({
    code: 'ERR_LIBRARY_NOT_FOUND',
    causes: [expect.stringContaining('No native build was found')],
  });
  expect(load({ env: { NODE_TENSORRT_CUDA: '11' } })).toMatchObject({
    code: 'ERR_INVALID_ARG_VALUE',
    message: 'NODE_TENSORRT_CUDA must be 12 or 13, not "11".',
  });
  expect(load({ env: { NODE_TENSORRT_BINARY: '/nowhere.node' } })).toMatchObject({
    code: 'ERR_LIBRARY_NOT_FOUND',
    message: expect.stringMatching(/Correct NODE_TENSORRT_BINARY[\s\S]*\/nowhere\.node does not exist/),
  });
});

test('the error lists every attempt and keeps every cause', () => {
  putBinary(12, 'not a library');
  putBinary(13, 'nor this');
  const { code, message, causes } = load();
  expect(code).toBe('ERR_LIBRARY_NOT_FOUND');
  expect(message).toMatch(
    /^Could not load the native addon of node-tensorrt on linux-x64\.\nPossible solutions:\n- Install node-tensorrt again.*\n[\s\S]*What was tried:\n- .*cuda13: .*\n- .*cuda12: .*$/,
  );
  expect(causes).toEqual([
    expect.stringContaining(prebuilt(13)), // the loader's own words
    expect.stringContaining(prebuilt(12)),
  ]);
});

test.each<[string, Parameters<typeof load>[0], string, RegExp]>([
  [
    'macOS',
    { platform: system('darwin', 'arm64') },
    'ERR_LIBRARY_UNSUPPORTED',
    /Found darwin-arm64; requires linux-x64\./,
  ],
  [
    'Windows',
    { platform: system('win32', 'x64') },
    'ERR_LIBRARY_UNSUPPORTED',
    /Found win32-x64; requires linux-x64\./,
  ],
  [
    'arm64',
    { platform: system('linux', 'arm64') },
    'ERR_LIBRARY_UNSUPPORTED',
    /Found linux-arm64; requires linux-x64\./,
  ],
  ['musl', { platform: glibc(undefined) }, 'ERR_LIBRARY_UNSUPPORTED', /musl.*requires glibc 2\.34 or newer/],
  [
    'an old glibc',
    { platform: glibc('2.31') },
    'ERR_LIBRARY_UNSUPPORTED',
    /Found glibc 2\.31; requires glibc 2\.34 or newer/,
  ],
  [
    'an old Node',
    { platform: `Object.defineProperty(process.versions, 'node', { value: '18.20.4' });` },
    'ERR_LIBRARY_UNSUPPORTED',
    /Found 18\.20\.4; requires 20 or newer/,
  ],
  ['no addons', { flags: ['--no-addons'] }, 'ERR_LIBRARY_NOT_FOUND', /Start Node\.js without --no-addons/],
])('on %s, the error names what is found and what is supported', (_, options, code, message) => {
  putBinary(12, 'not a library');
  putBinary(13, 'not a library');
  expect(load(options)).toMatchObject({ code, message: expect.stringMatching(message) });
});

test('importing opens nothing and does not throw', () => {
  putBinary(12, 'not a library');
  putBinary(13, 'not a library');
  const script = `
    process.dlopen = () => { throw new Error('opened'); };
    require('node-tensorrt');
    import('node-tensorrt').then(({ InferenceSession }) => console.log(typeof InferenceSession.create));`;
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', cwd: directory });
  expect(said).toBe('function\n');
});

test('a language model says so too, whatever it would have done first', () => {
  const script = `
    require('./dist/index.js')
      .LanguageModel.load(${JSON.stringify(path.join(root, 'examples/demo-model'))}, { device: 'cpu' })
      .catch(({ code, message }) => console.log(code, message.split('\\n')[0]));`;
  const env = { ...process.env, NODE_TENSORRT_BINARY: path.join(directory, 'missing.node') };
  const said = execFileSync(process.execPath, ['-e', script], { encoding: 'utf8', cwd: root, env });
  expect(said).toMatch(
    /^ERR_LIBRARY_NOT_FOUND Could not load the native addon of node-tensorrt on linux-x64\./,
  );
});

test.each([
  ['macOS', system('darwin', 'arm64'), /on darwin-arm64\.\nPossible solutions:\n- Use a supported platform/],
  ['arm64', system('linux', 'arm64'), /on linux-arm64\.[\s\S]*requires linux-x64/],
  ['musl', glibc(undefined), /on linux-x64\.\nPossible solutions:\n- Use a system with glibc/],
])('building on %s reports what is supported, and compiles nothing', (_, platform, expected) => {
  const script = path.join(root, 'scripts/build.mjs');
  const args = ['--require', `${directory}/platform.cjs`, script];
  writeFileSync(path.join(directory, 'platform.cjs'), platform);
  const { status, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
  expect({ status, stderr }).toEqual({ status: 1, stderr: expect.stringMatching(expected) });
  expect(stderr).not.toContain('Building the native addon');
});
