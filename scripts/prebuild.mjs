// Fills prebuilds/cuda12 and prebuilds/cuda13 with prebuildify. Run it as `npm run prebuild`, since npm provides
// node-gyp. node-gyp empties the folder build/ beside the binding.gyp that it reads, so it gets a copy in
// build/prebuild/. That keeps this checkout's own build/, whose objects the variants share.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, rmSync, symlinkSync } from 'node:fs';
import path from 'node:path';

const root = path.resolve(import.meta.dirname, '..');
const stage = path.join(root, 'build/prebuild');
rmSync(stage, { recursive: true, force: true });
mkdirSync(stage, { recursive: true });
for (const name of ['package.json', 'binding.gyp', 'CMakeLists.txt', 'scripts']) {
  symlinkSync(path.join(root, name), path.join(stage, name));
}

// node-gyp requires Node's headers although nothing here is compiled against them. Give it this Node's own, or it
// downloads them.
const installation = path.resolve(path.dirname(process.execPath), '..');
const headers = existsSync(path.join(installation, 'include/node/node_api.h'))
  ? { npm_config_nodedir: process.env.npm_config_nodedir ?? installation }
  : {};

for (const cuda of ['12', '13']) {
  const out = path.join(root, 'prebuilds', `cuda${cuda}`);
  rmSync(out, { recursive: true, force: true });
  console.error(`Prebuilding prebuilds/cuda${cuda} …`);
  const options = ['--napi', '--tag-libc', '--target', process.versions.node, '--cwd', stage, '--out', out];
  const result = spawnSync(process.execPath, ['node_modules/prebuildify/bin.js', ...options], {
    cwd: root,
    stdio: 'inherit',
    env: { ...process.env, ...headers, NODE_TENSORRT_CUDA: cuda },
  });
  if (result.status !== 0) process.exit(1);
}
