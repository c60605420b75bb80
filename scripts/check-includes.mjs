// Checks the includes of the C++ sources in native/ and reports each wrong line: an include that its part doesn't
// allow, a file that doesn't exist, and headers that include each other in a circle. `npm run lint` runs it.
import { readdirSync, readFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const native = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../native');

// The parts of native/, in the order of their dependencies. A part consists of the folders and files (a header with its
// source) in its entry, without those that an earlier entry names. It may include itself, the parts in `includes`, the
// standard library and POSIX, and the other headers in `headers`. runtime/ implements runtime.h, which is all that
// core/ includes of it: neither knows the other, and node/ connects them.
const parts = {
  base: {
    // Types, errors, memory and files: the base of everything else.
    files: [
      'core/byte_source',
      'core/data_type',
      'core/error',
      'core/file_lock',
      'core/host_memory',
      'core/mapped_file',
      'core/memory_pool',
      'core/sha256',
      'core/tensor',
      'core/tensor_memory',
    ],
    includes: [],
  },
  interface: { files: ['runtime/runtime'], includes: ['base'] },
  // Its loops over weights use vector instructions.
  core: {
    files: ['core/'],
    includes: ['base', 'interface'],
    headers: ['emmintrin.h', 'immintrin.h'],
  },
  library: { files: ['runtime/shared_library'], includes: ['base'] },
  cuda: { files: ['runtime/cuda/'], includes: ['base', 'interface', 'library'] },
  onnxruntime: { files: ['runtime/onnxruntime/'], includes: ['base', 'interface', 'library'] },
  // Compiled once for all flavours of TensorRT. It includes none of their headers, which contradict each other.
  tensorrt: {
    files: ['runtime/tensorrt/tensorrt', 'runtime/tensorrt/flavour'],
    includes: ['base', 'interface', 'library'],
  },
  // Compiled once per flavour.
  flavour: {
    files: ['runtime/tensorrt/'],
    includes: ['base', 'interface', 'library', 'cuda', 'tensorrt'],
    headers: ['NvInfer.h', 'NvOnnxParser.h'],
  },
  node: {
    files: ['node/', 'addon'],
    includes: ['base', 'interface', 'core', 'cuda', 'onnxruntime', 'tensorrt'],
    headers: ['napi.h'],
  },
};
const list = new Intl.ListFormat('en');
const posix = /^(sys\/\w+|dlfcn|fcntl|malloc|unistd)\.h$/;

const order = Object.keys(parts);

function partOf(file) {
  const name = file.replace(/\.(h|cc)$/, '');
  const owns = (entry) => (entry.endsWith('/') ? file.startsWith(entry) : name === entry);
  return order.find((part) => parts[part].files.some(owns));
}

const problems = [];
for (const part of order) {
  for (const other of parts[part].includes) {
    if (order.indexOf(other) < order.indexOf(part)) continue;
    problems.push(`scripts/check-includes.mjs lets ${part} include ${other}, which must stand above it.`);
  }
}

const sources = new Map(
  readdirSync(native, { recursive: true })
    .filter((file) => /\.(h|cc)$/.test(file))
    .sort()
    .map((file) => {
      const lines = readFileSync(path.join(native, file), 'utf8').split('\n');
      const includes = lines.flatMap((text, index) => {
        const [, bracket, name] = /^\s*#\s*include\s*([<"])([^>"]*)/.exec(text) ?? [];
        return name === undefined ? [] : [{ name, own: bracket === '"', line: index + 1 }];
      });
      return [file, includes];
    }),
);

for (const [file, includes] of sources) {
  const part = partOf(file);
  if (part === undefined) {
    problems.push(
      `native/${file}:1 belongs to no part of native/: name its folder in scripts/check-includes.mjs.`,
    );
    continue;
  }
  for (const { name, own, line } of includes) {
    const at = `native/${file}:${line}`;
    if (own && !sources.has(name)) {
      problems.push(`${at} includes "${name}", which is not a file in native/.`);
    } else if (own) {
      const other = partOf(name);
      if (other === part || parts[part].includes.includes(other)) continue;
      const allowed = list.format(['itself', ...parts[part].includes]);
      problems.push(
        `${at} includes "${name}", which is in ${other}, but ${part} may include only ${allowed}.`,
      );
    } else if (name.includes('.') && !posix.test(name) && !parts[part].headers?.includes(name)) {
      const allowed = list.format(['the standard library', 'POSIX', ...(parts[part].headers ?? [])]);
      problems.push(`${at} includes <${name}>, but ${part} may include only ${allowed}.`);
    }
  }
}

// Each circle is reported once, at the include that closes it.
const done = new Set();
function follow(file, trail) {
  if (done.has(file)) return;
  for (const { name, own, line } of sources.get(file)) {
    if (!own || !sources.has(name)) continue;
    const circle = [...trail, file];
    if (circle.includes(name)) {
      const names = [...circle.slice(circle.indexOf(name)), name].join(' → ');
      problems.push(`native/${file}:${line} closes a circle of includes: ${names}.`);
    } else {
      follow(name, circle);
    }
  }
  done.add(file);
}
for (const file of sources.keys()) follow(file, []);

for (const problem of problems) console.error(problem);
process.exit(problems.length > 0 ? 1 : 0);
