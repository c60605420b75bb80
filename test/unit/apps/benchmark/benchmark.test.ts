import { describe, expect, test } from 'vitest';
import { batchedShapes } from '../../../../dist/apps/benchmark/batched-shapes.js';
import {
  type BenchmarkResult,
  benchmark,
  benchmarkWarnings,
} from '../../../../dist/apps/benchmark/benchmark.js';
import { latencyStatistics } from '../../../../dist/apps/benchmark/latency-statistics.js';
import { mlperfLog } from '../../../../dist/apps/benchmark/mlperf-log.js';
import { python } from '../../../oracle/python.js';

test("statistics equal NumPy's", () => {
  let state = 7;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state / 2 ** 32;
  };
  const cases = [1, 2, 3, 9, 10, 11, 99, 100, 101, 1000, 1001].map((length) =>
    Array.from({ length }, () => Math.exp(4 * random())),
  );
  const expected = JSON.parse(
    python(
      `
import json, sys, numpy as np
def statistics(values):
    v = np.array(values)
    rank = lambda p: float(np.percentile(v, p, method='inverted_cdf'))
    return dict(min=float(v.min()), max=float(v.max()), mean=float(v.mean()), median=float(np.median(v)),
      p90=rank(90), p95=rank(95), p99=rank(99), coefficientOfVariation=float(v.std() / v.mean()))
print(json.dumps([statistics(c) for c in json.load(sys.stdin)]))`,
      [],
      JSON.stringify(cases),
    ),
  ) as Record<string, number>[];
  cases.forEach((values, i) => {
    const { mean, coefficientOfVariation, ...exact } = latencyStatistics(values);
    expect(exact).toEqual(Object.fromEntries(Object.keys(exact).map((key) => [key, expected[i]![key]])));
    expect(mean / expected[i]!.mean!).toBeCloseTo(1, 12);
    expect(coefficientOfVariation).toBeCloseTo(expected[i]!.coefficientOfVariation!, 10);
  });
});

describe('benchmark', () => {
  test('counts, parts that are there, and rounds that alternate', async () => {
    const order: string[] = [];
    let inFlight = 0;
    let most = 0;
    const target = (name: string, parts: object) => ({
      async run() {
        if (order.at(-1) !== name) order.push(name);
        most = Math.max(most, ++inFlight);
        await new Promise((resolve) => setImmediate(resolve));
        inFlight--;
        return parts;
      },
    });
    const [a, b] = await benchmark([target('a', { computeMs: 2, queueMs: 1 }), target('b', {})], {
      durationMs: 0,
      concurrency: 3,
      rounds: 4,
    });
    expect(order).toEqual(['a', 'b', 'a', 'b', 'a']); // a b, b a, a b, b a
    expect(most).toBe(3);
    expect([a!.queries, b!.queries]).toEqual([12, 12]); // at least 10, in four rounds
    expect(a!.queriesPerSecond).toBeCloseTo((1000 * a!.queries) / a!.wallMs, 9);
    expect(Object.keys(a!.parts)).toEqual(['queueMs', 'computeMs']);
    expect(a!.parts.computeMs!.median).toBe(2);
    expect(b!.parts).toEqual({});
    expect(a!.latency.min).toBeGreaterThan(0);
  });

  const steady = (value: number) => latencyStatistics([value]);
  const result = (parts: BenchmarkResult['parts'], values: number[] = [5]): BenchmarkResult => ({
    queries: 100,
    wallMs: 500,
    queriesPerSecond: 200,
    latency: latencyStatistics(values),
    latencyQuantiles: values,
    parts,
  });
  test.each<[string, BenchmarkResult, boolean, RegExp[]]>([
    ['nothing to doubt', result({ computeMs: steady(4), h2dMs: steady(1) }), true, []],
    ['few queries', { ...result({}), queries: 99 }, false, [/99 queries are too few/]],
    ['an unstable CPU', result({}, [1, 1.2]), false, [/latency is unstable.* 9\.1 %.*run nothing else/]],
    ['a CPU that is stable enough', result({}, [1, 1.05]), false, []],
    [
      'an unstable GPU',
      result({ computeMs: latencyStatistics([1, 1.05]) }),
      true,
      [/compute time.*lock-gpu/],
    ],
    ['enqueue', result({ computeMs: steady(1), enqueueMs: steady(0.81) }), true, [/enqueue time/]],
    ['inputs', result({ computeMs: steady(1), h2dMs: steady(1) }), true, [/copying inputs/]],
    ['outputs', result({ computeMs: steady(1), d2hMs: steady(1) }), true, [/copying outputs/]],
  ])('warnings: %s', (_, of, isGpu, expected) => {
    const warnings = benchmarkWarnings(of, isGpu);
    expect(warnings).toHaveLength(expected.length);
    expected.forEach((pattern, i) => {
      expect(warnings[i]).toMatch(pattern);
    });
  });
});

describe('shapes at a batch size', () => {
  const input = (name: string, ...shape: (number | string)[]) => ({ name, type: 'float32' as const, shape });
  const dims = (batched: ReturnType<typeof batchedShapes>) => [
    batched.batch,
    Object.fromEntries(batched.profile),
  ];
  test('by name, in every position; other sizes are derived as for profiles', () => {
    const inputs = [
      input('ids', 'batch', 'seq'),
      input('past', 2, 'batch', 8, 'past_length'),
      input('scale', 3),
    ];
    expect(dims(batchedShapes(inputs, 4, new Map()))).toEqual([
      4,
      { ids: [4, 128], past: [2, 4, 8, 128], scale: [3] },
    ]);
    expect(dims(batchedShapes(inputs, undefined, new Map([['ids', [2, 16]]])))).toEqual([
      2,
      { ids: [2, 16], past: [2, 2, 8, 128], scale: [3] },
    ]);
  });
  test('a leading dimension without a name', () => {
    expect(dims(batchedShapes([input('x', '', 3, 224, 224)], undefined, new Map()))).toEqual([
      1,
      { x: [1, 3, 224, 224] },
    ]);
  });
  test('a static model has its own', () => {
    const inputs = [input('x', 16, 3), input('y', 16)];
    expect(dims(batchedShapes(inputs, undefined, new Map()))).toEqual([16, { x: [16, 3], y: [16] }]);
    expect(() => batchedShapes(inputs, 8, new Map())).toThrow(/--batch is 8, but the model's is fixed at 16/);
  });
});

describe('MLPerf log', () => {
  const run = {
    scenario: 'SingleStream' as const,
    benchmark: 'résumé "model"\n',
    modelSha256: 'ab'.repeat(32),
    seed: 1,
    threads: undefined,
    concurrency: 1,
    batch: 1,
    device: 'cpu',
    runtime: { name: 'onnxruntime', version: '1.30.0' },
    version: '0.1.0',
    result: {
      queries: 4,
      wallMs: 10,
      queriesPerSecond: 400,
      latency: latencyStatistics([1, 2, 3, 4]),
      latencyQuantiles: [1, 2, 3, 4],
      parts: {},
    },
    times: { initStart: 1_000.4, initStop: 2_000, runStart: 3_000, runStop: 3_010 },
  };
  /**
   * The result of mlperf-logging's parser, compared with what its own logger would have written for the same events.
   */
  const parsed = (log: string) =>
    JSON.parse(
      python(
        `
import io, json, sys
from mlperf_logging.compliance_checker.mlp_parser import ruleset_610
from mlperf_logging.mllog.mllog import _encode_log
sys.stdin.reconfigure(encoding='utf-8')
text = sys.stdin.read()
lines, errors = ruleset_610.parse_generator(io.StringIO(text))
own = [_encode_log(**json.loads(l.full_string.split(' ', 1)[1])) for l in lines]
same = [json.loads(o.split(' ', 1)[1]) == json.loads(l.full_string.split(' ', 1)[1])
  and list(json.loads(o.split(' ', 1)[1])) == list(json.loads(l.full_string.split(' ', 1)[1])) for o, l in zip(own, lines)]
print(json.dumps({'errors': errors, 'same': all(same), 'lines': len(lines), 'of': len(text.splitlines()),
  'times': [l.timestamp for l in lines], 'values': {l.key: l.value['value'] for l in lines}}))`,
        [],
        log,
      ),
    );

  test('SingleStream, by mlperf-logging', () => {
    const { values, times, ...parse } = parsed(mlperfLog(run));
    expect(parse).toEqual({ errors: [], same: true, lines: parse.of, of: parse.of });
    expect(times).toEqual(times.toSorted((a: number, b: number) => a - b));
    expect(values).toMatchObject({
      submission_benchmark: run.benchmark,
      official_mlperf_result: false,
      model_sha256: run.modelSha256,
      seed: 1,
      effective_scenario: 'SingleStream',
      'result_90.00_percentile_latency_ns': 4_000_000,
      result_mean_latency_ns: 2_500_000,
      result_query_count: 4,
      result_validity: 'INVALID',
      result_min_duration_met: false,
      result_min_queries_met: false,
      result_invalid_reason: 'it ran 0.0 s of 600 s, 4 of 100 queries',
    });
    expect(values).not.toHaveProperty('result_samples_per_second');
  });

  test('Offline, by mlperf-logging', () => {
    const result = { ...run.result, queries: 10_000, wallMs: 600_000, queriesPerSecond: 10_000 / 600 };
    const { values, ...parse } = parsed(
      mlperfLog({ ...run, scenario: 'Offline', batch: 16, threads: 2, result }),
    );
    expect(parse).toMatchObject({ errors: [], same: true });
    expect(values).toMatchObject({
      effective_scenario: 'Offline',
      effective_samples_per_query: 16,
      intra_op_threads: 2,
      result_samples_per_second: (16 * 10_000) / 600,
      result_validity: 'VALID',
    });
    expect(values).not.toHaveProperty('result_invalid_reason');
  });
});
