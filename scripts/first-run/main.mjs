// Implements scripts/gpu-first-run: runs each step in its own process, prints its output as it comes, and writes the
// findings after each step. It never loads the addon itself, so that no step can end it.
import { fork } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { writeResults } from '../../bench/results.mjs';
import { steps } from './steps.mjs';

const root = path.resolve(import.meta.dirname, '../..');
const page = path.join(root, 'docs/gpu-results.md');

let options;
try {
  options = parseArgs({
    options: {
      results: { type: 'string' },
      minutes: { type: 'string', default: '9' },
      only: { type: 'string' },
      quick: { type: 'boolean', default: false },
    },
  }).values;
  if (!(Number(options.minutes) > 0)) throw new Error('--minutes must be a number above 0.');
} catch (error) {
  console.error(`gpu-first-run: ${error.message}`);
  process.exit(2);
}
const only = options.only?.split(',');
const chosen = steps.filter(({ name }, i) => !only || only.includes(name) || only.includes(String(i + 1)));
const unknown = only?.filter((each) => !steps.some(({ name }, i) => each === name || each === String(i + 1)));
if (unknown?.length > 0) {
  const names = steps.map(({ name }, i) => `${i + 1} ${name}`).join(', ');
  console.error(`gpu-first-run: there is no step ${unknown.join(', ')}. The steps are ${names}.`);
  process.exit(2);
}

const began = performance.now();
const seconds = () => (performance.now() - began) / 1000;
const total = 60 * Number(options.minutes);
function print(text) {
  for (const line of text.split('\n')) console.log(`[${seconds().toFixed(1).padStart(6)} s] ${line}`);
}

/** Models and engines of all steps. Later steps find the engines that earlier ones built in the cache. */
const folder = mkdtempSync(path.join(os.tmpdir(), 'gpu-first-run-'));
process.once('exit', () => rmSync(folder, { recursive: true, force: true }));
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => process.exit(1));

const library = process.env.NODE_TENSORRT_TENSORRT_PATH;
const searched = (process.env.LD_LIBRARY_PATH ?? '').split(':').filter((each) => each && each !== library);
const env = {
  ...process.env,
  NODE_TENSORRT_CACHE: path.join(folder, 'cache'),
  LD_LIBRARY_PATH: searched.join(':'),
};
delete env.NODE_TENSORRT_ENGINE_CACHE;

/** The number of lines of a step's output that are repeated if its process fails. */
const keptLines = 8;

/**
 * Runs a step.
 * @returns { state, error?, seconds, found }: `state` is 'passed', 'failed' or 'not run'; `found` is what the step
 *   sent, in order: lines of Markdown, and tables.
 */
async function run(step, limit) {
  const start = seconds();
  const found = [];
  const failures = new Set();
  let isDone = false;
  const child = fork(path.join(import.meta.dirname, 'step.mjs'), [step.name], {
    cwd: root,
    env: {
      ...env,
      GPU_FIRST_RUN: JSON.stringify({ folder, quick: options.quick, seconds: limit }),
    },
    stdio: ['ignore', 'pipe', 'pipe', 'ipc'],
  });
  const last = [];
  for (const stream of [child.stdout, child.stderr]) {
    createInterface({ input: stream }).on('line', (line) => {
      print(`  ${line}`);
      last.push(line);
      last.splice(0, last.length - keptLines);
    });
  }
  child.on('message', (message) => {
    if (message.machine) machine = message.machine;
    if (message.line !== undefined) found.push(message.line);
    if (message.table) found.push({ ...message.table, rows: [] });
    if (message.row) found.findLast((each) => each.rows && each.id === message.id).rows.push(message.row);
    if (message.failure) failures.add(message.failure);
    if (message.done) isDone = true;
  });
  let isLate = false;
  const timer = setTimeout(() => {
    isLate = true;
    child.kill('SIGKILL');
  }, 1000 * limit);
  const [code, signal] = await new Promise((resolve) => {
    child.once('error', (error) => resolve([error.message]));
    child.once('close', (...ended) => resolve(ended));
    // A process that is stuck in the driver may not end, and is left behind.
    setTimeout(() => resolve([undefined, 'SIGKILL']), 1000 * (limit + 5)).unref();
  });
  clearTimeout(timer);
  const words = last.join(' ').trim();
  if (isLate) failures.add(`It was stopped after ${Math.round(limit)} s.`);
  else if (!isDone || code !== 0) {
    const how = signal ? `by ${signal}` : `with code ${code}`;
    failures.add(`Its process ended ${how}${words ? `, after these words: ${words}` : ''}.`);
  }
  const error = failures.size > 0 ? [...failures].join(' ') : undefined;
  const state = error === undefined ? 'passed' : 'failed';
  return { state, error, seconds: seconds() - start, found };
}

// ---- the findings as Markdown ----

/** Set by the first step: { line, gpu }. */
let machine;
const results = new Map(chosen.map(({ name }) => [name, { state: 'not run', error: 'not reached' }]));

const cell = (value) => String(value).replaceAll('|', '\\|').replaceAll('\n', ' ');

function markdown() {
  const count = (state) => [...results.values()].filter((result) => result.state === state).length;
  const commit = options.quick ? ' Small models (`--quick`).' : '';
  const lines = [
    `${machine?.line ?? 'No machine was recognised'}.`,
    '',
    `${count('passed')} of ${chosen.length} steps passed, ${count('failed')} failed, ${count('not run')} did not run; ${Math.round(seconds())} s.${commit}`,
  ];
  for (const [i, { name, title, proves, failure }] of steps.entries()) {
    const result = results.get(name);
    if (!result) continue;
    const { state, error, seconds, found = [] } = result;
    const took = seconds === undefined ? '' : ` (${seconds.toFixed(1)} s)`;
    lines.push('', `### ${i + 1}. ${title}: ${state}${took}`, '', `Proves: ${proves}`);
    if (state === 'failed') lines.push('', `**Failed:** ${cell(error)}`, '', `What that means: ${failure}`);
    if (state === 'not run') lines.push('', `Not run: ${error}.`);
    for (const each of found) {
      if (typeof each === 'string') lines.push('', each);
      else {
        const row = (cells) => `| ${cells.map(cell).join(' | ')} |`;
        lines.push('', row(each.columns), row(each.columns.map(() => '---')), ...each.rows.map(row));
      }
    }
  }
  return lines.join('\n');
}

/** Writes into the given file, or else into the results page, which only a real GPU may write. */
async function write() {
  if (options.results) {
    if (!existsSync(options.results)) {
      writeFileSync(options.results, '<!-- gpu-first-run -->\n\nNot run.\n\n<!-- end -->\n');
    }
    return writeResults(options.results, 'gpu-first-run', markdown());
  }
  if (machine?.gpu && !/^stand-in/i.test(machine.gpu)) await writeResults(page, 'gpu-first-run', markdown());
}

// ---- all steps, in their order ----

for (const [i, step] of chosen.entries()) {
  const { name, title, proves, failure } = step;
  const number = steps.indexOf(step) + 1;
  const kept = chosen.slice(i + 1).reduce((sum, { least }) => sum + least, 0);
  const left = total - seconds();
  // Reserve time for the later steps, but if little is left, give most of it to the first ones.
  const limit = Math.min(step.most, Math.max(left - kept, left / 2));
  console.log('');
  print(`${number}/${steps.length} ${title} (${name}, at most ${Math.max(0, Math.round(limit))} s)`);
  print(`  Proves: ${proves}`);
  if (limit < 1) {
    results.set(name, { state: 'not run', error: `the ${options.minutes} minutes are over` });
    print(`  NOT RUN: the ${options.minutes} minutes are over`);
    continue;
  }
  const result = await run(step, limit);
  results.set(name, result);
  if (result.state === 'passed') print(`  passed, ${result.seconds.toFixed(1)} s`);
  else {
    print(`  FAILED, ${result.seconds.toFixed(1)} s: ${result.error}`);
    print(`  What that means: ${failure}`);
    if (step.name === 'builder' && library) {
      print(`  The steps that follow look for libraries in ${library} too (LD_LIBRARY_PATH).`);
      env.LD_LIBRARY_PATH = [library, ...searched].join(':');
    }
  }
  await write();
}
await write();

console.log('');
for (const [name, { state, seconds, error }] of results) {
  const took = seconds === undefined ? '' : `${seconds.toFixed(1)} s`;
  print(`${state.toUpperCase().padEnd(7)} ${name.padEnd(12)} ${took.padStart(8)}  ${error ?? ''}`);
}
if (!options.results && !(machine?.gpu && !/^stand-in/i.test(machine.gpu))) {
  print(`Nothing was written: ${page} is for GPUs. --results FILE writes elsewhere.`);
}
const isWhole = [...results.values()].every(({ state }) => state === 'passed');
process.exit(isWhole ? 0 : 1);
