import type { Command } from 'commander';
import { inspectSystem, type SystemReport } from '../../index.js';
import { print, withFlags } from './output.js';

/** `doctor`: shows what this machine has, what is missing, and what to do. */
export function addDoctorCommand(program: Command): void {
  program
    .command('doctor')
    .description('show what this machine has, what is missing, and what to do about it')
    .option('--json', 'print one JSON document', false)
    .action(doctor);
}

async function doctor(flags: { json: boolean }, command: Command): Promise<void> {
  const report = await inspectSystem();
  if (flags.json) return print(JSON.stringify(report, null, 2));
  for (const [what, value] of rows(report)) print(`${what.padEnd(10)}${value}`);
  print('');
  for (const { works, what, detail, remedy } of report.findings) {
    print(withFlags(`${works ? (remedy ? '!' : '✓') : '✗'} ${what}: ${detail}`, command));
    if (remedy) print(withFlags(`  → ${remedy}`, command));
  }
}

function rows(report: SystemReport): [string, string][] {
  const { addon, driver, cuda, libcuda, nvcc, onnxruntime } = report;
  return [
    ['System', `${report.platform}, Node ${report.node}, node-tensorrt ${report.version}`],
    [
      'Addon',
      addon ? `for CUDA ${addon.cuda}, with ${addon.flavours.join(', ')}, ${addon.path}` : 'does not load',
    ],
    ['Driver', driver ? [driver, cuda && `CUDA ${cuda}`, libcuda].filter(Boolean).join(', ') : 'none'],
    ...report.gpus.map((gpu, ordinal): [string, string] => [
      `GPU ${ordinal}`,
      [
        gpu.name,
        `compute capability ${gpu.computeCapability}`,
        `${Math.round(gpu.memory / 2 ** 20)} MiB`,
        gpu.pciBusId,
        gpu.uuid,
        gpu.flavours.length > 0 ? `runs ${gpu.flavours.join(', ')}` : 'not supported by current TensorRT',
      ]
        .filter(Boolean)
        .join(', '),
    ]),
    ...(nvcc
      ? [['nvcc', `release ${nvcc.release}, V${nvcc.version}, ${nvcc.path}`] as [string, string]]
      : []),
    ...report.toolkits.map(({ version, path }): [string, string] => ['Toolkit', `CUDA ${version}, ${path}`]),
    ...report.runtimes.map(({ version, path }): [string, string] => ['Runtime', `CUDA ${version}, ${path}`]),
    ...report.tensorrt.map(({ flavour, version, cuda, path, source, error }): [string, string] => [
      'TensorRT',
      `${[flavour, version, cuda && `for CUDA ${cuda}`].filter(Boolean).join(' ')}, ${path} (${source})${error ? `: ${error}` : ''}`,
    ]),
    ['CPU', onnxruntime ? `ONNX Runtime ${onnxruntime.version}, ${onnxruntime.path}` : 'none'],
  ];
}
