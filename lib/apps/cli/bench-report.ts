import type { Command } from 'commander';
import { parts } from '../benchmark/benchmark.js';
import type { LatencyStatistics } from '../benchmark/latency-statistics.js';
import type { BatchReport, Row } from '../benchmark/measure-batch.js';
import { bytes, print, table, withFlags } from './output.js';

const partNames = {
  queueMs: 'queue',
  enqueueMs: 'enqueue',
  h2dMs: 'H2D',
  computeMs: 'compute',
  d2hMs: 'D2H',
};

export function printReport(
  { batch, concurrency, rows, ratioOfMedians, why }: BatchReport,
  command: Command,
): void {
  print('');
  const [ours] = rows as [Row];
  const inFlight = concurrency > 1 ? `, ${concurrency} in flight` : '';
  print(`batch ${batch}${inFlight}, on ${ours.device} (${withFlags(why, command)})`);
  print(
    table(
      ['', 'queries/s', 'samples/s', 'queries', 'host memory', 'GPU memory', 'loaded in'],
      rows.map(({ name, runtime, result, samplesPerSecond, hostBytes, deviceBytes, loadMs }) => [
        `${name} (${runtime.name} ${runtime.version})`,
        figure(result.queriesPerSecond),
        figure(samplesPerSecond),
        String(result.queries),
        hostBytes === undefined ? '' : bytes(hostBytes),
        deviceBytes === undefined ? '' : bytes(deviceBytes),
        `${(loadMs / 1000).toFixed(2)} s`,
      ]),
    ),
  );
  print('');
  const line = (name: string, what: string, { coefficientOfVariation, ...s }: LatencyStatistics) => [
    name,
    what,
    ...[s.min, s.mean, s.median, s.p90, s.p95, s.p99, s.max].map((ms) => ms.toPrecision(4)),
    `${(100 * coefficientOfVariation).toFixed(1)} %`,
  ];
  print(
    table(
      ['', 'ms', 'min', 'mean', 'median', 'p90', 'p95', 'p99', 'max', 'variation'],
      rows.flatMap(({ name, result }) => [
        line(name, 'latency', result.latency),
        ...parts.flatMap((part) =>
          result.parts[part] ? [line('', partNames[part], result.parts[part])] : [],
        ),
      ]),
    ),
  );
  if (ratioOfMedians !== undefined)
    print(`\nratio of median latencies: ${ratioOfMedians.toFixed(3)} (below 1, node-tensorrt is faster)`);
  for (const { name, warnings } of rows)
    for (const warning of warnings) print(`warning: ${name}: ${warning}`);
}

const figure = (value: number) => (value >= 100 ? value.toFixed(0) : value.toPrecision(3));
