// Writes the models that make_modelopt_counts.py counts, and that test/e2e/precision.test.ts compares with them.
import { copyFile, mkdir } from 'node:fs/promises';
import path from 'node:path';
import { buildBert, buildResnet, writeModel } from '../../dist/onnx.mjs';
import { bertBase } from '../../scripts/bert-base.mjs';
import { minilmDirectory } from '../../scripts/minilm.mjs';

const precisionModels = ['bert-base', 'llama', 'minilm', 'qwen3', 'resnet50'];

/** Writes one of them; the same bytes every time. */
export async function writePrecisionModel(name, file) {
  const fixture = path.join(import.meta.dirname, '../fixtures/decoders', name, 'optimum/model.onnx');
  if (name === 'llama' || name === 'qwen3') await copyFile(fixture, file);
  else if (name === 'minilm') await writeModel(await buildBert(await minilmDirectory()), file);
  else await writeModel(name === 'resnet50' ? await buildResnet() : await buildBert(bertBase), file);
}

if (process.argv[1] === import.meta.filename) {
  const [, , folder] = process.argv;
  await mkdir(folder, { recursive: true });
  for (const name of precisionModels) await writePrecisionModel(name, path.join(folder, `${name}.onnx`));
}
