import path from 'node:path';
import type { BenchmarkReport } from './benchmark-report.js';
import type { BatchReport, Row } from './measure-batch.js';

// A drawing of a benchmark, for people who look rather than read: latencies, then throughput by batch size and by queries
// in flight. It is an SVG with its own styles, for light and dark pages.

const width = 880;
const margin = { left: 76, right: 150 };
const panelWidth = width - margin.left - margin.right;
const panelHeight = 210;
const panelGap = 84;
/** Height of the title above the first panel. */
const top = 96;

const style = `
  svg { font: 13px system-ui, sans-serif; background: #ffffff; }
  text { fill: #1f2937; }
  .title { font-size: 18px; font-weight: 600; }
  .panel { font-size: 14px; font-weight: 600; }
  .quiet { fill: #6b7280; }
  .grid { stroke: #e5e7eb; }
  .axis { stroke: #9ca3af; }
  .line { fill: none; stroke-width: 2; }
  .peer { stroke-dasharray: 6 4; }
  .s0 { stroke: #0f766e; } .f0 { fill: #0f766e; }
  .s1 { stroke: #c2410c; } .f1 { fill: #c2410c; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; }
    text { fill: #e6edf3; }
    .quiet { fill: #9198a1; }
    .grid { stroke: #262c36; }
    .axis { stroke: #656c76; }
    .s0 { stroke: #2dd4bf; } .f0 { fill: #2dd4bf; }
    .s1 { stroke: #fb923c; } .f1 { fill: #fb923c; }
  }`;

/** One contestant's result in one run. */
interface Point {
  readonly run: BatchReport;
  readonly row: Row;
  /** The contestant's place in the report, which decides its colour: ours is 0. */
  readonly contestant: number;
}

/** Draws a report as an SVG document. */
export function plotBenchmark({ model, machine, durationMs, reports }: BenchmarkReport): string {
  const points = reports.flatMap((run) => run.rows.map((row, contestant) => ({ run, row, contestant })));
  const [first] = points as [Point];
  const least = Math.min(...reports.map(({ concurrency }) => concurrency));
  const largest = Math.max(...reports.map(({ batch }) => batch));
  const inFlight = least > 1 ? `, ${least} queries in flight` : '';
  const oneByOne = points.filter(({ run }) => run.concurrency === least);
  const panels = [
    latencyPanel(`Share of queries that take no longer than this many milliseconds${inFlight}`, oneByOne),
    throughputPanel(`Throughput by batch size, samples/s${inFlight}`, oneByOne, ({ batch }) => batch),
  ];
  if (new Set(reports.map(({ concurrency }) => concurrency)).size > 1) {
    const widest = points.filter(({ run }) => run.batch === largest);
    const title = `Throughput by queries in flight, samples/s, batch ${largest}`;
    panels.push(throughputPanel(title, widest, ({ concurrency }) => concurrency));
  }
  const height = top + panels.length * (panelHeight + panelGap);
  const device = first.row.device;
  const about = `${device === 'cpu' ? machine.cpu : device}, ${machine.cores} cores, Node.js ${machine.node}, ${durationMs / 1000} s each`;
  const names = first.run.rows.map(({ name, runtime }, i) => {
    const sample = i === 0 ? '━━' : '╌╌';
    const label = `${sample} ${name} (${runtime.name} ${runtime.version})`;
    return text(margin.left + i * 330, 72, label, `f${i % 2}`);
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" role="img">`,
    `<title>${escaped(`Benchmark of ${path.basename(model)}`)}</title>`,
    `<style>${style}\n</style>`,
    text(margin.left, 30, path.basename(model), 'title'),
    text(margin.left, 50, about, 'quiet'),
    ...names,
    ...panels.map((panel, i) => group(margin.left, top + i * (panelHeight + panelGap) + 30, panel)),
    '</svg>',
    '',
  ].join('\n');
}

/** The share of queries that take no longer than a time, one curve for each run and contestant. */
function latencyPanel(title: string, points: readonly Point[]): string[] {
  const all = points.flatMap(({ row }) => row.result.latencyQuantiles);
  const scale = logScale(Math.min(...all), Math.max(...all));
  const y = (share: number) => panelHeight * (1 - share);
  const ticks = scale.ticks.flatMap((ms) => [
    line(scale.at(ms), 0, scale.at(ms), panelHeight, 'grid'),
    text(scale.at(ms), panelHeight + 20, String(ms), 'quiet', 'middle'),
  ]);
  const shares = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    line(0, y(share), panelWidth, y(share), 'grid'),
    text(-10, y(share) + 4, `${100 * share} %`, 'quiet', 'end'),
  ]);
  const ours = points.filter(({ contestant }) => contestant === 0);
  const curves = points.map(({ run, row, contestant }) => {
    const { latencyQuantiles: values, latency } = row.result;
    const steps = values.map((ms, k) => `${round(scale.at(ms))},${round(y(k / (values.length - 1)))}`);
    const about = `${row.name}, batch ${run.batch}: median ${latency.median.toPrecision(3)} ms`;
    const classes = `line s${contestant % 2}${contestant > 0 ? ' peer' : ''}`;
    return `<path class="${classes}" d="M${steps.join('L')}"><title>${escaped(about)}</title></path>`;
  });
  // Labels stand at different heights, so that those of curves that lie close together don't overlap.
  const labels = ours.map(({ run, row }, i) => {
    const share = (i + 1) / (ours.length + 1);
    const ms = row.result.latencyQuantiles[Math.round(100 * share)]!;
    return text(scale.at(ms) + 8, y(share) + 4, `batch ${run.batch}`, 'f0');
  });
  return [text(0, -14, title, 'panel'), ...shares, ...ticks, ...curves, ...labels];
}

/** Throughput, a group of bars for each size and a bar for each contestant. */
function throughputPanel(
  title: string,
  points: readonly Point[],
  sizeOf: (run: BatchReport) => number,
): string[] {
  const sizes = [...new Set(points.map(({ run }) => sizeOf(run)))].sort((a, b) => a - b);
  const contestants = Math.max(...points.map(({ contestant }) => contestant)) + 1;
  const highest = Math.max(...points.map(({ row }) => row.samplesPerSecond));
  const step = niceStep(highest / 4);
  const most = step * Math.ceil(highest / step);
  const y = (value: number) => panelHeight * (1 - value / most);
  const groupWidth = panelWidth / sizes.length;
  const barWidth = Math.min(54, (0.7 * groupWidth) / contestants);
  const grid = Array.from({ length: Math.round(most / step) + 1 }, (_, i) => i * step).flatMap((value) => [
    line(0, y(value), panelWidth, y(value), value === 0 ? 'axis' : 'grid'),
    text(-10, y(value) + 4, figure(Number(value.toPrecision(6))), 'quiet', 'end'),
  ]);
  const bars = points.flatMap(({ run, row, contestant }) => {
    const centre = (sizes.indexOf(sizeOf(run)) + 0.5) * groupWidth;
    const x = centre + (contestant - contestants / 2) * barWidth;
    const at = y(row.samplesPerSecond);
    return [
      `<rect class="f${contestant % 2}" x="${round(x + 2)}" y="${round(at)}" width="${round(barWidth - 4)}" height="${round(panelHeight - at)}" rx="3"/>`,
      text(x + barWidth / 2, at - 5, figure(row.samplesPerSecond), 'quiet', 'middle'),
    ];
  });
  const names = sizes.map((size, i) =>
    text((i + 0.5) * groupWidth, panelHeight + 20, String(size), 'quiet', 'middle'),
  );
  return [text(0, -14, title, 'panel'), ...grid, ...bars, ...names];
}

/** A logarithmic axis from `least` to `most`, with a tick at 1, 2 and 5 of each decade. */
function logScale(least: number, most: number): { at(value: number): number; ticks: number[] } {
  const [from, to] = [Math.log10(least) - 0.02, Math.log10(most) + 0.02];
  const ticks: number[] = [];
  for (let decade = Math.floor(from); decade <= to; decade++) {
    for (const digit of [1, 2, 5]) {
      const tick = Number(`${digit}e${decade}`);
      if (Math.log10(tick) >= from && Math.log10(tick) <= to) ticks.push(tick);
    }
  }
  return { at: (value) => (panelWidth * (Math.log10(value) - from)) / (to - from), ticks };
}

/** The next of 1, 2 and 5 times a power of ten that is at least `least`. */
function niceStep(least: number): number {
  const decade = 10 ** Math.floor(Math.log10(least));
  return decade * ([1, 2, 5].find((digit) => digit * decade >= least) ?? 10);
}

/** Three digits at most where there is a fraction, and a space between thousands. */
const figure = (value: number) =>
  (value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)))).replace(
    /\B(?=(\d{3})+$)/g,
    '\u2009',
  );
const round = (value: number) => Math.round(10 * value) / 10;
const escaped = (value: string) =>
  value.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');

function text(x: number, y: number, value: string, classes: string, anchor = 'start'): string {
  return `<text x="${round(x)}" y="${round(y)}" class="${classes}" text-anchor="${anchor}">${escaped(value)}</text>`;
}

function line(x1: number, y1: number, x2: number, y2: number, classes: string): string {
  return `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" class="${classes}"/>`;
}

function group(x: number, y: number, content: readonly string[]): string {
  return `<g transform="translate(${x},${y})">\n${content.join('\n')}\n</g>`;
}
