import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { LanguageModel, MaskSet } from 'node-tensorrt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { demoModel } from '../demo-model.js';

// `node-tensorrt prune`, as a user calls it.

const root = path.resolve(import.meta.dirname, '../..');
const model = path.join(demoModel, 'model.onnx');
let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(os.tmpdir(), 'prune-'));
});
afterAll(() => rmSync(folder, { recursive: true }));
const at = (name: string) => path.join(folder, name);

function prune(...args: string[]) {
  const command = [path.join(root, 'dist/apps/cli/main.js'), 'prune', ...args];
  return spawnSync(process.execPath, command, { encoding: 'utf8' });
}

describe('prune', () => {
  test('2:4 writes the model and the masks, and reports each weight', async () => {
    const args = ['-o', at('24.onnx'), '--pattern', '2:4', '--masks', at('masks.safetensors'), '--json'];
    const { status, stdout, stderr } = prune(model, ...args);
    expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ output: at('24.onnx'), masks: at('masks.safetensors') });
    const masks = await MaskSet.load(at('masks.safetensors'));
    expect(report.layers).toEqual(masks.report());
    expect(masks.report().filter(({ skipped }) => !skipped).length).toBe(21);
    expect(masks.report().every(({ twoFour, skipped }) => twoFour || skipped)).toBe(true);
  });

  test('the masks of a file are used as they are', () => {
    const { status } = prune(model, '-o', at('again.onnx'), '--use', at('masks.safetensors'));
    expect(status).toBe(0);
    expect(statSync(at('again.onnx')).size).toBe(statSync(at('24.onnx')).size);
  });

  test('--shrink makes a smaller model that still answers', async () => {
    const args = ['-o', at('half.onnx'), '--structure', 'mlp', '--density', '0.5', '--shrink'];
    const { status, stdout } = prune(model, ...args);
    expect(status).toBe(0);
    expect(stdout).toMatch(/192×128 +50\.0 %/);
    expect(statSync(at('half.onnx')).size).toBeLessThan(0.8 * statSync(model).size);
    await using loaded = await LanguageModel.load(at('half.onnx'), { device: 'cpu' });
    const { tokens } = await loaded.generate([5, 6, 7], { maxTokens: 4, ignoreEos: true });
    expect(tokens.length).toBe(4);
  });

  test.each([
    ['no rule', [], 2, /--pattern, --density and --use/],
    ['two rules', ['--pattern', '2:4', '--density', '0.5'], 2, /--pattern, --density and --use/],
    ['a density above 1', ['--density', '2'], 2, /--density must be a number from 0 to 1/],
    ['an impossible pattern', ['--pattern', '5:4'], 1, /ERR_INVALID_ARG_VALUE: --pattern must be/],
    ['a file that is no masks', ['--use', model], 1, /ERR_MODEL_INVALID/],
  ] as const)('%s is an error, and nothing is written', (_, args, status, message) => {
    const result = prune(model, '-o', at('none.onnx'), ...args);
    expect(result.status).toBe(status);
    expect(result.stderr).toMatch(message);
    expect(result.stdout).toBe('');
    expect(existsSync(at('none.onnx'))).toBe(false);
  });
});
