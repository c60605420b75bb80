import type { Command } from 'commander';
import { inspectSystem } from '../system-report.js';
import { bytes, print } from './output.js';

/** `doctor`: what this machine has, what is missing, what to do. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('show what this machine has, what is missing, and what to do about it')
    .option('--json', 'print one JSON document', false)
    .action(doctor);
}

async function doctor(flags: { json: boolean }): Promise<void> {
  const report = await inspectSystem();
  if (flags.json) return print(JSON.stringify(report, null, 2));
  const rows: [string, string][] = [
    ['System', `${report.platform}, Node ${report.node}, node-tensorrt ${report.version}`],
    [
      'Addon',
      `${report.addon.path}, for CUDA ${report.addon.cuda}, with ${report.addon.flavours.join(', ')}`,
    ],
    ['Driver', report.driver ? `${report.driver} (CUDA ${report.cuda})` : 'none'],
    ...report.gpus.map(({ name, computeCapability, memory }): [string, string] => [
      'GPU',
      `${name}, compute capability ${computeCapability}, ${bytes(memory)}`,
    ]),
    ...report.tensorrt.map(({ flavour, version, path, source, error }): [string, string] => [
      'TensorRT',
      `${[flavour, version].filter(Boolean).join(' ')}, ${path} (${source})${error ? `: ${error}` : ''}`,
    ]),
    [
      'CPU',
      report.onnxruntime ? `ONNX Runtime ${report.onnxruntime.version}, ${report.onnxruntime.path}` : 'none',
    ],
  ];
  for (const [what, value] of rows) print(`${what.padEnd(10)}${value}`);
  print('');
  for (const { works, what, detail, remedy } of report.findings) {
    print(`${works ? '✓' : '✗'} ${what}: ${detail}`);
    if (remedy) print(`  → ${remedy}`);
  }
}
