import type { Command } from 'commander';
import type { EngineManifest } from '../../index.js';
import type { CastBfloat16Report, CastFloat16Report } from '../../onnx.js';

/** Writes a line to standard output, which only carries results. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Formats a table with columns as wide as their widest cell. */
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

/** Formats a size: 1234567 → '1.2 MB' (powers of 1000, as in file managers and NVIDIA's tools). */
export function bytes(count: number): string {
  const units = ['bytes', 'kB', 'MB', 'GB', 'TB'];
  let unit = 0;
  let value = count;
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** 'TensorRT-RTX 1.7.1' */
export function product({
  flavour,
  version,
}: Pick<EngineManifest['library'], 'flavour' | 'version'>): string {
  return `${flavour === 'rtx' ? 'TensorRT-RTX' : 'TensorRT'} ${version}`;
}

/**
 * Describes a cast: '48 MatMul, 2 Gather in FP16', the basis of the decision, and a line for each product that stayed
 * in FP32.
 */
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

/** Describes the masks of an engine's weights, and which layers sparse kernels are for. */
export function maskLines({ masks, sparsity }: Pick<EngineManifest, 'masks' | 'sparsity'>): string[] {
  const lines: string[] = [];
  if (masks) {
    const [kept, size] = (['kept', 'size'] as const).map((key) =>
      masks.weights.reduce((sum, weight) => sum + weight[key], 0),
    );
    lines.push(`pruned: ${masks.weights.length} weights keep ${kept} of ${size} elements`);
  }
  if (sparsity) {
    const { eligible, chosen } = sparsity;
    const uses = chosen === 'unknown' ? "TensorRT doesn't say which use them" : `${chosen} use them`;
    lines.push(`sparse kernels: ${eligible.length} weights are eligible; ${uses}`);
  }
  return lines;
}

/**
 * A line on standard error that the next one overwrites and that leaves no trace; does nothing unless it is a terminal.
 */
export function progressLine(): { show(text: string): void; clear(): void } {
  const { stderr } = process;
  if (!stderr.isTTY) return { show() {}, clear() {} };
  return {
    show: (text) => stderr.write(`\r\x1b[K${text.slice(0, (stderr.columns ?? 80) - 1)}`),
    clear: () => stderr.write('\r\x1b[K'),
  };
}

/** Options whose flags have other names. */
const otherFlags: Readonly<Record<string, string>> = { libraryPath: 'library' };

/**
 * Rewrites a library message for a user of the command line: options become the command's flags, or those of another
 * command that has them, and feeds become `--input`. Options without a flag in any command stay as they are.
 */
export function withFlags(message: string, command: Command): string {
  const flagOf = (option: string): string | undefined => {
    const attribute = otherFlags[option] ?? option;
    const flagIn = ({ options }: Command) => options.find((each) => each.attributeName() === attribute)?.long;
    const own = flagIn(command);
    if (own) return own;
    const other = root(command).commands.find(flagIn);
    return other && `\`${other.name()} ${flagIn(other)}\``;
  };
  const shapes = flagOf('shapes') ?? 'options.shapes';
  return message
    .replace(/\boptions\.shapes(?: of [A-Z]\w+\.\w+|\.(?=\S))?/g, (name) =>
      // After the dot comes an input's name, which may contain any characters.
      name.endsWith('.') ? `${shapes} ` : shapes,
    )
    .replace(
      /\boptions((?:\.\w+|\[\d+\])+)(?: of [A-Z]\w+\.\w+)?/g,
      (name, path: string) =>
        path
          .match(/\w+/g)!
          .map(flagOf)
          .find((flag) => flag !== undefined) ?? name,
    )
    .replaceAll(
      'Give { min, opt, max }.',
      `Give ${shapes} NAME:MIN,OPT,MAX, such as ${shapes} NAME:1x3,8x3,16x3.`,
    )
    .replace(/\bfeeds\['(.*?)'\]/g, (name, input: string) =>
      flagOf('input') === '--input' ? `--input ${input}` : name,
    );
}

function root(command: Command): Command {
  return command.parent ? root(command.parent) : command;
}

/** Formats an error as one line for standard error. */
export function errorLine(
  error: { readonly code?: string; readonly message: string },
  command: Command,
): string {
  const line = withFlags(error.message, command).replaceAll('\n', ' ');
  return `error: ${error.code ? `${error.code}: ` : ''}${line}\n`;
}

/** Collects the values of a flag that may be repeated. */
export const collect = (value: string, all: string[]) => [...all, value];

/** The program was called incorrectly: exit code 2. */
export class UsageError extends Error {}
