import { type Command, Option } from 'commander';
import { type LayerReport, type MaskModelOptions, MaskSet, pruneModel } from '../../index.js';
import { bytes, collect, print, progressLine, table, UsageError } from './output.js';

interface PruneFlags {
  output: string;
  pattern?: string;
  density?: string;
  scope?: string;
  structure?: string;
  shrink: boolean;
  include: string[];
  exclude: string[];
  use?: string;
  masks?: string;
  json: boolean;
}

/** `prune MODEL.onnx -o OUT.onnx`: sets weights to zero, by a rule or by masks from a file. */
export function addPruneCommand(program: Command): void {
  program
    .command('prune')
    .description('set the least important weights of an ONNX model to zero')
    .argument('<model>', 'ONNX file')
    .requiredOption('-o, --output <file>', 'the pruned ONNX file to write')
    .option('--pattern <n:m>', 'keep at most n of every m weights, such as 2:4')
    .option('--density <share>', 'share of the weights to keep, from 0 to 1')
    .addOption(new Option('--structure <structure>', 'mlp: drop whole neurons of MLPs').choices(['mlp']))
    .addOption(
      new Option('--scope <scope>', 'keep that share of each weight, or of all together').choices([
        'layer',
        'global',
      ]),
    )
    .option('--shrink', 'remove neurons that masks empty, so that the model gets smaller and faster', false)
    .option('--include <regexp>', 'only weights or nodes whose name matches; repeatable', collect, [])
    .option('--exclude <regexp>', 'no weights or nodes whose name matches; repeatable', collect, [])
    .option('--use <file>', 'use the masks of this safetensors file instead of making them')
    .option('--masks <file>', 'write the masks to this safetensors file')
    .option('--json', 'print one JSON document', false)
    .action(prune);
}

async function prune(model: string, flags: PruneFlags): Promise<void> {
  const started = performance.now();
  const progress = progressLine();
  const showing = (what: string) => ({
    onProgress: ({ weight, done, total }: { weight: string; done: number; total: number }) =>
      progress.show(`${what} ${done + 1}/${total} ${weight}`),
  });
  const masks = await masksFor(model, flags, showing('Masking')).finally(progress.clear);
  const { shrink } = flags;
  await pruneModel(model, masks, flags.output, { shrink, ...showing('Writing') }).finally(progress.clear);
  if (flags.masks !== undefined) await masks.save(flags.masks);
  const seconds = (performance.now() - started) / 1000;
  const layers = masks.report();
  const total = totalOf(layers);
  if (flags.json) {
    const { output, masks: saved } = flags;
    const report = { output, ...(saved === undefined ? {} : { masks: saved }), seconds, ...total, layers };
    return print(JSON.stringify(report, null, 2));
  }
  print(
    table(
      ['weight', 'dims', 'kept', '2:4', ''],
      layers.map(({ weight, dims, density, twoFour, skipped }) => [
        weight,
        dims.join('×'),
        `${(100 * density).toFixed(1)} %`,
        twoFour ? 'yes' : '',
        skipped ?? '',
      ]),
    ),
  );
  print(`${flags.output}: ${total.kept} of ${total.size} weights kept, in ${seconds.toFixed(1)} s`);
  if (flags.masks !== undefined)
    print(`${flags.masks}: the masks, ${bytes(Math.ceil(total.masked / 8))} of bits`);
}

function masksFor(
  model: string,
  { use, pattern, density, scope, structure, include, exclude }: PruneFlags,
  showing: Pick<MaskModelOptions, 'onProgress'>,
): Promise<MaskSet> {
  const given = [use, pattern, density].filter((each) => each !== undefined);
  if (given.length !== 1) throw new UsageError('Give one of --pattern, --density and --use.');
  if (use !== undefined) {
    const isMore = scope !== undefined || structure !== undefined || include.length > 0 || exclude.length > 0;
    if (isMore) throw new UsageError('--use takes the masks of a file as they are.');
    return MaskSet.load(use);
  }
  return MaskSet.forModel(model, {
    ...showing,
    ...(pattern === undefined ? {} : { pattern: pattern as '2:4' }),
    ...(density === undefined ? {} : { density: parseDensity(density) }),
    ...(scope === undefined ? {} : { scope: scope as 'layer' }),
    ...(structure === undefined ? {} : { structure: structure as 'mlp' }),
    ...(include.length > 0 ? { include: include.map(parseExpression) } : {}),
    exclude: exclude.map(parseExpression),
  });
}

function totalOf(layers: readonly LayerReport[]): { size: number; kept: number; masked: number } {
  const sum = (of: (layer: LayerReport) => number) => layers.reduce((all, layer) => all + of(layer), 0);
  return {
    size: sum(({ size }) => size),
    kept: sum(({ kept }) => kept),
    masked: sum(({ size, skipped }) => (skipped === null ? size : 0)),
  };
}

function parseDensity(text: string): number {
  const density = Number(text);
  if (text.trim() !== '' && density >= 0 && density <= 1) return density;
  throw new UsageError(`--density must be a number from 0 to 1, not '${text}'.`);
}

function parseExpression(text: string): RegExp {
  try {
    return new RegExp(text);
  } catch {
    throw new UsageError(`'${text}' isn't a valid regular expression.`);
  }
}
