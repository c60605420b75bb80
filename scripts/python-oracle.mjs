// Installs the Python packages that tests use as oracles (test/oracle/requirements*.txt) into build/, once.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');

/** The folder with onnx and numpy, for PYTHONPATH. */
export function pythonOracle() {
  return install('requirements.txt', 'python-oracle');
}

/** The folder with MLPerf's logging package, whose parser needs none of its dependencies (SciPy, pandas …). */
export function mlperfOracle() {
  return install('requirements-mlperf.txt', 'mlperf-oracle', '--no-deps');
}

/** The folder with TensorRT-RTX's own Python binding, without the libraries that it binds to. */
export function tensorrtPeer() {
  return install('requirements-tensorrt.txt', 'tensorrt-peer', '--no-deps');
}

/** The folder of onnxruntime-genai, with ONNX Runtime and numpy. */
export function genaiPeer() {
  return install('requirements-genai.txt', 'genai-peer');
}

/** Another Python version, or other requirements, make another folder. */
function install(file, name, ...flags) {
  const requirements = path.join(root, 'test/oracle', file);
  const version = spawnSync('python3', ['-VV'], { encoding: 'utf8' });
  if (version.status !== 0) throw new Error('The tests need python3 with pip: install it first.');
  const key = createHash('sha256').update(version.stdout).update(readFileSync(requirements)).digest('hex');
  const folder = path.join(root, 'build', `${name}-${key.slice(0, 12)}`);
  if (existsSync(folder)) return folder;

  console.error(`Installing test/oracle/${file} with pip …`);
  const partial = mkdtempSync(`${folder}.partial-`);
  const options = [
    '--quiet',
    '--root-user-action=ignore',
    '--disable-pip-version-check',
    ...flags,
    '--target',
    partial,
  ];
  const pip = ['-m', 'pip', 'install', ...options, '--requirement', requirements];
  const installed = spawnSync('python3', pip, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (installed.status !== 0) throw new Error(`python3 ${pip.join(' ')} failed.`);
  try {
    renameSync(partial, folder);
  } catch (error) {
    // Another process has installed the same packages meanwhile.
    rmSync(partial, { recursive: true });
    if (!existsSync(folder)) throw error;
  }
  return folder;
}
