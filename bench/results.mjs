// Shared by tables of results: the line about their origin, and writing them into a Markdown file.
import { readFile, writeFile } from 'node:fs/promises';
import os from 'node:os';

/**
 * Date, hardware and versions, for the line above a table.
 * @param system the result of inspectSystem()
 */
export function describeMachine(system) {
  return [
    new Date().toISOString().slice(0, 10),
    os.cpus()[0]?.model ?? 'unknown CPU',
    `${os.availableParallelism()} cores`,
    ...system.gpus.map((gpu) => `${gpu.name} (compute capability ${gpu.computeCapability})`),
    ...(system.driver ? [`driver ${system.driver}`] : []),
    ...system.tensorrt
      .filter(({ error }) => error === undefined)
      .map((library) => `TensorRT ${library.flavour} ${library.version}`),
    `Node.js ${process.version}`,
    `node-tensorrt ${system.version}`,
  ];
}

/** Replaces the text between `<!-- name -->` and the next `<!-- end -->`. */
export async function writeResults(file, name, markdown) {
  const markers = new RegExp(`(<!-- ${name} -->\\n)[\\s\\S]*?(<!-- end -->)`);
  const text = await readFile(file, 'utf8');
  if (!markers.test(text)) throw new Error(`${file} has no <!-- ${name} --> … <!-- end -->.`);
  await writeFile(
    file,
    text.replace(markers, (_, begin, end) => `${begin}\n${markdown}\n\n${end}`),
  );
}
