import { readFileSync } from 'node:fs';
import type { Command } from 'commander';
import { installTensorRTRtx, removeTensorRT } from '../libraries/install-tensorrt.js';
import { listLibraries } from '../libraries/list-libraries.js';
import { print, progressLine, table, UsageError } from './output.js';

interface Flags {
  json: boolean;
}

/** `libs list | install rtx | remove NAME`: manages the TensorRT libraries on this machine and in the user cache. */
export function addLibsCommand(program: Command): void {
  const libs = program.command('libs').description('list, install and remove TensorRT libraries');
  libs
    .command('list', { isDefault: true })
    .description('show the TensorRT libraries found, the preferred one first')
    .option('--json', 'print one JSON document', false)
    .action(list);
  libs
    .command('install')
    .description(
      "install NVIDIA's TensorRT-RTX libraries into the user cache, through pip; shows their licence",
    )
    .argument('<flavour>', "'rtx'")
    .option('--json', 'print one JSON document', false)
    .action(install);
  libs
    .command('remove')
    .description('remove libraries that install installed')
    .argument('<name>', "as list shows it, or 'rtx'")
    .option('--json', 'print one JSON document', false)
    .action(remove);
}

async function list(flags: Flags): Promise<void> {
  const libraries = await listLibraries();
  if (flags.json) return print(JSON.stringify(libraries, null, 2));
  if (libraries.length === 0) {
    return print('No TensorRT library was found. `node-tensorrt libs install rtx` installs TensorRT-RTX.');
  }
  const rows = libraries.map(({ flavour, version, source, name, path, error }) => [
    flavour,
    version ?? '',
    name ?? source,
    error ? `${path}: ${error}` : path,
  ]);
  print(table(['flavour', 'version', 'from', 'path'], rows));
}

async function install(flavour: string, flags: Flags): Promise<void> {
  if (flavour !== 'rtx') {
    throw new UsageError(`'${flavour}' can't be installed: only 'rtx' (TensorRT-RTX) can.`);
  }
  const progress = progressLine();
  const result = await installTensorRTRtx({ onProgress: (step) => progress.show(`${step} …`) }).finally(
    progress.clear,
  );
  if (flags.json) return print(JSON.stringify(result, null, 2));
  print(`${result.name} ${result.installed ? 'installed' : 'is already installed'}: ${result.directory}`);
  print("These libraries are NVIDIA's; using them accepts NVIDIA's licence:");
  const notice = textOf(result.licence).match(/^.{60,}$/m)?.[0];
  if (notice) print(`  “${notice.trim()}”`);
  print(`  ${result.licence}`);
}

async function remove(name: string, flags: Flags): Promise<void> {
  const removed = await removeTensorRT(name);
  if (flags.json) return print(JSON.stringify({ removed }, null, 2));
  for (const entry of removed) print(`${entry} removed`);
}

function textOf(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
}
