import path from 'node:path';
import { type Command, Option } from 'commander';
import { type BuildOptions, buildEngine, type Dims, Engine, MaskSet, type ShapeRange } from '../../index.js';
import { bytes, castLines, collect, maskLines, print, product, progressLine, UsageError } from './output.js';

interface BuildFlags {
  output?: string;
  precision: string;
  shapes: string[];
  target?: string;
  sparsity?: string;
  masks?: string;
  optimizationLevel?: string;
  workspace?: string;
  keepFp32: string[];
  runtime?: string;
  refit?: boolean;
  timingCache?: string;
  library?: string;
  plan?: string;
  /** false: --no-cache. */
  cache?: string | false;
  parent?: string;
  lineage?: string;
  json: boolean;
}

const precisions = [
  'fp16',
  'bf16',
  'fp32',
  'tf32',
  'as-exported',
] as const satisfies readonly BuildOptions['precision'][];

/** `build MODEL.onnx`: compiles an engine file, ahead of time or for this machine's GPU. */
export function addBuildCommand(program: Command): void {
  program
    .command('build')
    .description('compile an ONNX model into a TensorRT engine; with --target no GPU is needed')
    .argument('<model>', 'ONNX file')
    .option('-o, --output <file>', 'engine file; default: MODEL.engine, in the working directory')
    .addOption(
      new Option('--precision <precision>', 'types to compute in').choices(precisions).default('fp16'),
    )
    .option(
      '--shapes <name:min,opt,max>',
      'shapes of a dynamic input, NAME:1x3x224x224,8x3x224x224,16x3x224x224, or one shape; repeatable',
      collect,
      [],
    )
    .option('--target <targets>', "GPUs, such as sm_89,sm_120; default: this machine's")
    .addOption(
      new Option('--sparsity <sparsity>', 'auto: use 2:4 sparsity where weights have it').choices([
        'off',
        'auto',
      ]),
    )
    .option('--masks <file>', 'prune the weights first, by the masks of this safetensors file')
    .addOption(
      new Option('--optimization-level <level>', 'how long to look for a faster plan').choices([...'012345']),
    )
    .option('--workspace <bytes>', 'device memory for scratch space')
    .option(
      '--keep-fp32 <pattern>',
      'nodes to leave in FP32, by name or operator type; repeatable',
      collect,
      [],
    )
    .addOption(
      new Option('--runtime <runtime>', 'library to compile with').choices([
        'auto',
        'tensorrt',
        'tensorrt-rtx',
      ]),
    )
    .option('--library <path>', 'the TensorRT library, or its folder')
    .option('--cache <folder>', 'folder that keeps built engines; default: in the user cache')
    .option('--no-cache', 'build even if the engine was built before')
    .option('--parent <engine>', 'the engine that this one descends from: its file, or its id')
    .option('--lineage <json>', 'more to record about where the engine comes from: a JSON object')
    .option('--refit', 'make weights replaceable')
    .option('--timing-cache <file>', 'file in which TensorRT keeps its measurements for later builds')
    .option('--plan <file>', 'also write the bare TensorRT plan')
    .option('--json', 'print one JSON document', false)
    .action(build);
}

async function build(model: string, flags: BuildFlags): Promise<void> {
  const output = flags.output ?? `${path.basename(model, '.onnx')}.engine`;
  const progress = progressLine();
  const started = performance.now();
  const shapes = flags.shapes.map(parseShapeFlag);
  const twice = shapes.find(([name], i) => shapes.findIndex(([other]) => other === name) !== i);
  if (twice) throw new UsageError(`--shapes gives '${twice[0]}' twice.`);
  const options: BuildOptions = {
    precision: flags.precision as 'fp16',
    ...(shapes.length > 0 ? { shapes: Object.fromEntries(shapes) } : {}),
    ...(flags.target === undefined ? {} : { target: parseTargets(flags.target) }),
    ...(flags.sparsity === undefined ? {} : { sparsity: flags.sparsity as 'auto' }),
    ...(flags.masks === undefined ? {} : { masks: await MaskSet.load(flags.masks) }),
    ...(flags.optimizationLevel === undefined
      ? {}
      : { optimizationLevel: Number(flags.optimizationLevel) as 3 }),
    ...(flags.workspace === undefined ? {} : { workspace: parseNumber('--workspace', flags.workspace) }),
    ...(flags.runtime === undefined ? {} : { runtime: flags.runtime as 'auto' }),
    ...(flags.library === undefined ? {} : { libraryPath: flags.library }),
    ...(flags.cache === undefined ? {} : { cache: flags.cache }),
    ...(flags.parent === undefined ? {} : { parent: await parentEngine(flags.parent) }),
    ...(flags.lineage === undefined ? {} : { lineage: parseLineage(flags.lineage) }),
    ...(flags.refit ? { refit: true } : {}),
    ...(flags.timingCache === undefined ? {} : { timingCache: flags.timingCache }),
    keepFp32: flags.keepFp32,
    onProgress: ({ phase, step, steps }) => progress.show(`${phase} ${step}/${steps}`),
  };
  const engine = await buildEngine(model, options).finally(progress.clear);
  const seconds = (performance.now() - started) / 1000;
  await engine.save(output);
  if (flags.plan !== undefined) await engine.savePlan(flags.plan);
  if (flags.json) {
    const { id, byteLength, fromCache, manifest } = engine;
    const plan = flags.plan === undefined ? {} : { plan: flags.plan };
    const report = { engine: output, id, ...plan, byteLength, seconds, fromCache, manifest };
    return print(JSON.stringify(report, null, 2));
  }
  const { library, targets, precision, cast, masks, sparsity, profiles, warnings } = engine.manifest;
  print(
    `${output}: ${bytes(engine.byteLength)}, ${precision}, for ${targets.join(', ')}, ` +
      `in ${seconds.toFixed(1)} s${engine.fromCache ? ', from the cache' : ''}`,
  );
  print(`compiled by ${product(library)}`);
  if (cast) for (const line of castLines(cast)) print(line);
  for (const line of maskLines({ masks, sparsity })) print(line);
  profiles.forEach((profile, i) => {
    for (const [name, { min, opt, max }] of Object.entries(profile)) {
      const number = profiles.length > 1 ? ` (profile ${i})` : '';
      print(`  ${name}${number}: ${[min, opt, max].map((dims) => dims.join('×')).join(' to ')}`);
    }
  });
  for (const warning of warnings) print(`  warning: ${warning}`);
  if (flags.plan !== undefined) print(`${flags.plan}: the bare plan`);
}

/** `NAME:1x8,8x64,32x256`; the name may have colons. */
export function parseShapeFlag(text: string): [name: string, range: ShapeRange | Dims] {
  const split = text.lastIndexOf(':');
  const shapes = text
    .slice(split + 1)
    .split(',')
    .map((shape) => (/^\d+(x\d+)*$/.test(shape) ? shape.split('x').map(Number) : undefined));
  const [min, opt, max] = shapes;
  if (split > 0 && min && shapes.length === 1) return [text.slice(0, split), min];
  if (split > 0 && min && opt && max && shapes.length === 3) return [text.slice(0, split), { min, opt, max }];
  throw new UsageError(
    `--shapes must be NAME:MIN,OPT,MAX such as x:1x3,8x3,16x3, or NAME:SHAPE, not '${text}'.`,
  );
}

/** `sm_89,sm_120`. */
function parseTargets(text: string): string[] {
  const targets = text.split(',').map((name) => name.trim());
  const odd = targets.find((name) => !/^sm_\d{2,3}$/.test(name));
  if (odd !== undefined)
    throw new UsageError(`--target must be a list such as sm_89,sm_120: '${odd}' is not a GPU target.`);
  return targets;
}

/** Returns an id as it is, or reads the id of an engine file. */
async function parentEngine(parent: string): Promise<string> {
  if (/^[0-9a-f]{64}$/.test(parent)) return parent;
  using engine = await Engine.load(parent);
  return engine.id;
}

function parseLineage(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text);
  } catch {
    throw new UsageError(`--lineage must be a JSON object such as {"run": 7}, not '${text}'.`);
  }
}

function parseNumber(flag: string, text: string): number {
  const value = Number(text);
  if (text.trim() === '' || !Number.isInteger(value) || value < 0)
    throw new UsageError(`${flag} must be a whole number, not '${text}'.`);
  return value;
}
