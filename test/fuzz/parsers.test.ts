import { spawn } from 'node:child_process';
import { copyFile, mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises';
import os from 'node:os';
import path from 'node:path';
import { buildEngine, LanguageModel } from 'node-tensorrt';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { pythonOracle } from '../../scripts/python-oracle.mjs';
import { withShortPlan } from './mutate.mjs';

// Parsers of untrusted bytes get mutated files: each must be read, or refused by an error of ours, in little time and
// memory. `npm run test:full` runs a million of each format; a case is found again by its number:
// `node test/fuzz/parse.mjs onnx SEED NUMBER 1 CORPUS`.

const full = process.env.NODE_TENSORRT_TEST_FULL === '1';
const cases = full ? 1_000_000 : 4_000;
const casesPerProcess = full ? 25_000 : 4_000;
const seed = '1';

/** Address space of a parsing process, KiB: Node.js alone takes 0.7 GiB. No mutated file is larger than some 100 kB. */
const addressSpace = 2_500_000;

/** How long a process may take: far more than it needs on a busy machine, far less than forever. */
const processMs = full ? 600_000 : 120_000;

const parse = path.join(import.meta.dirname, 'parse.mjs');

let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(path.join(os.tmpdir(), 'fuzz-'));
  for (const format of ['onnx', 'safetensors', 'engine', 'sequence'])
    await mkdir(path.join(directory, format));
  await writeOnnxCorpus();
  await writeSafetensorsCorpus();
  await writeSequenceCorpus();
  const engine = await buildEngine(path.join(import.meta.dirname, '../fixtures/session/linear.onnx'), {
    target: 'sm_89',
  });
  const file = path.join(directory, 'engine/linear.engine');
  await engine.save(file);
  await writeFile(file, withShortPlan(await readFile(file)));
});
afterAll(() => rm(directory, { recursive: true }));

/** The onnx package's small test models, which have every kind of field between them. */
async function writeOnnxCorpus() {
  const data = path.join(pythonOracle(), 'onnx/backend/test/data');
  const files = (await readdir(data, { recursive: true })).filter(
    (file) => path.basename(file) === 'model.onnx',
  );
  for (const file of files.sort()) {
    const { size } = await stat(path.join(data, file));
    if (size < 8192)
      await copyFile(path.join(data, file), path.join(directory, 'onnx', file.replaceAll('/', '-')));
  }
}

async function writeSafetensorsCorpus() {
  const write = (name: string, header: object, dataBytes: number) => {
    const json = Buffer.from(JSON.stringify(header));
    const bytes = Buffer.alloc(8 + json.length + dataBytes);
    bytes.writeBigUInt64LE(BigInt(json.length));
    bytes.set(json, 8);
    return writeFile(path.join(directory, 'safetensors', name), bytes);
  };
  const types = { F64: 8, F32: 4, F16: 2, BF16: 2, I64: 8, I8: 1, U16: 2, BOOL: 1, F8_E4M3: 1, C64: 8 };
  const header: Record<string, object> = { __metadata__: { format: 'pt', note: 'é' } };
  let at = 0;
  for (const [dtype, size] of Object.entries(types)) {
    header[`weight.${dtype}`] = { dtype, shape: [2, 3], data_offsets: [at, at + 6 * size] };
    at += 6 * size;
  }
  await write('types', header, at);
  await write('nibbles', { x: { dtype: 'F4', shape: [4, 4], data_offsets: [0, 8] } }, 8);
  const scalar = { dtype: 'F32', shape: [], data_offsets: [0, 4] };
  await write('empty', { x: scalar, y: { dtype: 'U8', shape: [0, 7], data_offsets: [4, 4] } }, 4);
}

/** Saved sequences of a row of 64 tokens: an empty one, one that was only read, one that has answered, a full one. */
async function writeSequenceCorpus() {
  const model = await LanguageModel.load(
    path.join(import.meta.dirname, '../fixtures/decoders/llama/optimum'),
    {
      device: 'cpu',
      threads: 1,
      kvCache: { maxBatchSize: 1, maxLength: 64 },
    },
  );
  for (const [name, prompt, maxTokens] of [
    ['empty', [], 0],
    ['read', [5, 6, 7, 8, 9], 0],
    ['answered', [300, 20], 6],
    ['full', [1, 2, 3], 61],
  ] as const) {
    const sequence = model.createSequence();
    await sequence.append(prompt);
    if (maxTokens > 0) await sequence.generate({ maxTokens, ignoreEos: true, temperature: 0 });
    await sequence.save(path.join(directory, 'sequence', name));
    sequence.dispose();
  }
  await model.dispose();
}

interface Report {
  cases: number;
  parsed: number;
  slowestMs: number;
  findings: { case: number; problem: string }[];
}

/** Parses some cases in a process of limited memory; whatever ends it is a finding too. */
async function parseCases(format: string, from: number, count: number): Promise<Report> {
  const working = await mkdtemp(path.join(directory, 'process-'));
  const args = [process.execPath, parse, format, seed, from, count, path.join(directory, format)].map(String);
  const child = spawn('bash', ['-c', `ulimit -v ${addressSpace}; exec "$@"`, 'bash', ...args], {
    cwd: working,
  });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  const timer = setTimeout(() => child.kill('SIGKILL'), processMs);
  const status = await new Promise((resolve) => child.on('close', (code, signal) => resolve(signal ?? code)));
  clearTimeout(timer);
  if (status === 0) return JSON.parse(stdout);
  const at = Number(await readFile(path.join(working, 'progress.txt'), 'utf8').catch(() => from));
  const problem = `the process ended with ${status}: ${stderr.slice(-500)}`;
  return { cases: at - from, parsed: 0, slowestMs: 0, findings: [{ case: at, problem }] };
}

describe.each(['onnx', 'safetensors', 'engine', 'sequence'])('%s files', (format) => {
  test(`${cases} mutated`, { timeout: 6 * 3_600_000 }, async () => {
    const starts = Array.from({ length: cases / casesPerProcess }, (_, i) => i * casesPerProcess);
    const reports: Report[] = [];
    const worker = async () => {
      for (let from = starts.shift(); from !== undefined; from = starts.shift()) {
        reports.push(await parseCases(format, from, casesPerProcess));
      }
    };
    await Promise.all([worker(), worker()]);
    expect(reports.flatMap(({ findings }) => findings)).toEqual([]);
    expect(reports.reduce((sum, report) => sum + report.cases, 0)).toBe(cases);
    // Mutations that every check refuses at once would test nothing behind it.
    const parsed = reports.reduce((sum, report) => sum + report.parsed, 0);
    expect(parsed / cases).toBeGreaterThan(0.005);
    if (full) {
      const slowest = Math.max(...reports.map(({ slowestMs }) => slowestMs));
      console.log(`${format}: ${cases} cases, ${parsed} parsed, slowest ${slowest.toFixed(0)} ms`);
    }
  });
});

describe('files that would need much memory', () => {
  const varint = (n: number) => {
    const bytes = [];
    for (; n > 127; n = Math.floor(n / 128)) bytes.push((n % 128) | 128);
    return Buffer.from([...bytes, n]);
  };
  const field = (number: number, data: Uint8Array) =>
    Buffer.concat([varint(number * 8 + 2), varint(data.length), data]);
  const repeated = (...pattern: number[]) => Buffer.alloc(8_000_000 * pattern.length, Buffer.from(pattern));
  const attribute = (data: Uint8Array) => field(1, field(5, data));

  // A heap of 128 MB stands for a heap of 2 GB and a file of 300 MB, which ended the process.
  test.each<[string, () => Buffer]>([
    ['dimensions', () => field(5, field(1, repeated(1)))],
    ['unpacked dimensions', () => field(5, repeated(8, 1))],
    ['floats', () => attribute(field(7, repeated(0, 0, 0, 0)))],
    ['integers', () => attribute(field(8, repeated(1)))],
    ['nodes', () => repeated(0x0a, 0)],
    ['names', () => field(1, repeated(0x0a, 0))],
    ['unknown fields', () => repeated(0xf8, 1, 1, 0x0a, 0)],
  ])('%s', async (name, graph) => {
    const file = path.join(directory, `${name}.onnx`);
    const bytes = [Buffer.from([8, 8]), field(8, Buffer.from([16, 17])), field(7, graph())];
    await writeFile(file, Buffer.concat(bytes));
    const script = `require('node-tensorrt/onnx').readModel(process.argv[1]).catch((e) => console.log(e.code, e.message))`;
    const child = spawn(process.execPath, ['--max-old-space-size=128', '-e', script, file]);
    let stdout = '';
    child.stdout.on('data', (data) => {
      stdout += data;
    });
    const status = await new Promise((resolve) =>
      child.on('close', (code, signal) => resolve(signal ?? code)),
    );
    expect([status, stdout]).toEqual([
      0,
      expect.stringMatching(/^ERR_MODEL_INVALID .*decoding would take more than/),
    ]);
  });
});
