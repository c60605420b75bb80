import { defineConfig } from 'vitest/config';

// Tests import the built package by its own name, as a user does, so `dist` must load natively in Node.
export default defineConfig({
  test: {
    include: ['test/{unit,e2e,fuzz,gpu}/**/*.test.ts'],
    pool: 'forks',
    maxWorkers: 2,
    // An engine that an older build of this package kept says nothing about this one.
    env: { NODE_TENSORRT_ENGINE_CACHE: 'off' },
    testTimeout: 60_000,
    hookTimeout: 300_000,
    server: { deps: { external: [/\/dist\//] } },
  },
});
