// Child of builds.test.ts: compiles mutated ONNX files that parse. `node build.mjs SEED FROM COUNT CORPUS`.
// Prints a line for each finding, { case, problem }. A case that ends this process is the one in progress.txt of the
// working directory; one that TensorRT does not end within two minutes does so by SIGALRM.
import { openSync, readdirSync, readFileSync, writeSync } from 'node:fs';
import path from 'node:path';
import { buildEngine } from '../../dist/index.mjs';
import { parseModel } from '../../dist/onnx.mjs';
import { generator, mutateOnnx } from './mutate.mjs';

const [seed, from, count, folder] = process.argv.slice(2);
const corpus = readdirSync(folder)
  .sort()
  .map((name) => readFileSync(path.join(folder, name)));
const progress = openSync('progress.txt', 'w');
for (let i = Number(from); i < Number(from) + Number(count); i++) {
  const bytes = new Uint8Array(mutateOnnx(corpus, generator(seed, i)));
  try {
    parseModel(bytes);
  } catch {
    continue;
  }
  writeSync(progress, String(i).padEnd(16), 0);
  try {
    const signal = AbortSignal.timeout(120_000);
    const engine = await buildEngine(bytes, { target: 'sm_89', optimizationLevel: 0, cache: false, signal });
    engine.dispose();
  } catch (error) {
    if (error?.name === 'TimeoutError') process.kill(process.pid, 'SIGALRM');
    const { name, code } = error;
    if (!['TensorRTError', 'TypeError', 'RangeError'].includes(name) || !/^ERR_/.test(code ?? '')) {
      const problem = String(error?.stack ?? error).slice(0, 600);
      writeSync(1, `${JSON.stringify({ case: i, problem })}\n`);
    }
  }
}
