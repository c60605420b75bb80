import { defineConfig } from 'vitest/config';

// Tests import the built package by its name, as a user does, so `dist` must load natively in Node.
const shared = {
  pool: 'forks',
  testTimeout: 60_000,
  hookTimeout: 300_000,
  // An engine that an older build of this package cached would prove nothing about this one.
  env: { NODE_TENSORRT_ENGINE_CACHE: 'off' },
  server: { deps: { external: [/\/dist\//] } },
} as const;

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      { test: { ...shared, name: 'main', include: ['test/{unit,e2e,fuzz}/**/*.test.ts'] } },
      // For `npm run test:gpu`. Files run one after the other, since they share a GPU.
      { test: { ...shared, name: 'gpu', include: ['test/gpu/**/*.test.ts'], fileParallelism: false } },
    ],
  },
});
