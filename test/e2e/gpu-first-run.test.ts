// All of scripts/gpu-first-run, on a simulated GPU and TensorRT (test/native/stand_in), and on ones that fail.
import { execFile, execFileSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { cacheCopies, layersOf } from '../../scripts/first-run/plan-layers.mjs';
import { onStandIn } from '../stand-in.js';

const root = path.join(import.meta.dirname, '../..');
const standIns = process.env.NODE_TENSORRT_STAND_IN ?? path.join(root, 'build/addon-tests/stand_in');
const page = path.join(root, 'docs/gpu-results.md');
const folder = mkdtempSync(path.join(os.tmpdir(), 'first-run-test-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** @param results the file to write into; undefined: the script's default */
function firstRun(
  tensorrt: string,
  results: string | undefined,
  args: string[],
  env: Record<string, string> = {},
) {
  const script = path.join(root, 'scripts/gpu-first-run');
  const all = [tensorrt, ...(results ? ['--results', results] : []), '--quick', ...args];
  const settings = {
    ...process.env,
    LD_LIBRARY_PATH: path.join(standIns, 'cuda'),
    STAND_IN_CUDA_DEVICES: 'Stand-in GPU:90:24576',
    ...env,
  };
  return new Promise<{ code: number; output: string; page: string }>((resolve) => {
    execFile(script, all, { cwd: folder, env: settings, maxBuffer: 2 ** 26 }, (error, stdout, stderr) => {
      const written = results && existsSync(results) ? readFileSync(results, 'utf8') : '';
      const code = (error?.code as number | undefined) ?? 0;
      resolve({ code, output: `${stdout}${stderr}`, page: written });
    });
  });
}

/** The state of each step, as the page gives it. */
function states(written: string): Record<string, string> {
  const headings = written.matchAll(/^### (\d+)\. .*: (passed|failed|not run)(?: \(\d+\.\d s\))?$/gm);
  return Object.fromEntries([...headings].map(([, number, state]) => [number, state]));
}

test("finds a layer that only copies a cache in the inspector's report", () => {
  const tensors = (...names: string[]) => names.map((Name) => ({ Name, Dimensions: [1, 2, 512, 64] }));
  const layer = (Name: string, Inputs: object[], Outputs: object[], LayerType = 'kgen') => ({
    Name,
    LayerType,
    Inputs,
    Outputs,
  });
  const information = JSON.stringify({
    Layers: [
      layer('__myl_Scat_myl0_3', tensors('past.0.key', 'update'), tensors('present.0.key')),
      layer('_gemm_mha_v2_myl0_9', tensors('query', 'present.0.key'), tensors('y')),
      layer('__myl_MoveReshTran_myl0_2', tensors('past.0.key'), tensors('x')),
      layer('__myl_Move_myl0_4', tensors('query'), tensors('copied query')),
      layer('__myl_Move_myl0_5', tensors('present.0.key [profile 1]'), tensors('__mye7')),
      layer('__myl_MoveTran_myl0_6', tensors('present.0.value.1'), tensors('__mye8')),
      layer('Reformatting CopyNode for Input Tensor 0', tensors('past.0.key'), tensors('__mye9'), 'Reformat'),
    ],
    Bindings: ['past.0.key'],
  });
  const caches = ['key', 'value'].map((part) => ({ input: `past.0.${part}`, output: `present.0.${part}` }));
  expect(cacheCopies(layersOf(information), caches)).toEqual([
    '__myl_Move_myl0_5 of present.0.key',
    '__myl_MoveTran_myl0_6 of present.0.value',
    'Reformatting CopyNode for Input Tensor 0 of past.0.key',
  ]);
  expect(
    layersOf('{"Layers": ["a", "b"], "Bindings": []}').map(({ name }: { name: string }) => name),
  ).toEqual(['a', 'b']);
});

onStandIn('gpu-first-run on stand-ins', () => {
  const trt10 = path.join(standIns, 'trt10');

  test('runs all steps, and reports what each proves and found', { timeout: 540_000 }, async () => {
    const results = path.join(folder, 'whole.md');
    const { code, output, page: written } = await firstRun(trt10, results, []);
    const all = Object.fromEntries(Array.from({ length: 11 }, (_, i) => [String(i + 1), 'passed']));
    expect({ code, states: states(written) }, output).toEqual({ code: 0, states: all });
    expect(written).toMatch(
      /^<!-- gpu-first-run -->\n\n\d{4}-\d\d-\d\d, .*Stand-in GPU.*TensorRT trt10 10\./,
    );
    expect(written).toContain('11 of 11 steps passed, 0 failed, 0 did not run');
    expect(written.match(/^Proves: ./gm)).toHaveLength(11);
    // The findings in each step's table: differences, answers, times.
    const rows = [
      /^\| FP32 \| [\d.]+ \| [\d.]+ \| [\d.]+ \| \d\.\de[+-]\d+ \|$/m,
      /^\| one causal layer \| [\d.]+ \| [\d.]+ \| 2 \| 2 \| \d+ \| 0 \|$/m,
      /^\| qwen2-window\/optimum \| FP32 \| [\d.]+ \| \d\.\de-\d+ \| \d\.\de-\d+ \|$/m,
      /^\| llama-int4\/genai \| FP32 \| [\d.]+ \| 5 of 5 \| \d\.\de-\d+ \|$/m,
      /^\| 128 \| 112 \| [\d.]+ \| \d+ \| [\d.]+ \| \d+ \| [\d.]+ \| \d+ \|$/m,
      /^\| off \| [\d.]+ \| [\d.]+ \| 0 \| 0 \| 0 \|$/m,
      /^\| a decoder's prompt \| [\d.]+ \| [\d.]+ \| [\d.]+ \|$/m,
      /^40 requests at once, 16 rows: \d+ tokens\/s answered/m,
      /^\d+ sessions came and went; CUDA graphs beside them: \d+ captured, \d+ replayed, 0 refused\.$/m,
    ];
    for (const row of rows) expect(written).toMatch(row);
    expect(written).toMatch(/^The layers of one causal layer: .*layers\.0\.attention\/key\/cache, /m);
    expect(written).toMatch(/The poisoned request: ERR_EXECUTION_FAILED, /);
  });

  test('continues after steps that fail, crash or hang, and explains the failure', {
    timeout: 120_000,
  }, async () => {
    const trouble = path.join(folder, 'trouble.mjs');
    writeFileSync(
      trouble,
      `const [, , step] = process.argv;
      if (step === 'two-steps') process.abort();
      while (step === 'poison');`,
    );
    const results = path.join(folder, 'failing.md');
    const args = ['--only', '1,smallest,4,5', '--minutes', '0.3'];
    const failing = await firstRun(trt10, results, args, {
      STAND_IN_FAULTS: 'deserialize:1',
      NODE_OPTIONS: `--import=${trouble}`,
    });
    expect({ code: failing.code, states: states(failing.page) }, failing.output).toEqual({
      code: 1,
      states: { 1: 'passed', 2: 'failed', 4: 'failed', 5: 'failed' },
    });
    expect(failing.page).toContain('1 of 4 steps passed, 3 failed, 0 did not run');
    expect(failing.page).toMatch(
      /2\. The smallest engine: failed.*\n\nProves: .*\n\n\*\*Failed:\*\* ERR_ENGINE_CORRUPT: .*\n\nWhat that means: The binding/,
    );
    expect(failing.page).toMatch(/4\. .*\n\nProves: .*\n\n\*\*Failed:\*\* Its process ended by SIGABRT/);
    expect(failing.page).toMatch(/5\. .*\n\nProves: .*\n\n\*\*Failed:\*\* It was stopped after \d+ s\./);
  });

  test.each([
    ['trt11', 90],
    ['rtx', 89],
  ])("reads the layers of another flavour's plan: %s", async (flavour, computeCapability) => {
    const results = path.join(folder, `${flavour}.md`);
    const env = { STAND_IN_CUDA_DEVICES: `Stand-in GPU:${computeCapability}:24576` };
    const args = ['--only', 'attention'];
    const { code, output, page: written } = await firstRun(path.join(standIns, flavour), results, args, env);
    expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining('layers of the plan') });
    expect(written).toMatch(/^\| two layers with a window \| [\d.]+ \| [\d.]+ \| 4 \| 4 \| \d+ \| 0 \|$/m);
    expect(written).toMatch(/^The layers of one causal layer: .*layers\.0\.attention\/key\/cache, /m);
  });

  test('names the steps that there was no time for', async () => {
    const results = path.join(folder, 'late.md');
    const { code, page: written } = await firstRun(trt10, results, ['--only', '1,2,11', '--minutes', '0.01']);
    expect({ code, states: states(written) }).toEqual({
      code: 1,
      states: { 1: 'not run', 2: 'not run', 11: 'not run' },
    });
    expect(written).toContain('Not run: the 0.01 minutes are over.');
  });

  test("keeps stand-ins out of the repository's page, and joins packed pieces", async () => {
    const packed = path.join(folder, 'packed');
    const inside = path.join(folder, 'inside');
    mkdirSync(path.join(inside, 'bin'), { recursive: true });
    cpSync(trt10, path.join(inside, 'lib'), { recursive: true });
    symlinkSync(process.execPath, path.join(inside, 'bin/node'));
    mkdirSync(path.join(packed, '01'), { recursive: true });
    execFileSync('tar', ['-C', inside, '-cf', path.join(packed, '01/part'), 'lib', 'bin']);
    writeFileSync(path.join(packed, '01/join.sh'), 'cd "$1"; tar -xf 01/part; rm 01/part\n');
    const before = readFileSync(page, 'utf8');
    for (const _ of ['joined', 'joined before']) {
      const { code, output } = await firstRun(packed, undefined, ['--only', 'builder']);
      expect({ code, output }).toEqual({ code: 0, output: expect.stringContaining('Nothing was written') });
      expect(output).toContain(path.join(packed, 'lib/libnvinfer.so.10'));
    }
    expect(readFileSync(page, 'utf8')).toBe(before);
  });

  test('refuses unknown steps and options', async () => {
    for (const [args, message] of [
      [['--only', 'builder,cooking'], /there is no step cooking/],
      [['--minutes', 'ten'], /--minutes must be a number/],
      [['--fast'], /usage: /],
    ] as const) {
      const { code, output } = await firstRun(trt10, undefined, [...args]);
      expect({ code, output }).toEqual({ code: 2, output: expect.stringMatching(message) });
    }
  });
});
