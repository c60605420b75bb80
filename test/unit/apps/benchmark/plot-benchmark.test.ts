import { spawnSync } from 'node:child_process';
import { expect, test } from 'vitest';
import type { BenchmarkReport } from '../../../../dist/apps/benchmark/benchmark-report.js';
import { latencyStatistics, quantiles } from '../../../../dist/apps/benchmark/latency-statistics.js';
import { plotBenchmark } from '../../../../dist/apps/benchmark/plot-benchmark.js';

const row = (name: string, latencies: number[], samplesPerSecond: number) => ({
  name,
  version: '1.0.0',
  runtime: { name: 'onnxruntime', version: '1.30.0' },
  device: 'cpu',
  loadMs: 1,
  samplesPerSecond,
  result: {
    queries: latencies.length,
    wallMs: 1,
    queriesPerSecond: 1,
    latency: latencyStatistics(latencies),
    latencyQuantiles: quantiles(latencies, 100),
    parts: {},
  },
  warnings: [],
});

const report = (
  runs: [batch: number, concurrency: number, ours: number, theirs: number][],
): BenchmarkReport => ({
  model: 'folder/a <model> & "more".onnx',
  sha256: '',
  machine: { cpu: 'A CPU', cores: 2, node: 'v20' },
  threads: undefined,
  durationMs: 1000,
  warmupMs: 0,
  reports: runs.map(([batch, concurrency, ours, theirs]) => ({
    batch,
    concurrency,
    inputs: [],
    why: '',
    rows: [row('node-tensorrt', [1, 2, 4], ours), row('onnxruntime-node', [2, 4, 8], theirs)],
  })),
});

/** The attributes of each element of a kind, as Python's XML parser reads them. */
function elements(svg: string, name: string): Record<string, string>[] {
  const script = `
import json, sys, xml.etree.ElementTree as tree
root = tree.fromstring(sys.stdin.read())
print(json.dumps([dict(e.attrib, text=''.join(e.itertext())) for e in root.iter('{http://www.w3.org/2000/svg}' + sys.argv[1])]))`;
  const { stdout, stderr } = spawnSync('python3', ['-c', script, name], { input: svg, encoding: 'utf8' });
  expect(stderr).toBe('');
  return JSON.parse(stdout);
}

test('bars are as high as throughputs, and every curve is drawn', () => {
  const svg = plotBenchmark(
    report([
      [1, 1, 100, 50],
      [8, 1, 400, 200],
      [8, 4, 800, 300],
    ]),
  );
  // Two curves for each batch size with one query in flight.
  expect(elements(svg, 'path').length).toBe(4);
  const heights = elements(svg, 'rect').map(({ height }) => Number(height));
  // By batch size: 1 and 8; by queries in flight, with batch 8: 1 and 4. The axes end at 400 and 800.
  expect(heights.map((height, i) => Math.round((height * (i < 4 ? 400 : 800)) / 210))).toEqual([
    100, 50, 400, 200, 400, 200, 800, 300,
  ]);
  const texts = elements(svg, 'text').map(({ text }) => text);
  expect(texts).toContain('a <model> & "more".onnx');
  expect(texts).toContain('batch 8');
});

test('a curve passes through the quantiles', () => {
  const [curve] = elements(plotBenchmark(report([[1, 1, 10, 10]])), 'path');
  const points = curve!
    .d!.slice(1)
    .split('L')
    .map((point) => point.split(',').map(Number) as [number, number]);
  expect(points.length).toBe(101);
  // 1, 2 and 4 ms lie equally far from each other on a logarithmic axis; heights run from 0 % to 100 %.
  const [[x1, y1], [x2, y2], [x4, y4]] = [points[0]!, points[50]!, points[100]!];
  expect(x2 - x1).toBeCloseTo(x4 - x2, 0);
  expect([y1, y2, y4]).toEqual([210, 105, 0]);
});

test('one batch size and one concurrency make two panels', () => {
  expect(elements(plotBenchmark(report([[1, 1, 10, 10]])), 'g').length).toBe(2);
});

test('quantiles are nearest ranks', () => {
  expect(quantiles([3, 1, 2, 4], 4)).toEqual([1, 1, 2, 3, 4]);
  expect(quantiles([5], 2)).toEqual([5, 5, 5]);
});
