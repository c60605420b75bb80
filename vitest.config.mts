import { defineConfig } from 'vitest/config';

// Tests import the built package by its own name, as a user does, so `dist` must load natively in Node.
const shared = {
  pool: 'forks',
  testTimeout: 60_000,
  hookTimeout: 300_000,
  // An engine that an older build of this package kept says nothing about this one.
  env: { NODE_TENSORRT_ENGINE_CACHE: 'off' },
  server: { deps: { external: [/\/dist\//] } },
} as const;

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      { test: { ...shared, name: 'main', include: ['test/{unit,e2e,fuzz}/**/*.test.ts'] } },
      // `npm run test:gpu`. One file after the other: they share a GPU.
      { test: { ...shared, name: 'gpu', include: ['test/gpu/**/*.test.ts'], fileParallelism: false } },
    ],
  },
});
