import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { text } from 'node:stream/consumers';
import { afterAll, afterEach, expect, test, vi } from 'vitest';
import { installTensorRTRtx } from '../../../../dist/apps/libraries/install-tensorrt.js';

// Several processes that change the installed libraries at once.
const folder = mkdtempSync(path.join(os.tmpdir(), 'libraries-'));
afterAll(() => rmSync(folder, { recursive: true }));
afterEach(() => vi.unstubAllEnvs());

test('installations at once fetch one after the other', async () => {
  const log = path.join(folder, 'log');
  const bin = path.join(folder, 'bin');
  mkdirSync(bin);
  const python = `#!/bin/sh\necho begins >> '${log}'\nsleep 0.5\necho ends >> '${log}'\nexit 1\n`;
  writeFileSync(path.join(bin, 'python3'), python, { mode: 0o755 });
  vi.stubEnv('PATH', `${bin}:${process.env.PATH}`);
  vi.stubEnv('NODE_TENSORRT_CACHE', path.join(folder, 'fetched'));
  const steps: string[] = [];
  const onProgress = (step: string) => steps.push(step);
  const ends = await Promise.allSettled([
    installTensorRTRtx({ onProgress }),
    installTensorRTRtx({ onProgress }),
  ]);
  for (const end of ends) {
    expect(end).toMatchObject({ status: 'rejected', reason: { code: 'ERR_DOWNLOAD_FAILED' } });
  }
  expect(readFileSync(log, 'utf8')).toBe('begins\nends\nbegins\nends\n');
  expect(steps.filter((step) => step === 'Waiting for another installation').length).toBe(1);
  expect(readdirSync(path.join(folder, 'fetched/lib'))).toEqual([]);
});

test("processes that remove the same library at once don't disturb each other", async () => {
  const cache = path.join(folder, 'removed');
  const lib = path.join(cache, 'lib');
  for (let i = 0; i < 100; i++) {
    const libraries = path.join(lib, `rtx-1.${i}-cu13/tensorrt_rtx_libs`);
    mkdirSync(libraries, { recursive: true });
    for (let file = 0; file < 20; file++) writeFileSync(path.join(libraries, `${file}`), '');
  }
  const cli = path.join(import.meta.dirname, '../../../../dist/apps/cli/main.js');
  const remove = async () => {
    const env = { ...process.env, NODE_TENSORRT_CACHE: cache };
    const child = spawn(process.execPath, [cli, 'libs', 'remove', 'rtx'], { env });
    const [error, [status]] = await Promise.all([text(child.stderr), once(child, 'close')]);
    return { error, status };
  };
  for (const { error, status } of await Promise.all([1, 2, 3, 4].map(remove))) {
    // A process that comes too late finds none.
    if (status !== 0) expect(error).toMatch(/^error: ERR_LIBRARY_NOT_FOUND/);
  }
  expect(readdirSync(lib)).toEqual([]);
});
