import type { CastBfloat16Report, CastFloat16Report } from '../onnx/cast-precision.js';

/** Writes a line to standard output, which carries nothing but results. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Columns as wide as their widest cell. */
export function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...rows.map((row) => row[column]?.length ?? 0)),
  );
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, column) => cell.padEnd(widths[column]!))
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** 1234567 → '1.2 MB' (powers of 1000, as file managers and NVIDIA's tools count). */
export function bytes(count: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = count;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** What a cast did: '48 MatMul, 2 Gather in FP16', what decided, and a line for each product that stayed. */
export function castLines(cast: CastFloat16Report | CastBfloat16Report): string[] {
  const [label, types] = 'float16' in cast ? ['FP16', cast.float16] : ['BF16', cast.bfloat16];
  const counts = Object.entries(types).map(([type, count]) => `${count} ${type}`);
  const { kept, ranges } = cast;
  const listed = kept.slice(0, 5).map(({ node, reason }) => `  ${node} stays in FP32: ${reason}`);
  if (kept.length > listed.length) listed.push(`  … and ${kept.length - listed.length} more`);
  const measured =
    label === 'BF16'
      ? []
      : ranges.source === 'none'
        ? [`  ranges were not measured: ${ranges.reason}`]
        : [`  by the ranges of ${ranges.samples} ${ranges.source === 'random' ? 'random ' : ''}samples`];
  return [`in ${label}: ${counts.join(', ') || 'nothing'}`, ...measured, ...listed];
}

/** One line on standard error that is overwritten by the next and leaves no trace; nothing unless it is a terminal. */
export function progressLine(): { show(text: string): void; clear(): void } {
  const { stderr } = process;
  if (!stderr.isTTY) return { show() {}, clear() {} };
  return {
    show: (text) => stderr.write(`\r\x1b[K${text.slice(0, (stderr.columns ?? 80) - 1)}`),
    clear: () => stderr.write('\r\x1b[K'),
  };
}

/** An error in how the program was called: exit code 2. */
export class UsageError extends Error {}
